"""Inputs (files, folders, globs, manifests) to documents: hashed, counted, deduplicated.

Every input ends as a `Document` or as a rejection with its reason; none is dropped in silence. Hash and page count
of a file that did not change since the last run (size and modification time) are taken from a cache, so that a
second run over a large folder opens no PDF.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import posixpath
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from corpus.config import DEFAULT_STORAGE, IngestSettings, StorageSettings
from corpus.errors import ConfigError, DocumentError
from corpus.fetch import FETCH_FAILED, local_copy
from corpus.language import primary
from corpus.records import Document
from corpus.storage import RemoteError, RemotePath, checked_url, has_magic, is_url, local_name, remote_path
from corpus.store import read_table

MANIFEST_SUFFIXES = (".jsonl", ".parquet")
MANIFEST_FIELDS = ("license", "title", "language", "source")
DOC_ID_LENGTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One input as the user named it, with what a manifest says of it."""

    uri: str  # absolute path, or URL
    title: str = ""
    language: str = ""
    license: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What opening a file showed; also the cache's record. `reason` is '' for a sound PDF."""

    uri: str
    num_bytes: int
    mtime_ns: int
    sha256: str = ""
    num_pages: int = 0
    version: str = ""  # of a remote file: its ETag or time; '' where the server does not tell
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """One file to open; `seen` is what it looks like from outside."""

    seen: Probe
    password: str | None
    storage: StorageSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """One input's end at this stage: accepted when `reason` is ''."""

    source: Source
    probe: Probe
    reason: str = ""
    detail: str = ""

    @property
    def doc_id(self) -> str:
        return self.probe.sha256[:DOC_ID_LENGTH]

    @property
    def document(self) -> Document:
        s, p = self.source, self.probe
        return Document(
            doc_id=self.doc_id,
            sha256=p.sha256,
            uri=s.uri,
            num_bytes=p.num_bytes,
            num_pages=p.num_pages,
            title=s.title,
            language=s.language,
            license=s.license,
            source=s.source,
            language_source="manifest" if s.language else "",
        )


def expand_inputs(
    inputs: Sequence[str], limit: int | None = None, storage: StorageSettings = DEFAULT_STORAGE
) -> list[Source]:
    """Every document that the inputs name, once each, in a fixed order.

    A folder gives the `.pdf` files below it, a `.jsonl` or `.parquet` file is a manifest, anything else is a file
    or a glob; a file that is named directly is taken whatever its suffix. All of them may be URLs: a web address is
    a folder when it ends with a slash, and then its page's links to `.pdf` files are taken.

    Raises:
        ConfigError: an input that does not exist, matches nothing, or is a broken manifest.
        EngineError: a bucket, folder or manifest behind a URL that cannot be read.
    """
    found: dict[str, Source] = {}
    for text in inputs:
        for source in _expand(text, storage):
            if source.uri not in found or found[source.uri] == Source(uri=source.uri):
                found[source.uri] = source  # what a manifest says of a document wins over its bare path
    if not found:
        raise ConfigError(f"no PDF found in {', '.join(map(repr, inputs))}; give PDF files, folders or a manifest")
    ordered = [found[uri] for uri in sorted(found)]
    return ordered[:limit]


def _expand(text: str, storage: StorageSettings) -> Iterator[Source]:
    if not text:
        raise ConfigError("an input is empty; is a shell variable unset?")
    if text.lower().startswith("file://"):
        text = local_name(text)
    elif is_url(text):
        yield from _expand_url(RemotePath(text, storage))
        return
    text = os.path.expanduser(text)  # a quoted glob keeps its ~ from the shell
    path = Path(text)
    if path.is_dir():
        yield from (Source(uri=uri) for uri in _pdfs_below(path))
    elif path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
        yield from _read_manifest(path, storage)
    elif os.path.lexists(path):
        yield Source(uri=os.path.abspath(path))
    else:
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            what = "matches no file" if glob.has_magic(text) else "does not exist"
            raise ConfigError(f"input {text!r} {what}")
        for match in matches:
            yield from (
                _expand(glob.escape(match), storage) if os.path.isdir(match) else [Source(uri=os.path.abspath(match))]
            )


def _expand_url(remote: RemotePath) -> Iterator[Source]:
    """What a URL names. A single document is not asked for here: where it cannot be had, that is its ledger row."""
    web = remote.scheme in ("http", "https")
    name = urllib.parse.urlsplit(remote.url).path if web else remote.url
    try:
        if has_magic(remote.url) and (web or not remote.is_file()):
            matches = remote.matches()
            if not matches:
                raise ConfigError(f"input {remote.url!r} matches no file")
            for url, is_folder in matches:
                yield from map(_source, RemotePath(url, remote.settings).find(".pdf") if is_folder else [url])
        elif name.lower().endswith(MANIFEST_SUFFIXES):
            yield from _read_manifest(cast(Path, remote), remote.settings)
        elif name.lower().endswith(".pdf") or (web and not name.endswith("/")) or (not web and remote.is_file()):
            yield Source(uri=remote.url)
        else:
            found = remote.find(".pdf")
            if not found and not remote.is_dir():
                raise FileNotFoundError
            yield from map(_source, found)
    except FileNotFoundError:
        raise ConfigError(f"input {remote.url!r} does not exist") from None


def _source(uri: str) -> Source:
    return Source(uri=uri)


def _pdfs_below(folder: Path) -> list[str]:
    def refuse(error: OSError) -> None:
        raise ConfigError(f"cannot read folder {error.filename}: {error.strerror}")

    return sorted(
        os.path.abspath(os.path.join(parent, name))
        for parent, _, names in _walk(folder, refuse)
        for name in names
        if name.lower().endswith(".pdf")
    )


def _walk(folder: Path, refuse: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` through linked folders too, each folder once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(parent) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(parent))
        yield parent, folders, names


def _read_manifest(path: Path, storage: StorageSettings) -> Iterator[Source]:
    """Rows of a manifest; a relative `uri` is relative to the manifest's folder."""
    for number, row in enumerate(_manifest_rows(path), start=1):
        uri = row.get("uri") if isinstance(row, dict) else None
        if not isinstance(uri, str) or not uri:
            raise ConfigError(f"manifest {path}, row {number}: no 'uri'; every row needs a path to a PDF")
        extra = {name: str(row[name]) for name in MANIFEST_FIELDS if row.get(name) is not None}
        try:
            yield Source(uri=_resolved(uri, path), **extra)
        except ConfigError as e:
            raise ConfigError(f"manifest {path}, row {number}: {e}") from None


def _resolved(uri: str, manifest: Path) -> str:
    """The URL or absolute path that a manifest's `uri` means; a manifest behind a URL names no local file."""
    if is_url(uri) and not uri.lower().startswith("file://"):
        return checked_url(uri)
    remote = remote_path(manifest)
    if remote is None:
        return os.path.abspath(manifest.parent / (local_name(uri) if is_url(uri) else uri))
    if is_url(uri):
        raise ConfigError(f"{uri!r} is a local file, but the manifest is not; name it by its URL")
    if remote.scheme in ("http", "https"):
        return checked_url(urllib.parse.urljoin(remote.url, uri))
    bucket, _, key = remote.url.partition("://")[2].partition("/")
    return f"{remote.scheme}://{bucket}{posixpath.normpath(posixpath.join('/', posixpath.dirname(key), uri))}"


def _manifest_rows(path: Path) -> Iterator[Any]:
    try:
        if path.suffix.lower() == ".parquet":
            yield from read_table(path).to_pylist()
            return
        with path.open("rb") as f:
            for number, line in enumerate(f, start=1):
                if line.strip():
                    try:
                        yield json.loads(line.decode("utf-8"))
                    except UnicodeDecodeError:
                        raise
                    except (ValueError, RecursionError) as e:
                        raise ConfigError(f"manifest {path}, line {number} is not JSON: {e}") from None
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as e:
        raise ConfigError(f"cannot read manifest {path}: {str(e).splitlines()[0]}") from None


def probe_file(job: ProbeJob, progress: Callable[[int], None]) -> Probe:
    """Hash and page count of one file; runs in a worker, because opening a hostile PDF may crash."""
    from corpus.render import count_pages

    probe = job.seen
    try:
        with local_copy(probe.uri, None, job.storage) as copy:
            probe = replace(probe, sha256=copy.sha256, num_bytes=copy.path.stat().st_size)
            return replace(probe, num_pages=count_pages(copy.path, job.password))
    except DocumentError as e:
        return replace(probe, reason=e.reason, detail=e.detail)


def stat_file(uri: str, storage: StorageSettings = DEFAULT_STORAGE) -> Probe:
    """Size and modification time or version of an input, or why it cannot be read."""
    if is_url(uri):
        return _stat_url(RemotePath(uri, storage))
    try:
        stat = os.stat(uri)
    except (OSError, ValueError) as e:  # ValueError: a name with a NUL character
        why = e.strerror if isinstance(e, OSError) else str(e)
        return Probe(uri=uri, num_bytes=0, mtime_ns=0, reason="unreadable", detail=f"{uri}: {why}")
    if not os.path.isfile(uri):
        return Probe(uri=uri, num_bytes=0, mtime_ns=0, reason="not-a-file", detail=f"{uri} is not a regular file")
    return Probe(uri=uri, num_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)


def _stat_url(remote: RemotePath) -> Probe:
    failed = Probe(uri=remote.url, num_bytes=0, mtime_ns=0, reason=FETCH_FAILED)
    try:
        stat = remote.remote_stat()
    except FileNotFoundError:
        return replace(failed, detail=f"{remote.url}: not found")
    except RemoteError as e:
        return replace(failed, detail=f"{remote.url}: {e.why}")
    return Probe(uri=remote.url, num_bytes=stat.num_bytes or 0, mtime_ns=0, version=stat.version)


def judge(sources: Sequence[Source], probes: dict[str, Probe], settings: IngestSettings) -> list[Ingested]:
    """Accept or reject every source, in order; of files with the same bytes, the first is kept."""
    ends: list[Ingested] = []
    first_with: dict[str, str] = {}
    for source in sources:
        probe = probes[source.uri]
        reason, detail = probe.reason, probe.detail
        if not reason:
            reason, detail = _unwanted(source, probe, settings)
        if not reason and probe.sha256 in first_with:
            reason, detail = "duplicate", f"same bytes as {first_with[probe.sha256]}"
        if not reason:
            first_with[probe.sha256] = source.uri
        ends.append(Ingested(source=source, probe=probe, reason=reason, detail=detail))
    return ends


def _unwanted(source: Source, probe: Probe, settings: IngestSettings) -> tuple[str, str]:
    """Reason and detail of the first filter that a sound PDF does not pass, or two empty texts."""
    pages, size = probe.num_pages, probe.num_bytes
    if pages < settings.min_pages:
        return "too-few-pages", f"{pages} pages, ingest.min_pages = {settings.min_pages}"
    if settings.max_pages is not None and pages > settings.max_pages:
        return "too-many-pages", f"{pages} pages, ingest.max_pages = {settings.max_pages}"
    if size < settings.min_bytes:
        return "too-small", f"{size} bytes, ingest.min_bytes = {settings.min_bytes}"
    if settings.max_bytes is not None and size > settings.max_bytes:
        return "too-large", f"{size} bytes, ingest.max_bytes = {settings.max_bytes}"
    named = source.license.casefold()
    if settings.licenses and not any(fnmatch.fnmatchcase(named, taken.casefold()) for taken in settings.licenses):
        stated = repr(source.license) if named else "no licence stated"
        return "license", f"{stated}, ingest.licenses = {list(settings.licenses)}"
    if source.language:
        return unwanted_language(source.language, settings)
    return "", ""


def unwanted_language(language: str, settings: IngestSettings) -> tuple[str, str]:
    """Reason and detail where a document's language ('' = not known) is filtered out, else two empty texts."""
    if not settings.languages or primary(language) in map(primary, settings.languages):
        return "", ""
    return "language", f"{repr(language) if language else 'unknown'}, ingest.languages = {list(settings.languages)}"


def reusable(cached: Probe, now: Probe) -> bool:
    """True where a cached probe still tells the truth; failures are always probed again."""
    if cached.reason or now.reason:
        return False
    if is_url(now.uri):
        return bool(now.version) and cached.version == now.version
    return (cached.num_bytes, cached.mtime_ns) == (now.num_bytes, now.mtime_ns)
