"""A document's bytes as a local file, wherever it lies: the one function that opens inputs, and the cache behind it.

PDFs are the image store and are never kept twice: a local document is read where it is; a remote one passes through a
bounded folder of copies, named by their SHA-256, from which the least recently used are deleted. The SHA-256 is
checked at each read (1 GB/s, against 20 pages/s of parsing).

Many processes share the folder without a server: a copy in use is locked (`flock`, which ends with its process,
however that ends) and a locked one is never deleted; a download is written under another name and renamed. A kill
leaves at most an unlocked partial file, which the next download removes. Copies in use are never deleted, so the
folder exceeds its limit where what the workers hold at one time does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corpus.config import StorageSettings
from corpus.errors import DocumentError, EngineError
from corpus.storage import LONGEST_PAUSE_S, RemoteError, RemotePath, cache_folder, is_url
from corpus.store import disk_message, file_sha256

FETCH_FAILED = "fetch-failed"  # the reason of a document that could not be had this time
LOCAL_RATE, REMOTE_RATE = 50e6, 1e6  # bytes a second that a slow disk and a slow server bring
NUM_LOCKS = 64  # downloads of one document wait for each other; of two documents only by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCopy:
    """Where a document's bytes stand for now."""

    path: Path
    sha256: str


@contextmanager
def local_copy(uri: str, sha256: str | None, settings: StorageSettings) -> Iterator[LocalCopy]:
    """A local file with the bytes of a document, for as long as the context lasts; `uri` is a path or a URL.

    Args:
        sha256: what the bytes must be; None accepts any (ingest does not know them yet).

    Raises:
        DocumentError: `source-changed`, `unreadable` (local), `fetch-failed` (remote). What is raised within the
            context names the document, not the copy.
    """
    if not is_url(uri):
        try:
            found = file_sha256(Path(uri))
        except OSError as e:
            raise DocumentError("unreadable", f"{uri}: {e.strerror}") from None
        if sha256 not in (None, found):
            raise _changed(uri)
        yield LocalCopy(path=Path(uri), sha256=found)
        return
    cache = CopyCache(cache_folder(settings), int(settings.cache_gb * 1e9))
    with cache.hold(RemotePath(uri, settings), sha256) as copy:
        try:
            yield copy
        except DocumentError as e:
            raise DocumentError(e.reason, e.detail.replace(str(copy.path), uri)) from None


def transfer_s(uri: str, num_bytes: int, settings: StorageSettings) -> float:
    """Seconds that it may take to read a document before anything is done with it."""
    if not is_url(uri):
        return num_bytes / LOCAL_RATE
    return num_bytes / REMOTE_RATE + settings.attempts * (settings.timeout_s + LONGEST_PAUSE_S)


def _changed(uri: str) -> DocumentError:
    return DocumentError("source-changed", f"{uri} changed during the build; run the command again")


class CopyCache:
    """Copies of remote files in a local folder of bounded size."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.copies, self.partial, self.locks = folder / "copies", folder / "partial", folder / "locks"
        self.max_bytes = max_bytes

    @contextmanager
    def hold(self, remote: RemotePath, sha256: str | None) -> Iterator[LocalCopy]:
        """The copy of a remote file, fetched if need be, which nobody deletes while the context lasts.

        Raises:
            DocumentError: it cannot be had, or has other bytes.
            EngineError: the local disk refuses.
        """
        try:
            for folder in (self.copies, self.partial, self.locks):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd, digest = self._held(remote, sha256)
        except RemoteError as e:
            raise DocumentError(FETCH_FAILED, f"{remote}: {e.why}") from None
        except FileNotFoundError as e:
            if e.filename != remote.url:
                raise EngineError(disk_message(self.copies, e)) from None
            raise DocumentError(FETCH_FAILED, f"{remote}: not found") from None
        except OSError as e:
            raise EngineError(disk_message(self.copies, e)) from None
        try:
            yield LocalCopy(path=self.copies / digest, sha256=digest)
        finally:
            os.close(fd)

    def _held(self, remote: RemotePath, sha256: str | None) -> tuple[int, str]:
        """A locked descriptor of the copy, and its SHA-256."""
        fd = self._sound_copy(sha256) if sha256 else None
        if fd is not None and sha256:
            return fd, sha256
        with self._lock(hashlib.sha256((sha256 or remote.url).encode()).digest()[0] % NUM_LOCKS):
            fd = self._sound_copy(sha256) if sha256 else None  # another worker may have fetched it meanwhile
            if fd is not None and sha256:
                return fd, sha256
            return self._fetch(remote, sha256)

    def _sound_copy(self, sha256: str) -> int | None:
        """A locked descriptor of the copy with these bytes, None where there is none; a damaged one is deleted."""
        path = self.copies / sha256
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink and file_sha256(path) == sha256:
                os.utime(fd)  # used now
                return fd
        except FileNotFoundError:  # deleted before it was locked
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink:
            path.unlink(missing_ok=True)
        os.close(fd)
        return None

    def _fetch(self, remote: RemotePath, sha256: str | None) -> tuple[int, str]:
        fd, partial = self._begin(remote.remote_stat().num_bytes or 0)
        try:
            remote.download(partial)
            digest = file_sha256(partial)
            if sha256 not in (None, digest):
                raise _changed(remote.url)
            with self._lock("room"):  # nobody deletes it while its lock changes
                os.replace(partial, self.copies / digest)
                fcntl.flock(fd, fcntl.LOCK_SH)
        except BaseException:
            os.close(fd)
            partial.unlink(missing_ok=True)
            raise
        return fd, digest

    def _begin(self, num_bytes: int) -> tuple[int, Path]:
        """A new partial file, locked, after room was made for it."""
        with self._lock("room"):
            self._delete_beyond(num_bytes)
            fd, name = tempfile.mkstemp(dir=self.partial)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.truncate(fd, num_bytes)  # others count it whole from now on
        return fd, Path(name)

    def _delete_beyond(self, num_bytes: int) -> None:
        """Delete what killed downloads left, then the copies used least recently, until `num_bytes` more fit."""
        for leftover in self.partial.iterdir():
            _delete_if_unused(leftover)
        files = [(e.stat(), Path(e.path)) for folder in (self.copies, self.partial) for e in os.scandir(folder)]
        total = sum(stat.st_size for stat, _ in files) + num_bytes
        for stat, path in sorted((f for f in files if f[1].parent == self.copies), key=lambda f: f[0].st_mtime_ns):
            if total <= self.max_bytes:
                return
            if _delete_if_unused(path):
                total -= stat.st_size

    @contextmanager
    def _lock(self, name: str | int) -> Iterator[None]:
        with open(self.locks / str(name), "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield


def _delete_if_unused(path: Path) -> bool:
    """Delete a file that no process holds a lock on."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
