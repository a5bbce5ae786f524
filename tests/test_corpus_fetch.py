"""The cache of remote documents: bounded, shared by processes, checked at each read, and safe to kill."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import Faults, Site, faulty_proxy, web_server

from corpus.config import StorageSettings
from corpus.errors import DocumentError, EngineError
from corpus.fetch import CopyCache, local_copy
from corpus.storage import RemotePath, cache_folder

KB = 1_000


@pytest.fixture
def site() -> Site:
    site = Site()
    site.files = {f"/{name}.pdf": name.encode() * 100 * KB for name in "abcd"}
    return site


@pytest.fixture
def server(site: Site, faults: Faults) -> Iterator[str]:
    with web_server(site) as upstream, faulty_proxy(upstream, faults) as address:
        yield address


@pytest.fixture
def settings(tmp_path: Path) -> StorageSettings:
    return StorageSettings(timeout_s=5, attempts=3, backoff_s=0.01, cache_dir=str(tmp_path / "cache"), cache_gb=250e-6)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def kept(settings: StorageSettings) -> set[str]:
    return {f.name for f in (cache_folder(settings) / "copies").iterdir()}


def downloads(faults: Faults) -> list[str]:
    return [path for method, path, _ in faults.seen if method == "GET"]


def test_a_local_document_is_read_where_it_is(tmp_path: Path, settings: StorageSettings) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(b"content")
    with local_copy(str(file), None, settings) as copy:
        assert (copy.path, copy.sha256) == (file, sha256(b"content"))
    with pytest.raises(DocumentError, match="source-changed"), local_copy(str(file), "0" * 64, settings):
        pass
    with pytest.raises(DocumentError, match="unreadable"), local_copy(str(tmp_path / "b.pdf"), None, settings):
        pass
    assert not cache_folder(settings).exists()


def test_a_remote_document_is_fetched_once_and_checked(
    server: str, site: Site, faults: Faults, settings: StorageSettings
) -> None:
    content = site.files["/a.pdf"]
    with local_copy(f"{server}/a.pdf", None, settings) as copy:
        assert copy.sha256 == sha256(content)
        assert copy.path.read_bytes() == content
    for _ in range(3):
        with local_copy(f"{server}/a.pdf", copy.sha256, settings) as again:
            assert again == copy
    assert downloads(faults) == ["/a.pdf"]
    copy.path.write_bytes(b"damaged on this disk")
    with local_copy(f"{server}/a.pdf", copy.sha256, settings) as again:
        assert again.path.read_bytes() == content
    assert downloads(faults) == ["/a.pdf", "/a.pdf"]


def test_a_source_that_changed_is_refused(server: str, site: Site, settings: StorageSettings) -> None:
    before = sha256(site.files["/a.pdf"])
    site.files["/a.pdf"] = b"another"
    with (
        pytest.raises(DocumentError, match=r"source-changed: .*/a\.pdf"),
        local_copy(f"{server}/a.pdf", before, settings),
    ):
        pass
    assert kept(settings) == set()
    assert list((cache_folder(settings) / "partial").iterdir()) == []


@pytest.mark.parametrize(("fault", "says"), [("503", "HTTP 503, 3 times"), ("cut", "the connection was cut, 3 times")])
def test_what_cannot_be_had_is_a_fault_of_the_document(
    server: str, faults: Faults, settings: StorageSettings, fault: str, says: str
) -> None:
    faults.choose = lambda asked: fault if asked == ("GET", "/a.pdf", "") else ""
    with pytest.raises(DocumentError, match="fetch-failed") as e, local_copy(f"{server}/a.pdf", None, settings):
        pass
    assert e.value.detail == f"{server}/a.pdf: {says}"
    with pytest.raises(DocumentError, match="not found"), local_copy(f"{server}/none.pdf", None, settings):
        pass
    assert list((cache_folder(settings) / "partial").iterdir()) == []


def test_faults_within_name_the_document_and_not_the_copy(server: str, settings: StorageSettings) -> None:
    with pytest.raises(DocumentError) as e, local_copy(f"{server}/a.pdf", None, settings) as copy:
        raise DocumentError("empty-file", f"{copy.path} has 0 bytes")
    assert e.value.detail == f"{server}/a.pdf has 0 bytes"


def test_the_least_recently_used_copy_goes_first(
    server: str, site: Site, faults: Faults, settings: StorageSettings
) -> None:
    digests = {name: sha256(site.files[f"/{name}.pdf"]) for name in "abc"}
    for name in "ab":
        with local_copy(f"{server}/{name}.pdf", digests[name], settings):
            pass
    with local_copy(f"{server}/a.pdf", digests["a"], settings):  # used again, so that b is the oldest
        pass
    with local_copy(f"{server}/c.pdf", digests["c"], settings):
        pass
    assert kept(settings) == {digests["a"], digests["c"]}


def test_a_copy_in_use_stays(server: str, site: Site, settings: StorageSettings) -> None:
    with local_copy(f"{server}/a.pdf", None, settings) as held:
        for name in "bcd":
            with local_copy(f"{server}/{name}.pdf", None, settings):
                pass
        assert held.path.read_bytes() == site.files["/a.pdf"]
        assert held.sha256 in kept(settings)
        assert sum(f.stat().st_size for f in held.path.parent.iterdir()) <= 250 * KB
    with local_copy(f"{server}/b.pdf", None, settings), local_copy(f"{server}/c.pdf", None, settings):
        assert held.sha256 not in kept(settings)


def test_workers_that_want_the_same_document_fetch_it_once(
    server: str, site: Site, faults: Faults, settings: StorageSettings
) -> None:
    digest = sha256(site.files["/a.pdf"])

    def read(_: int) -> bytes:
        with local_copy(f"{server}/a.pdf", digest, settings) as copy:
            time.sleep(0.05)
            return copy.path.read_bytes()

    started = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(read, range(16))) == {site.files["/a.pdf"]}
    assert downloads(faults) == ["/a.pdf"]
    assert time.monotonic() - started < 10


def test_many_readers_in_a_cache_that_is_too_small(server: str, site: Site, settings: StorageSettings) -> None:
    def read(i: int) -> bool:
        path = f"/{'abcd'[i % 4]}.pdf"
        with local_copy(server + path, sha256(site.files[path]), settings) as copy:
            return copy.path.read_bytes() == site.files[path]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(40)))


def test_a_killed_download_leaves_nothing_that_stays(server: str, faults: Faults, settings: StorageSettings) -> None:
    faults.choose = lambda asked: "slow" if asked == ("GET", "/a.pdf", "") else ""
    program = (
        "from corpus.config import StorageSettings; from corpus.fetch import local_copy\n"
        f"with local_copy('{server}/a.pdf', None, StorageSettings(**{settings.model_dump()})): pass"
    )
    child = subprocess.Popen([sys.executable, "-c", program])
    partial = cache_folder(settings) / "partial"
    deadline = time.monotonic() + 30
    while not (partial.is_dir() and any(partial.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(list(partial.iterdir())) == 1
    with local_copy(f"{server}/b.pdf", None, settings):
        assert list(partial.iterdir()) == []


def test_a_partial_file_of_a_living_download_stays(server: str, settings: StorageSettings) -> None:
    cache = CopyCache(cache_folder(settings), 10**6)
    with local_copy(f"{server}/a.pdf", None, settings):
        pass
    fd, name = cache._begin(1_000)
    with local_copy(f"{server}/b.pdf", None, settings):
        assert name.exists()
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def test_a_local_disk_that_refuses_is_no_fault_of_the_document(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = StorageSettings(cache_dir=str(tmp_path / "file" / "x"))
    with pytest.raises(EngineError, match="cannot write"), local_copy(f"{server}/a.pdf", None, settings):
        pass


def test_where_copies_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(StorageSettings()) == tmp_path / "longdoc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(StorageSettings()) == Path.home() / ".cache" / "longdoc"
    assert cache_folder(StorageSettings(cache_dir="~/x")) == Path.home() / "x"


def test_nobody_else_may_look_into_the_cache(server: str, settings: StorageSettings) -> None:
    with local_copy(f"{server}/a.pdf", None, settings) as copy:
        assert copy.path.parent.stat().st_mode & 0o077 == 0
        assert RemotePath(f"{server}/a.pdf", settings).name == "a.pdf"
