"""Files behind a URL: one place that asks, waits, tries again, and says what failed.

`RemotePath` is the part of `pathlib.Path` that this project uses, for `s3://`, `gs://`, `https://` and `http://`, so
that code on paths serves both; a local path stays a `pathlib.Path` and loads nothing of this. Every request goes
through `RemotePath._ask`: what may pass (5xx, 429, a timeout, a cut connection, a short answer) is tried again after a
pause that doubles, drawn at random so that workers do not return together. The retries of the libraries below are
switched off, because theirs differ by library and would multiply with ours.

`universal_pathlib` was the alternative; it has no retries, and would have to be wrapped method by method.

Credentials are those that the libraries find for themselves (environment, ~/.aws, ~/.netrc, the machine's role). A URL
that carries one is refused, and no message repeats a library's text with a URL's query in it.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import importlib.util
import io
import os
import posixpath
import random
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import corpus
from corpus.config import StorageSettings
from corpus.errors import ConfigError, EngineError

T = TypeVar("T")

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}  # scheme -> what fsspec needs for it
EXTRAS = {"s3": "s3", "gs": "gcs", "https": "http", "http": "http"}
SECRET_PARAMETERS = re.compile(
    r"x-amz-(signature|credential|security-token)|x-goog-(signature|credential)|signature|awsaccesskeyid|googleaccessid"
    r"|sig|token|auth|authorization|access[-_]?(token|key)|api[-_]?key|auth[-_]?token|key|secret|passw(or)?d|pwd",
    re.IGNORECASE,
)
PASSING_STATUS = (408, 425, 429)  # and every 5xx
PASSING_CODES = ("RequestTimeout", "IncompleteBody", "BadDigest", "SlowDown", "XAmzContentSHA256Mismatch")  # of S3
CUT = ("ClientPayloadError", "ContentLengthError", "TransferEncodingError", "IncompleteRead", "IncompleteReadError")
DENIED = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
LONGEST_PAUSE_S = 30.0
CONNECT_S = 15.0
BLOCK_BYTES = 16 * 2**20  # of one ranged request; what a cut connection costs
PART_BYTES = 50 * 2**20  # of a large upload, three in memory


class RemoteError(EngineError):
    """A request that failed for good; `why` is the reason alone."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str]]:
        return RemoteError, (str(self), self.why)


class _ShortAnswer(OSError):
    """Fewer bytes than were asked for or announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStat:
    """What a server says of a file without sending it. `version` changes with the content; '' = it does not tell."""

    num_bytes: int | None
    version: str


def is_url(text: str) -> bool:
    """True for `scheme://...`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def remote_path(path: object) -> RemotePath | None:
    """The path where it is a remote one."""
    return path if isinstance(path, RemotePath) else None


def path_of(place: str | Path, settings: StorageSettings | None = None) -> Path:
    """The path of a file or folder given as text: a `pathlib.Path`, or for a URL a `RemotePath` in its stead.

    Raises:
        ConfigError: a URL of an unknown scheme, with a credential in it, or whose package is not installed.
    """
    remote = remote_path(place)
    if remote is not None:
        return cast(Path, RemotePath(remote.url, settings or remote.settings))
    text = os.fspath(place)
    if not is_url(text):
        return Path(text)
    if text.lower().startswith("file://"):
        return Path(local_name(text))
    return cast(Path, RemotePath(text, settings or StorageSettings()))


def cache_folder(settings: StorageSettings) -> Path:
    """The local folder for copies of remote documents, and for files on their way out."""
    if settings.cache_dir:
        return Path(settings.cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "longdoc"


def local_name(url: str) -> str:
    """The local path of a `file://` URL."""
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ConfigError(f"{url!r} names a file of another machine; write file:///path, or the path alone")
    return urllib.request.url2pathname(parts.path)


def checked_url(url: str) -> str:
    """The URL with its scheme in lower case.

    Raises:
        ConfigError: unknown scheme, no host or bucket, a credential within the URL, a missing package.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    host, _, path = rest.partition("/")
    shown = _without_secrets(f"{scheme}://{rest}")
    bare_host = re.fullmatch(r"[^:@]*|[^@]*(:\d+|\])" if scheme in ("http", "https") else r"[^:@]*", host)
    if scheme in PACKAGES and not bare_host:  # a key may hold a slash, so that its '@' follows only later
        raise ConfigError(f"a {scheme}:// URL carries a user name or key; remove it and give it {_way_out(scheme)}")
    if scheme not in PACKAGES:
        raise ConfigError(f"{shown!r}: no such kind of storage; known: {', '.join(PACKAGES)}, file, or a local path")
    if not host:
        raise ConfigError(f"{shown!r} names no {'bucket' if scheme in ('s3', 'gs') else 'host'}")
    query = urllib.parse.urlsplit(f"{scheme}://{rest}").query if scheme in ("http", "https") else ""
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if value and SECRET_PARAMETERS.fullmatch(name):
            raise ConfigError(
                f"{shown!r} carries a credential ({name}); give the file's own URL, and it {_way_out('')}"
            )
    if importlib.util.find_spec("fsspec") is None or importlib.util.find_spec(PACKAGES[scheme]) is None:
        raise ConfigError(
            f"{shown!r} needs the package {PACKAGES[scheme]}: pip install 'longdoc[{EXTRAS[scheme]}]' "
            f"(or: pip install fsspec {PACKAGES[scheme]})"
        )
    return f"{scheme}://{host}/{path}" if path or scheme in ("http", "https") else f"{scheme}://{host}"


def _way_out(scheme: str) -> str:
    return "in ~/.netrc" if scheme in ("http", "https") else "in the environment (AWS_ACCESS_KEY_ID, ...) or in ~/.aws"


def _without_secrets(text: str) -> str:
    """A text without the user names and queries of the URLs in it."""
    return re.sub(r"\?[^\s'\"]*", "", re.sub(r"://[^/\s]*@", "://", text))


def has_magic(url: str) -> bool:
    """True for a pattern. A '?' begins the query of a web address."""
    return any(c in url for c in ("*[" if url.startswith("http") else "*?["))


def diagnose(error: BaseException) -> tuple[str, str]:
    """What kind of failure this is, and why in a few words.

    Kinds: missing, exists, denied, disk (the local one), refused (asking again is no use), passing, and '' for a bug.
    """
    chain = list(_causes(error))
    status = next((s for e in chain if (s := _status(e))), 0)
    names = {type(e).__name__ for e in chain}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return "disk", os.strerror(error.errno)
    if names & set(CUT):
        return "passing", "the connection was cut"
    if any(_code(e) in PASSING_CODES for e in chain):
        return "passing", f"HTTP {status}"
    if status == 412 or isinstance(error, FileExistsError):
        return "exists", "it exists already"
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not status and len(chain) == 1):
        return "missing", f"not found (HTTP {status})" if status else "not found"
    if names & set(DENIED):
        return "denied", f"no usable credentials ({_first_line(chain[-1])}); a public bucket needs FSSPEC_S3_ANON=true"
    if status in (401, 403, 407) or isinstance(error, PermissionError):
        return "denied", f"access denied (HTTP {status})" if status else f"access denied ({_first_line(error)})"
    if status >= 500 or status in PASSING_STATUS:
        return "passing", f"HTTP {status}"
    if 400 <= status < 500:
        return "refused", f"HTTP {status}: {_first_line(error)}"
    if any(isinstance(e, TimeoutError) for e in chain) or any("Timeout" in n for n in names):
        return "passing", "no answer in time"
    if isinstance(error, TypeError | AttributeError | LookupError | AssertionError | NotImplementedError | MemoryError):
        return "", ""
    return "passing", _first_line(chain[-1])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    """The HTTP status in an error of aiohttp, botocore or gcsfs, else 0."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    try:
        return int(found or 0)
    except (TypeError, ValueError):
        return 0


def _code(error: BaseException) -> str:
    """The code that S3 gives an error, else ''."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _first_line(error: BaseException) -> str:
    text = _without_secrets((str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {text}"[:200].rstrip(": ")


def pause_s(attempt: int, first_s: float, draw: float) -> float:
    """Seconds to wait after failed attempt 1, 2, ...; `draw` in [0, 1) takes up to half of it away."""
    return float(min(LONGEST_PAUSE_S, first_s * 2 ** (attempt - 1)) * (1 - draw / 2))


class RemotePath:
    """A file or folder behind a URL, with the methods of `pathlib.Path` that this project uses. Picklable.

    Folders are what the names of files imply: making one does nothing. Reads raise `FileNotFoundError` for what is
    not there and `RemoteError` for everything else that failed.
    """

    def __init__(self, url: str, settings: StorageSettings) -> None:
        self.url = checked_url(url)
        self.settings = settings
        self.scheme = self.url.partition("://")[0]
        if self.scheme not in ("http", "https"):
            self.url = self.url.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __lt__(self, other: RemotePath) -> bool:
        return self.url < other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, name: str) -> RemotePath:
        return self.joinpath(name)

    def joinpath(self, *names: str) -> RemotePath:
        return self._at("/".join((self.url.rstrip("/"), *names)))

    @property
    def name(self) -> str:
        return self.url.partition("://")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def parent(self) -> RemotePath:
        return self._at(self.url.rpartition("/")[0] if "/" in self.url.partition("://")[2] else self.url)

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> RemotePath:
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: RemotePath) -> str:
        start = f"{other.url.rstrip('/')}/"
        if not self.url.startswith(start):
            raise ValueError(f"{self} is not below {other}")
        return self.url[len(start) :]

    def remote_stat(self) -> RemoteStat:
        """Size and version of a file.

        Raises:
            FileNotFoundError: there is no such file.
            RemoteError: it cannot be asked.
        """
        info = self._ask("reach", lambda fs: fs.info(self.url))
        if info["type"] == "directory":
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self.url)
        size = None if info.get("size") is None else int(info["size"])
        etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        changed = info.get("Last-Modified") or info.get("LastModified") or info.get("mtime")
        return RemoteStat(num_bytes=size, version=str(etag) if etag else f"{changed} {size}" if changed else "")

    def stat(self) -> os.stat_result:
        """The size alone."""
        return os.stat_result((0, 0, 0, 0, 0, 0, self.remote_stat().num_bytes or 0, 0, 0, 0))

    def is_file(self) -> bool:
        try:
            self.remote_stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        try:
            return bool(self._ask("reach", lambda fs: fs.info(f"{self.url}/"))["type"] == "directory")
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is where a file is."""

    def iterdir(self) -> Iterator[RemotePath]:
        """What stands directly in this folder, files and folders, by name; nothing where there is no such folder."""
        try:
            found = self._ask("list", lambda fs: fs.ls(self.url, detail=False))
        except FileNotFoundError:
            return
        for path in sorted(self._at(name) for name in found):
            if path != self:
                yield path

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Files by a pattern in its last part only, such as `plan/plan-*.json`, by name."""
        *folders, last = pattern.split("/")
        folder = self.joinpath(*folders) if folders else self
        return (path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, last))

    def find(self, suffix: str) -> list[str]:
        """URLs of every file below this folder whose name ends like that, in any case."""
        if self.scheme in ("http", "https"):  # the links of an index page; following them may lead anywhere
            found = self._ask("list", lambda fs: fs.ls(self.url, detail=False))
            return sorted(url for url in found if urllib.parse.urlsplit(url).path.lower().endswith(suffix))
        found = self._ask("list", lambda fs: fs.find(self.url))
        return sorted(self._at(name).url for name in found if name.lower().endswith(suffix))

    def matches(self) -> list[tuple[str, bool]]:
        """URLs that match this pattern, and whether each is a folder."""
        found = self._ask("list", lambda fs: fs.glob(self.url, detail=True))
        return sorted((self._at(name).url, info["type"] == "directory") for name, info in found.items())

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._ask("delete", lambda fs: fs.rm_file(self.url))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, by one request."""

        def read(fs: Any) -> bytes:
            data: bytes = fs.cat_file(self.url, start=offset, end=offset + size)
            if len(data) > size:  # a web server that sends the whole file whatever it is asked for
                data = data[offset : offset + size]
            if len(data) != size:
                raise _ShortAnswer(f"{len(data)} of {size} bytes came")
            return data

        return self._ask("read", read) if size else b""

    def read_bytes(self) -> bytes:
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """The content, a few megabytes at a time."""
        size = self.remote_stat().num_bytes
        if size is None:
            yield self._ask("read", lambda fs: fs.cat_file(self.url))
            return
        for offset in range(0, size, BLOCK_BYTES):
            yield self.read_range(offset, min(BLOCK_BYTES, size - offset))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The file for reading, by ranged requests."""
        assert mode == "rb", "written by `upload` alone, so that nothing half-written is ever seen"
        return cast(IO[bytes], io.BufferedReader(_Reader(self), buffer_size=BLOCK_BYTES))

    def write_bytes(self, data: bytes, create: bool = False) -> None:
        """One atomic write of a small file.

        Raises:
            FileExistsError: `create` was asked for and there is such a file.
        """
        mode = "create" if create else "overwrite"
        self._ask("write", lambda fs: fs.pipe_file(self.url, data, mode=mode))

    def upload(self, file: str) -> None:
        """Put a local file here: whole, or not at all; an unfinished upload is not visible.

        Raises:
            EngineError: the store refuses it, or holds another size afterwards.
        """
        size = os.path.getsize(file)
        slow = {"max_concurrency": 2} if self.scheme == "s3" else {}

        def put(fs: Any) -> None:
            fs.put_file(file, self.url, chunksize=PART_BYTES, **slow)
            stored = fs.info(self.url)["size"]
            if stored != size:
                raise _ShortAnswer(f"{stored} of {size} bytes were stored")

        self._ask("write", put)

    def download(self, file: Path) -> None:
        """Write the content into a local file that exists.

        Raises:
            FileNotFoundError, RemoteError: it cannot be had; `file` then holds part of it.
        """
        for _ in range(self.settings.attempts):
            stat = self.remote_stat()
            if self.scheme in ("http", "https"):  # not every web server answers a request for a range
                self._ask("read", functools.partial(self._get, file, stat.num_bytes))
                return
            with open(file, "wb") as out:
                for offset in range(0, stat.num_bytes or 0, BLOCK_BYTES):
                    out.write(self.read_range(offset, min(BLOCK_BYTES, (stat.num_bytes or 0) - offset)))
            if (stat.num_bytes or 0) <= BLOCK_BYTES or self.remote_stat() == stat:
                return
        raise RemoteError(f"cannot read {self}: it changes all the time", "it changes all the time")

    def _get(self, file: Path, size: int | None, fs: Any) -> None:
        fs.get_file(self.url, str(file))
        received = os.path.getsize(file)
        if size is not None and received != size:
            raise _ShortAnswer(f"{received} of {size} bytes came")

    def abort_uploads(self) -> None:
        """Discard the parts of uploads below this folder that a killed process left unfinished."""
        if self.scheme != "s3":
            return  # other stores forget them by themselves
        bucket, _, prefix = self.url.partition("://")[2].partition("/")
        found = self._ask(
            "list uploads of", lambda fs: fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        )
        for upload in found.get("Uploads", ()):
            self._ask("clean", functools.partial(_abort_upload, bucket, upload))

    def _at(self, url: str) -> RemotePath:
        """Another place of the same storage; fsspec leaves the scheme out."""
        path = object.__new__(RemotePath)
        path.settings, path.scheme = self.settings, self.scheme
        path.url = url if is_url(url) else f"{self.scheme}://{url}"
        return path

    def _ask(self, what: str, call: Callable[[Any], T]) -> T:
        """Do one thing with the file system, again where that may help.

        Raises:
            FileNotFoundError, FileExistsError: as the store says.
            RemoteError: refused, or failed `attempts` times.
        """
        attempts = self.settings.attempts
        for attempt in range(1, attempts + 1):
            try:
                return call(file_system(self.scheme, self.settings.timeout_s))
            except Exception as e:  # each library has its own; `diagnose` knows them
                kind, why = diagnose(e)
                if kind == "missing":
                    raise FileNotFoundError(errno.ENOENT, "there is no such file", self.url) from None
                if kind == "exists":
                    raise FileExistsError(errno.EEXIST, why, self.url) from None
                if kind == "disk":
                    raise EngineError(
                        f"cannot keep a copy of {self}: {why}; free some space or name another disk in "
                        "storage.cache_dir, and run the same command again"
                    ) from None
                if kind in ("denied", "refused"):
                    raise RemoteError(f"cannot {what} {self}: {why}", why) from None
                if kind == "":
                    raise
                if attempt == attempts:
                    why = f"{why}, {attempts} times" if attempts > 1 else why
                    message = f"cannot {what} {self}: {why}; run the same command again when it answers"
                    raise RemoteError(message, why) from None
            time.sleep(pause_s(attempt, self.settings.backoff_s, random.random()))
        raise AssertionError("attempts is at least 1")


def _abort_upload(bucket: str, upload: dict[str, str], fs: Any) -> None:
    fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


class _Reader(io.RawIOBase):
    """A remote file as a seekable stream."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._size = path.remote_stat().num_bytes or 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._at))
        buffer[:size] = self._path.read_range(self._at, size)
        self._at += size
        return size


def file_system(scheme: str, timeout_s: float) -> Any:
    """fsspec's file system of a scheme, with our time limits and without its own retries and listing caches."""
    import fsspec

    if scheme == "s3":
        limits = {
            "connect_timeout": min(CONNECT_S, timeout_s),
            "read_timeout": timeout_s,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        }
        fs = fsspec.filesystem("s3", config_kwargs=limits, use_listings_cache=False)
        fs.retries = 1
        return fs
    if scheme == "gs":
        return fsspec.filesystem("gs", requests_timeout=timeout_s, use_listings_cache=False)
    import aiohttp

    limit = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, timeout_s), sock_read=timeout_s)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"longdoc/{corpus.__version__}"}  # sizes are those sent
    client = {"trust_env": True, "timeout": limit}  # proxies and ~/.netrc
    return fsspec.filesystem("http", client_kwargs=client, headers=headers, use_listings_cache=False)
