"""Files behind URLs: what a URL may be, what is tried again, and S3 and the web behind a proxy that misbehaves."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Faults, Site, faulty_proxy, web_server

from corpus import storage
from corpus.config import DEFAULT_STORAGE, StorageSettings
from corpus.errors import ConfigError, EngineError
from corpus.storage import RemoteError, RemotePath, checked_url, diagnose, is_url, path_of, pause_s

QUICK = StorageSettings(timeout_s=1, attempts=4, backoff_s=0.01)
PASSING_FAULTS = ["500", "503", "429", "refuse", "slow", "cut", "short", "lost"]


def at(url: str) -> RemotePath:
    return RemotePath(url, QUICK)


# ------------------------------------------------------------------------------------------------------------ URLs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/a.pdf", "no such kind of storage"),
        ("simplecache::s3://bucket/a.pdf", "no such kind of storage"),
        ("s3://", "names no bucket"),
        ("https:///a.pdf", "names no host"),
        ("s3://AKIA1:hidden@bucket/a.pdf", "carries a user name or key"),
        ("s3://AKIA1:hidden/hidden@bucket/a.pdf", "carries a user name or key"),
        ("https://me:hidden@host/a.pdf", "in ~/.netrc"),
        ("https://me:hidden/hidden@host/a.pdf", "in ~/.netrc"),
        ("https://host/a.pdf?X-Amz-Credential=hidden&X-Amz-Date=1", "carries a credential (X-Amz-Credential)"),
        ("https://host/a.pdf?version=2&access_token=hidden", "carries a credential (access_token)"),
        ("https://host/a.pdf?SIG=hidden", "carries a credential (SIG)"),
    ],
)
def test_urls_that_are_refused_and_never_repeated_whole(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as e:
        checked_url(url)
    assert says in str(e.value)
    assert "hidden" not in str(e.value)


def test_urls_that_are_taken() -> None:
    assert checked_url("S3://bucket/Folder/a b.pdf") == "s3://bucket/Folder/a b.pdf"
    assert checked_url("http://127.0.0.1:80/a") == "http://127.0.0.1:80/a" and checked_url("https://[::1]/a")
    assert checked_url("https://host/get?id=7&token=") == "https://host/get?id=7&token="
    assert is_url("s3://bucket") and not is_url("/folder/a://b.pdf") and not is_url("C:/folder")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = storage.importlib.util.find_spec
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name))
    with pytest.raises(ConfigError, match=r"needs the package gcsfs: pip install 'longdoc\[gcs\]'"):
        checked_url("gs://bucket/a.pdf")


def test_local_places_stay_plain_paths() -> None:
    assert path_of("runs/mine") == Path("runs/mine")
    assert path_of("file:///runs/my%20run") == Path("/runs/my run")
    with pytest.raises(ConfigError, match="another machine"):
        path_of("file://host/runs")


def test_a_remote_path_is_a_path() -> None:
    path = at("s3://bucket/run/")
    assert str(path / "plan" / "plan-1.parquet") == "s3://bucket/run/plan/plan-1.parquet"
    file = path.joinpath("plan", "plan-1.parquet")
    assert (file.name, file.stem, file.suffix) == ("plan-1.parquet", "plan-1", ".parquet")
    assert file.with_suffix(".json") == path / "plan/plan-1.json"
    assert file.with_name("x") == path / "plan/x"
    assert file.relative_to(path) == "plan/plan-1.parquet"
    assert file.parent.parent == path and sorted([file, path]) == [path, file]
    with pytest.raises(ValueError, match="is not below"):
        path.relative_to(file)
    assert pickle.loads(pickle.dumps(file)) == file
    assert len({file, path / "plan/plan-1.parquet"}) == 1
    moved = storage.remote_path(path_of(storage.cast(Path, file), DEFAULT_STORAGE))
    assert moved is not None and moved.settings == DEFAULT_STORAGE


# -------------------------------------------------------------------------------------------------------- diagnosis


class _Answer(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("no https://host/a?secret=hidden for you")
        self.status = status


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_Answer(500), "passing"),
        (_Answer(503), "passing"),
        (_Answer(429), "passing"),
        (_Answer(408), "passing"),
        (_Answer(400), "refused"),
        (_Answer(401), "denied"),
        (_Answer(403), "denied"),
        (_Answer(404), "missing"),
        (_Answer(412), "exists"),
        (_caused(FileNotFoundError("x"), _Answer(404)), "missing"),
        (_caused(FileNotFoundError("x"), _Answer(500)), "passing"),  # aiohttp's file system says so of anything
        (_caused(FileNotFoundError("x"), ConnectionResetError()), "passing"),
        (FileNotFoundError("x"), "missing"),
        (PermissionError("x"), "denied"),
        (FileExistsError("x"), "exists"),
        (ConnectionResetError(), "passing"),
        (TimeoutError(), "passing"),
        (OSError(errno.ENOSPC, "x"), "disk"),
        (TypeError("a bug"), ""),
    ],
    ids=repr,
)
def test_what_may_pass_is_told_from_what_will_not(error: Exception, kind: str) -> None:
    found, why = diagnose(error)
    assert found == kind
    assert "hidden" not in why


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_pauses_double_up_to_a_bound_and_never_vanish(attempt: int, draw: float) -> None:
    longest = min(storage.LONGEST_PAUSE_S, 0.5 * 2 ** (attempt - 1))
    assert longest / 2 <= pause_s(attempt, 0.5, draw) <= longest


# --------------------------------------------------------------------------------------------------------------- S3


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_a_read_outlives_what_passes(bucket: str, faults: Faults, fault: str) -> None:
    at(f"{bucket}/a.pdf").write_bytes(b"x" * 10_000)
    faults.once_each(fault, fault, method="GET")
    assert at(f"{bucket}/a.pdf").read_bytes() == b"x" * 10_000
    assert [f for _, _, f in faults.seen].count(fault) == 2


@pytest.mark.parametrize("fault", [*PASSING_FAULTS, "half"])
def test_an_upload_outlives_what_passes(bucket: str, faults: Faults, fault: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(100_000))
    faults.once_each(fault, fault, method="PUT")
    at(f"{bucket}/a").upload(str(tmp_path / "a"))
    assert any(f == fault for _, _, f in faults.seen)
    faults.reset()
    assert at(f"{bucket}/a").read_bytes() == (tmp_path / "a").read_bytes()


def test_a_large_upload_in_parts_outlives_what_passes(
    bucket: str, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PART_BYTES", 5 * 2**20)  # S3 knows no smaller ones
    (tmp_path / "a").write_bytes(os.urandom(11 * 2**20))
    faults.once_each("refuse", method="PUT", path="partNumber=2")
    at(f"{bucket}/a").upload(str(tmp_path / "a"))
    assert [a.fault for a in faults.seen if "partNumber=2" in a.path] == ["refuse", ""]
    assert at(f"{bucket}/a").read_bytes() == (tmp_path / "a").read_bytes()
    assert "Uploads" not in storage.file_system("s3", 10).call_s3("list_multipart_uploads", Bucket=bucket[5:])


def test_a_public_bucket_is_read_without_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    at(f"{bucket}/a").write_bytes(b"x")
    storage.file_system("s3", 10).call_s3("put_object_acl", Bucket=bucket[5:], Key="a", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    storage.file_system("s3", 10).clear_instance_cache()
    with pytest.raises(RemoteError, match=r"no usable credentials .* a public bucket needs FSSPEC_S3_ANON=true"):
        at(f"{bucket}/a").read_bytes()
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})  # what the variable sets when fsspec is loaded
    assert at(f"{bucket}/a").read_bytes() == b"x"
    storage.file_system("s3", 10).clear_instance_cache()


def test_what_does_not_pass_ends_with_the_place_and_the_reason(bucket: str, faults: Faults) -> None:
    at(f"{bucket}/a.pdf").write_bytes(b"x")
    faults.choose = lambda _: "503"
    with pytest.raises(RemoteError, match=r"/a\.pdf: HTTP 503, 4 times; run the same command again") as e:
        at(f"{bucket}/a.pdf").read_bytes()
    assert e.value.why == "HTTP 503, 4 times"
    assert isinstance(e.value, EngineError)
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


def test_one_request_a_range(bucket: str, faults: Faults) -> None:
    at(f"{bucket}/shard").write_bytes(bytes(range(256)))
    faults.reset()
    assert at(f"{bucket}/shard").read_range(10, 5) == bytes(range(10, 15))
    assert [m for m, _, _ in faults.seen] == ["GET"]


def test_a_stream_reads_and_seeks(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BLOCK_BYTES", 100)
    content = os.urandom(1_234)
    path = at(f"{bucket}/a")
    path.write_bytes(content)
    with path.open() as f:
        assert f.read() == content
        f.seek(-34, os.SEEK_END)
        assert f.read(10) == content[1_200:1_210]
    assert path.read_bytes() == content


def test_a_download_in_blocks_is_of_one_version(
    bucket: str, faults: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage, "BLOCK_BYTES", 100)
    path = at(f"{bucket}/a")
    path.write_bytes(b"old" * 100)
    read = RemotePath.read_range

    def read_and_change(self: RemotePath, offset: int, size: int) -> bytes:
        data = read(self, offset, size)
        if offset == 100 and data.startswith(b"ldo"):
            path.write_bytes(b"new" * 100)
        return data

    monkeypatch.setattr(RemotePath, "read_range", read_and_change)
    path.download(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new" * 100


def test_folders_are_listed(bucket: str) -> None:
    for name in ("papers/b.PDF", "papers/deep/a.pdf", "papers/notes.txt", "papersother/c.pdf"):
        at(f"{bucket}/{name}").write_bytes(b"x")
    papers = at(f"{bucket}/papers")
    assert papers.find(".pdf") == [f"{bucket}/papers/b.PDF", f"{bucket}/papers/deep/a.pdf"]
    assert [p.name for p in papers.iterdir()] == ["b.PDF", "deep", "notes.txt"]
    assert [str(p) for p in at(bucket).glob("papers/*.txt")] == [f"{bucket}/papers/notes.txt"]
    assert at(f"{bucket}/pap*/*.PDF").matches() == [(f"{bucket}/papers/b.PDF", False)]
    assert papers.is_dir() and papers.exists() and not papers.is_file()
    assert not at(f"{bucket}/paper").exists() and list(at(f"{bucket}/paper").iterdir()) == []
    (papers / "b.PDF").unlink()
    (papers / "b.PDF").unlink(missing_ok=True)
    assert not (papers / "b.PDF").is_file()


def test_only_one_creates_a_file(bucket: str) -> None:
    at(f"{bucket}/lock").write_bytes(b"first", create=True)
    with pytest.raises(FileExistsError):
        at(f"{bucket}/lock").write_bytes(b"second", create=True)
    assert at(f"{bucket}/lock").read_text() == "first"


def test_what_a_killed_upload_left_is_discarded(bucket: str) -> None:
    fs = storage.file_system("s3", 10)
    name = bucket.removeprefix("s3://")
    for key in ("run/shards/p0000.tar", "other/file"):
        fs.call_s3("create_multipart_upload", Bucket=name, Key=key)
    at(f"{bucket}/run").abort_uploads()
    left = fs.call_s3("list_multipart_uploads", Bucket=name)["Uploads"]
    assert [u["Key"] for u in left] == ["other/file"]


def test_no_bucket_is_no_file(bucket: str) -> None:
    with pytest.raises(FileNotFoundError):
        at("s3://no-such-bucket-here/papers").find(".pdf")


# -------------------------------------------------------------------------------------------------------------- web


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_a_web_file_outlives_what_passes(faults: Faults, fault: str, tmp_path: Path) -> None:
    site = Site()
    site.files["/a.pdf"] = os.urandom(10_000)
    with web_server(site) as server, faulty_proxy(server, faults) as address:
        faults.once_each(fault, fault)
        at(f"{address}/a.pdf").download(tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == site.files["/a.pdf"]
        assert any(f == fault for _, _, f in faults.seen)


def test_a_web_server_says_what_it_has_and_not() -> None:
    site = Site()
    site.files = {"/in/a.pdf": b"x" * 300, "/in/b.txt": b""}
    with web_server(site) as address:
        stat = at(f"{address}/in/a.pdf").remote_stat()
        assert (stat.num_bytes, bool(stat.version)) == (300, True)
        assert at(f"{address}/in/a.pdf").read_range(100, 50) == b"x" * 50  # it sends everything
        assert at(f"{address}/in/").find(".pdf") == [f"{address}/in/a.pdf"]
        with pytest.raises(FileNotFoundError):
            at(f"{address}/in/none.pdf").remote_stat()


def test_a_server_that_is_not_there() -> None:
    with web_server(Site()) as address:
        pass
    with pytest.raises(RemoteError, match=r"cannot reach .*, 4 times"):
        at(f"{address}/a.pdf").remote_stat()
