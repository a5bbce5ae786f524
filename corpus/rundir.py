"""The run directory: where every file of a build stands, which partitions are done, and who may write.

It is a local folder or one behind a URL; the paths are used alike (`corpus.storage`), the lock is not (`corpus.lease`).

The unit of work is a partition: the documents whose id begins alike. Their number is fixed by the first build. A
partition of a stage is done when its marker, written last, carries the fingerprint of what it was made from and the
files it lists are there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

from corpus.errors import ConfigError, EngineError
from corpus.lease import Lease, lease
from corpus.storage import RemoteError, cache_folder, remote_path
from corpus.store import disk_message, file_sha256, remove_leftovers, write_json

MIN_PARTITIONS = 16
DOCUMENTS_PER_PARTITION = 64
MAX_GROWTH = 8  # a partition of 512 documents is 20,000 pages, half a gigabyte as records
PAGE_IMAGES = "page-images"
OWNED = {  # the files that a stage writes for a partition, by glob
    "pages": ("pages/p*.parquet",),
    "sketches": (".state/sketches/p*.parquet", ".state/signatures/p*.parquet"),
    "matches": (),
    "layout": (".state/layout/p*.parquet",),
    "questions": ("questions/p*.parquet", ".state/rejected/synthesise-p*.parquet"),
    "windows": (".state/samples/p*.parquet", ".state/rejected/shard-p*.parquet"),
    "shards": ("shards/p*.tar", ".state/index/p*.parquet"),
    "conversations": (".state/conversations/*.parquet",),
    "short": ("shards/short-*.tar", ".state/short/*.parquet"),
}
PARTITION = r"p\d{4,}|\d{6,}"  # of documents; of short data
FORMAT = 1  # raise it when an older run directory can no longer be continued


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A finished partition of a stage.

    `files`: name below the run -> its digest, as `corpus.store.has_digest` reads it. `facts`: what later stages need.
    """

    fingerprint: str
    files: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> list[str]:
        """What the partition contains, for the fingerprints of what is made from it."""
        return [digest for _, digest in sorted(self.files.items())]


class RunDir:
    """Paths and markers of one run directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".state"
        self._remote = remote_path(root)
        self._lease: Lease | None = None
        self._sound: dict[tuple[str, str], Marker] = {}  # markers of a remote run whose files were seen to be there

    def path(self, *parts: str) -> Path:
        """A file of the run."""
        return self.root.joinpath(*parts)

    def work(self, *parts: str) -> Path:
        """A file of the build's own, of no interest to a reader."""
        return self.state.joinpath(*parts)

    def scratch(self, *parts: str) -> Path:
        """A file of the build's own that is gone when its partition is done; on this machine, wherever the run is."""
        if self._remote is None:
            return self.work(*parts)
        run = hashlib.sha256(self._remote.url.encode()).hexdigest()[:16]
        return cache_folder(self._remote.settings).joinpath("runs", run, *parts)

    @contextmanager
    def page_images(self) -> Iterator[Path]:
        """An empty folder of this machine for images on their way to a server, gone afterwards. Needs `lock`, which
        removes what a killed build left there.

        Raises:
            EngineError: it cannot be made.
        """
        folder = self.scratch(PAGE_IMAGES)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise EngineError(disk_message(folder, e)) from None
        try:
            yield folder
        finally:
            rmtree(folder, ignore_errors=True)

    def prepare(self) -> None:
        """Create the folders and clear what a killed run left half-written.

        Raises:
            ConfigError: the directory cannot be written to, or holds something that is not a run.
        """
        if self._remote is not None and self._remote.scheme in ("http", "https"):
            raise ConfigError(f"--out {self.root} cannot be written to; name a folder, s3://... or gs://...")
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"--out {self.root} is a file; name a folder")
        if self.root.is_dir() and not self.state.is_dir() and any(self.root.iterdir()):
            raise ConfigError(f"--out {self.root} is not empty and not a run of `corpus build`; name another folder")
        try:
            self.state.mkdir(parents=True, exist_ok=True)
            probe = self.state / ".write-test"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as e:
            if e.errno in (28, 122):
                raise EngineError(disk_message(self.root, e)) from None
            raise ConfigError(f"--out {self.root} cannot be written to: {e.strerror}; name another folder") from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second build out of the directory.

        Raises:
            ConfigError: another build is running here.
        """
        if self._remote is not None:
            with lease(self._remote / ".state" / "lock") as self._lease:
                self._remote.abort_uploads()  # of a build that was killed
                rmtree(self.scratch(PAGE_IMAGES), ignore_errors=True)
                try:
                    yield
                finally:
                    with suppress(RemoteError):  # the next build asks again
                        self._remote.abort_uploads()  # of workers that were
            return
        with open(self.state / "lock", "w") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"another build is running in {self.root}; wait for it or name another --out"
                ) from None
            remove_leftovers(self.root)  # of a build that was killed
            rmtree(self.scratch(PAGE_IMAGES), ignore_errors=True)
            try:
                yield
            finally:
                remove_leftovers(self.root)  # of workers that were

    def num_partitions(self, num_documents: int) -> int:
        """The number of partitions, fixed by the first build: a power of two, at least 16.

        Raises:
            ConfigError: the run was made by another version, or begun for far fewer documents.
        """
        file = self.work("run-format.json")
        if file.is_file():
            recorded = json.loads(file.read_text(encoding="utf-8"))
            if recorded["format"] != FORMAT:
                raise ConfigError(
                    f"{self.root} was made by another version (format {recorded['format']}, this one writes {FORMAT}); "
                    "build into a new folder"
                )
            count = int(recorded["num_partitions"])
            if num_documents > MAX_GROWTH * DOCUMENTS_PER_PARTITION * count:
                raise ConfigError(
                    f"{self.root} was begun for about {DOCUMENTS_PER_PARTITION * count} documents and now has "
                    f"{num_documents}; its partitions would not fit into memory: build into a new folder"
                )
            return count
        count = MIN_PARTITIONS
        while count * DOCUMENTS_PER_PARTITION < num_documents:
            count *= 2
        write_json(file, {"format": FORMAT, "num_partitions": count})
        return count

    def marker(self, stage: str, partition: str) -> Marker | None:
        """The marker of a partition, or None where it is not done or its files are gone."""
        if (stage, partition) in self._sound:
            return self._sound[stage, partition]
        try:
            marker = Marker(**json.loads(self._marker_file(stage, partition).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        if not all(self.path(name).is_file() for name in marker.files):
            return None
        if self._lease is not None:  # nobody else writes here, and asking again costs a request a file
            self._sound[stage, partition] = marker
        return marker

    def markers(self, stage: str) -> dict[str, Marker]:
        """Every finished partition of a stage, by name, in order."""
        names = sorted(p.stem.removeprefix(f"{stage}-") for p in self.state.glob(f"markers/{stage}-*.json"))
        found = {name: self.marker(stage, name) for name in names}
        return {name: marker for name, marker in found.items() if marker}

    def is_done(self, stage: str, partition: str, fingerprint: str) -> bool:
        """True where the partition was made from exactly this."""
        marker = self.marker(stage, partition)
        return marker is not None and marker.fingerprint == fingerprint

    def finish(
        self,
        stage: str,
        partition: str,
        fingerprint: str,
        files: Iterable[Path],
        facts: dict[str, Any] | None = None,
        known: Mapping[str, str] | None = None,
    ) -> Marker:
        """Mark a partition as done; its files must be in place. `known`: digests of files already hashed."""
        if self._lease is not None:
            self._lease.check()
        names = {str(f.relative_to(self.root)): f for f in files}
        digests = {name: (known or {}).get(name) or file_sha256(f) for name, f in names.items()}
        marker = Marker(fingerprint=fingerprint, files=digests, facts=facts or {})
        value = {"fingerprint": marker.fingerprint, "files": marker.files, "facts": marker.facts}
        write_json(self._marker_file(stage, partition), value)
        return marker

    def reopen(self, stage: str, partition: str) -> None:
        """Take a marker away before its files change."""
        self._sound.pop((stage, partition), None)
        self._marker_file(stage, partition).unlink(missing_ok=True)

    def drop(self, stage: str, keep: Iterable[str]) -> None:
        """Remove what a stage left of partitions that no document falls into any more, finished or not."""
        kept = set(keep)
        self._sound = {key: marker for key, marker in self._sound.items() if key[0] != stage or key[1] in kept}
        for pattern in (f".state/markers/{stage}-*.json", *OWNED[stage]):
            for file in self.root.glob(pattern):
                name = re.search(PARTITION, file.name)
                if name and name.group() not in kept:
                    file.unlink(missing_ok=True)

    def _marker_file(self, stage: str, partition: str) -> Path:
        return self.work("markers", f"{stage}-{partition}.json")


def partition_of(doc_id: str, num_partitions: int) -> str:
    """The partition that a document falls into, by the leading bits of its id."""
    return f"p{int(doc_id[:8], 16) * num_partitions >> 32:04d}"


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
