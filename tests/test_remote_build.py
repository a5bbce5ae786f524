"""Builds from and into S3 and the web, through a proxy that misbehaves: the same bytes as on a local disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import KEY_ID, SECRET, TOKEN, Asked, Faults, Site, faulty_proxy, web_server
from test_build import QUICK, by_name, promised_bytes, write_document

from corpus.cli import main
from corpus.config import Config, StorageSettings, load_config
from corpus.errors import ConfigError, EngineError
from corpus.ingest import Source, expand_inputs
from corpus.inspection import describe, describe_sample
from corpus.lease import lease
from corpus.linting import lint_run
from corpus.pipeline import build
from corpus.rundir import RunDir
from corpus.storage import RemotePath, path_of
from trainer_plugin.dataset import PlanDataset

IMPATIENT = ("storage.timeout_s=1", "storage.attempts=4", "storage.backoff_s=0.02")
NAMES = ("a.pdf", "b.pdf", "c.pdf")
NEAR = StorageSettings(timeout_s=1, attempts=3, backoff_s=0.01)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(NAMES):
        write_document(folder / name, seed, pages=20 if name == "c.pdf" else 6)  # c: two tasks in parsing
    (folder / "text.pdf").write_text("no PDF at all")
    return folder


@pytest.fixture(scope="module")
def local(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the same files on the local disk."""
    out = tmp_path_factory.mktemp("local") / "run"
    build([str(inputs)], out, load_config(None, QUICK), workers=1, quiet=True)
    return out


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(None, (*QUICK, *IMPATIENT, f"storage.cache_dir={tmp_path / 'cache'}"))


@pytest.fixture
def papers(bucket: str, inputs: Path, faults: Faults) -> str:
    """The inputs in a bucket."""
    for file in inputs.iterdir():
        RemotePath(f"{bucket}/papers/{file.name}", NEAR).write_bytes(file.read_bytes())
    faults.reset()
    return f"{bucket}/papers"


@pytest.fixture
def site(inputs: Path) -> Site:
    site = Site()
    site.files = {f"/papers/{file.name}": file.read_bytes() for file in inputs.iterdir()}
    return site


@pytest.fixture
def web(site: Site, faults: Faults) -> Iterator[str]:
    with web_server(site) as upstream, faulty_proxy(upstream, faults) as address:
        yield address


def content(run: Path) -> dict[str, str]:
    """What does not name the place of a document."""
    return {
        name: digest
        for name, digest in promised_bytes(run).items()
        if name not in ("ledger.parquet", "rejected.parquet")
    }


def secrets_in(folder: Path) -> list[str]:
    """Files below the folder in which a credential of the tests stands."""
    held = [s.encode() for s in (KEY_ID, SECRET, TOKEN)]
    return [str(f) for f in folder.rglob("*") if f.is_file() and any(s in f.read_bytes() for s in held)]


def downloads(faults: Faults) -> list[str]:
    return sorted(Path(asked.path).name for asked in faults.seen if asked.method == "GET" and ".pdf" in asked.path)


# ------------------------------------------------------------------------------------------------------ what is meant


def found(*inputs: str) -> list[str]:
    return [s.uri for s in expand_inputs(inputs, storage=NEAR)]


def test_folders_globs_files_and_manifests_of_a_bucket(bucket: str, papers: str) -> None:
    whole = [f"{papers}/{name}" for name in (*NAMES, "text.pdf")]
    assert found(papers) == found(f"{papers}/") == found(bucket) == whole
    assert found(f"{papers}/[ab].pdf") == whole[:2]
    assert found(f"{bucket}/pap*") == whole
    assert found(f"{papers}/b.pdf") == whole[1:2]
    assert found(f"{papers}/not-there.pdf") == [f"{papers}/not-there.pdf"]  # its end is in the ledger
    rows = [{"uri": "papers/b.pdf", "title": "B"}, {"uri": "/papers/a.pdf"}, {"uri": "https://host/x.pdf"}]
    manifest = RemotePath(f"{bucket}/lists.jsonl", NEAR)
    manifest.write_bytes("\n".join(map(json.dumps, rows)).encode())
    assert expand_inputs([str(manifest)], storage=NEAR) == [
        Source(uri="https://host/x.pdf"),
        Source(uri=whole[0]),
        Source(uri=whole[1], title="B"),
    ]


def test_a_name_with_signs_of_a_pattern(bucket: str) -> None:
    odd = f"{bucket}/odd [1]?.pdf"
    RemotePath(odd, NEAR).write_bytes(b"x")
    assert found(odd) == found(bucket) == [odd]


def test_addresses_of_the_web(web: str, site: Site, tmp_path: Path) -> None:
    assert found(f"{web}/get?id=7") == [f"{web}/get?id=7"]
    assert found(f"{web}/papers/") == [f"{web}/papers/{name}" for name in (*NAMES, "text.pdf")]
    site.files["/lists/m.jsonl"] = b'{"uri": "../papers/a.pdf"}\n{"uri": "/x.pdf"}'
    assert found(f"{web}/lists/m.jsonl") == [f"{web}/papers/a.pdf", f"{web}/x.pdf"]
    (tmp_path / "m.jsonl").write_text(f'{{"uri": "{web}/a.pdf"}}\n{{"uri": "b.pdf"}}\n')
    assert found(str(tmp_path / "m.jsonl")) == [str(tmp_path / "b.pdf"), f"{web}/a.pdf"]


def test_what_cannot_be_listed_is_refused(bucket: str, papers: str, faults: Faults, web: str, site: Site) -> None:
    for url, says in (
        ("s3://no-such-bucket/papers", "'s3://no-such-bucket/papers' does not exist"),
        (f"{bucket}/nothing-here", "does not exist"),
        (f"{papers}/*.doc", "matches no file"),
        (f"{web}/none.jsonl", f"cannot read manifest {web}/none.jsonl: [Errno 2] there is no such file"),
    ):
        with pytest.raises(ConfigError, match=re.escape(says)):
            found(url)
    site.files["/m.jsonl"] = b'{"uri": "file:///etc/hosts.pdf"}'
    with pytest.raises(ConfigError, match=r"row 1: 'file:///etc/hosts\.pdf' is a local file"):
        found(f"{web}/m.jsonl")
    faults.choose = lambda _: "503"
    with pytest.raises(EngineError, match=f"cannot reach {papers}: HTTP 503, 3 times"):
        found(papers)


# ------------------------------------------------------------------------------------------------------------ inputs


def test_a_build_from_a_faulty_bucket_has_the_bytes_of_a_local_one(
    papers: str, local: Path, faults: Faults, config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    faults.once_each("500", "cut", "short", path="pdf")
    build([papers], tmp_path / "run", config, workers=2)
    assert {"500", "cut", "short"} <= {asked.fault for asked in faults.seen}
    assert content(tmp_path / "run") == content(local)
    lint_run(tmp_path / "run")
    ends = {name: (e.uri, e.status, e.reason) for name, e in by_name(tmp_path / "run").items()}
    assert ends["a.pdf"] == (f"{papers}/a.pdf", "kept", "")
    assert ends["text.pdf"] == (f"{papers}/text.pdf", "rejected", "not-a-pdf")
    assert by_name(tmp_path / "run")["text.pdf"].detail.startswith(f"{papers}/text.pdf ")
    assert secrets_in(tmp_path) == []
    assert not any(s in text for s in (KEY_ID, SECRET, TOKEN) for text in capfd.readouterr())


def test_a_build_from_a_faulty_web_server_has_the_bytes_of_a_local_one(
    web: str, local: Path, faults: Faults, config: Config, tmp_path: Path
) -> None:
    faults.once_each("503", "refuse", "cut", path="pdf")
    build([f"{web}/papers/"], tmp_path / "run", config, workers=1, quiet=True)
    assert content(tmp_path / "run") == content(local)


def test_each_document_is_fetched_once_and_not_again_while_it_stays(
    papers: str, inputs: Path, faults: Faults, config: Config, tmp_path: Path
) -> None:
    build([papers], tmp_path / "run", config, workers=1, until="parse", quiet=True)
    assert downloads(faults) == [*NAMES, "text.pdf"]
    faults.reset()
    shutil.rmtree(tmp_path / "cache")
    again = build([papers], tmp_path / "run", config, workers=1, until="parse", quiet=True)
    assert downloads(faults) == ["text.pdf"]  # what failed is tried again
    assert again.work == {"ingest": 1}
    RemotePath(f"{papers}/b.pdf", NEAR).write_bytes((inputs / "a.pdf").read_bytes() + b"\n")
    faults.reset()
    build([papers], tmp_path / "run", config, workers=1, until="parse", quiet=True)
    assert "b.pdf" in downloads(faults) and not {"a.pdf", "c.pdf"} & set(downloads(faults))


def test_a_server_that_tells_no_version_is_asked_again(
    web: str, site: Site, inputs: Path, faults: Faults, config: Config, tmp_path: Path
) -> None:
    site.tags = False
    build([f"{web}/papers/a.pdf"], tmp_path / "run", config, until="ingest", quiet=True)
    site.files["/papers/a.pdf"] = (inputs / "b.pdf").read_bytes()
    build([f"{web}/papers/a.pdf"], tmp_path / "run", config, until="ingest", quiet=True)
    assert downloads(faults) == ["a.pdf", "a.pdf"]


def test_a_document_that_cannot_be_had_is_a_row_and_is_tried_again(
    papers: str, local: Path, faults: Faults, config: Config, tmp_path: Path
) -> None:
    def broken(asked: Asked) -> str:
        return "503" if asked.path.endswith("/b.pdf") else ""

    faults.choose = broken
    build([papers], tmp_path / "run", config, workers=1, quiet=True)
    entry = by_name(tmp_path / "run")["b.pdf"]
    assert (entry.status, entry.stage, entry.reason) == ("rejected", "ingest", "fetch-failed")
    assert entry.detail == f"{papers}/b.pdf: HTTP 503, 4 times"
    faults.reset()
    build([papers], tmp_path / "run", config, workers=1, quiet=True)
    assert content(tmp_path / "run") == content(local)


@pytest.mark.parametrize("stage", ["parse", "shard"])
def test_a_document_that_changes_or_goes_after_ingest_is_a_row_and_is_tried_again(
    papers: str, local: Path, config: Config, tmp_path: Path, inputs: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corpus.stages import parse, shard

    module = {"parse": parse, "shard": shard}[stage]
    run: Callable[..., str] = module.run

    def run_after_a_change(b: object) -> str:
        shutil.rmtree(tmp_path / "cache")
        RemotePath(f"{papers}/a.pdf", NEAR).write_bytes(b"%PDF- another")
        RemotePath(f"{papers}/b.pdf", NEAR).unlink()
        return run(b)

    monkeypatch.setattr(module, "run", run_after_a_change)
    build([papers], tmp_path / "run", config, workers=1, quiet=True)
    ends = {n: (e.stage, e.reason) for n, e in by_name(tmp_path / "run").items() if e.status == "rejected"}
    assert ends.pop("text.pdf") == ("ingest", "not-a-pdf")
    assert ends == {"a.pdf": (stage, "source-changed"), "b.pdf": (stage, "fetch-failed")}
    monkeypatch.undo()


def test_a_cache_that_holds_one_document_is_enough(papers: str, local: Path, config: Config, tmp_path: Path) -> None:
    small = config.model_copy(update={"storage": config.storage.model_copy(update={"cache_gb": 1e-6})})
    build([papers], tmp_path / "run", small, workers=1, quiet=True)
    assert content(tmp_path / "run") == content(local)
    assert len(list((tmp_path / "cache" / "copies").iterdir())) <= 2


def test_no_credentials_are_said_before_anything_is_done(
    papers: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corpus.storage import file_system

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    file_system("s3", 10).clear_instance_cache()
    with pytest.raises(EngineError, match="no usable credentials"):
        build([papers], tmp_path / "run", config, quiet=True)


# ------------------------------------------------------------------------------------------------------------ outputs


def objects(run: str) -> dict[str, bytes]:
    """Every file of a remote run that does not tell of times."""
    root = RemotePath(run, NEAR)
    names = (RemotePath(url, NEAR).relative_to(root) for url in root.find(""))
    return {name: (root / name).read_bytes() for name in names if name != "run.json"}


def files(run: Path) -> dict[str, bytes]:
    """Every file of a local run that does not tell of times."""
    found = {str(f.relative_to(run)): f for f in run.rglob("*") if f.is_file()}
    return {name: f.read_bytes() for name, f in found.items() if name not in ("run.json", ".state/lock")}


def is_whole(name: str, data: bytes) -> bool:
    """Whether a file of a run ends as one of its kind does."""
    if name.endswith(".parquet"):
        return data[:4] == data[-4:] == b"PAR1"
    if name.endswith(".tar"):
        return len(data) % 512 == 0 and not any(data[-1024:])
    if name.endswith(".json"):
        return data.endswith(b"}\n")
    return name.endswith((".html", ".md", "lock", ".write-test"))


class Watcher:
    """Looks at a bucket, not through the proxy, for as long as the context lasts."""

    def __init__(self, address: str, bucket: str) -> None:
        import boto3
        import botocore.config

        lenient = botocore.config.Config(response_checksum_validation="when_required")
        self._client = boto3.client("s3", endpoint_url=address, config=lenient)
        self._bucket = bucket.removeprefix("s3://")
        self._thread = threading.Thread(target=self._watch)
        self._failed = True
        self._ended = threading.Event()
        self.seen: set[tuple[str, str]] = set()
        self.broken: list[str] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert not self._failed, "nobody watched to the end"

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            for entry in self._client.list_objects_v2(Bucket=self._bucket).get("Contents", ()):
                version = (entry["Key"], entry["ETag"])
                if version not in self.seen:
                    self._look(*version)
        self._failed = False

    def _look(self, key: str, tag: str) -> None:
        try:
            data = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return
        if hashlib.md5(data).hexdigest() != tag.strip('"'):
            return  # it was replaced meanwhile, which moto does not hide from a reader; the next look sees the new one
        self.seen.add((key, tag))
        if not is_whole(key, data):
            self.broken.append(key)


def test_a_build_into_a_faulty_bucket_is_the_local_run(
    bucket: str, s3: str, inputs: Path, local: Path, faults: Faults, config: Config, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    faults.once_each("500", "lost", path=r"/(pages|shards|plan|markers)/")
    with Watcher(s3, bucket) as watcher:
        result = build([str(inputs)], f"{bucket}/run", config, workers=1)
    assert watcher.broken == [] and len(watcher.seen) > 20
    assert {"500", "lost"} <= {asked.fault for asked in faults.seen}
    assert str(result.run) == f"{bucket}/run"
    faults.reset()
    assert objects(f"{bucket}/run") == files(local)
    run = path_of(f"{bucket}/run")
    assert lint_run(run) == lint_run(local)
    said = capfd.readouterr()
    written = [
        *objects(f"{bucket}/run").values(),
        (run / "run.json").read_bytes(),
        said.out.encode(),
        said.err.encode(),
    ]
    assert not any(secret.encode() in text for secret in (KEY_ID, SECRET, TOKEN) for text in written)
    assert secrets_in(tmp_path) == []
    assert [f for f in (tmp_path / "cache").rglob("*") if f.is_file()] == []

    again = build([str(inputs)], f"{bucket}/run", config, workers=1, quiet=True)
    assert again.work == {"ingest": 1}
    assert objects(f"{bucket}/run") == files(local)


def test_a_run_in_a_bucket_is_read_like_a_local_one(
    bucket: str, local: Path, faults: Faults, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in local.rglob("*"):
        if file.is_file():
            RemotePath(f"{bucket}/run", NEAR).joinpath(str(file.relative_to(local))).write_bytes(file.read_bytes())
    run = path_of(f"{bucket}/run")
    assert describe(run) == describe(local)
    shard = next(iter(sorted(local.glob("shards/*.tar"))))
    assert describe(run / "shards" / shard.name) == describe(shard)
    plan = next(iter(sorted(local.glob("plan/plan-*.parquet"))))
    assert describe(run / "plan" / plan.name) == describe(plan)
    near, far = PlanDataset(local), PlanDataset(f"{bucket}/run")
    assert len(far) == len(near)
    sample = near[0][0].sample.sample_id
    assert far.load(sample).messages == near.load(sample).messages
    faults.reset()
    assert len(far.load(sample).images) > 1
    assert [asked.method for asked in faults.seen] == ["GET"]  # the whole window
    assert describe_sample(run, sample) == describe_sample(local, sample)
    for command in (["inspect", f"{bucket}/run"], ["lint", f"{bucket}/run"]):
        with pytest.raises(SystemExit) as e:
            main(command)
        assert not e.value.code
    assert "run for qwen2.5-vl, complete" in capfd.readouterr().out
    with pytest.raises(SystemExit) as e:
        main(["pack", f"{bucket}/run/samples.parquet", "--out", f"{bucket}/plan"])
    assert not e.value.code
    assert f"written to {bucket}/plan/plan-" in capfd.readouterr().out
    assert [p.suffix for p in path_of(f"{bucket}/plan").iterdir()] == [".json", ".parquet"]


@pytest.mark.parametrize(
    ("length", "body"), [(b"Content-Length: 100", b"x" * 50), (b"Transfer-Encoding: chunked", b"64\r\n" + b"x" * 50)]
)
def test_half_a_request_reaches_nobody(length: bytes, body: bytes) -> None:
    """What the tests of kills rely on: a client that dies within an upload leaves nothing behind the proxy."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(1)
        with faulty_proxy(f"http://127.0.0.1:{upstream.getsockname()[1]}", Faults()) as address:
            host, port = address.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as client:
                client.sendall(b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n" + body)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(100) == b""
            with contextlib.suppress(TimeoutError):
                came.append(upstream.accept())
    assert came == []


def test_a_killed_build_into_a_bucket_finishes_with_the_same_bytes(
    bucket: str, s3: str, inputs: Path, local: Path, faults: Faults, config: Config, tmp_path: Path
) -> None:
    reached = threading.Event()

    def hold(asked: Asked) -> str:
        if asked.method == "PUT" and "shards/p" in asked.path:
            reached.set()
            return "slow"
        return ""

    faults.choose = hold
    command = [sys.executable, "-m", "corpus.cli", "build", str(inputs), "--out", f"{bucket}/run", "--workers", "2"]
    for assignment in (*QUICK, *IMPATIENT, "storage.timeout_s=20", f"storage.cache_dir={tmp_path / 'cache'}"):
        command += ["--set", assignment]
    with Watcher(s3, bucket) as watcher:
        process = subprocess.Popen([*command, "--quiet"], start_new_session=True)
        assert reached.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        faults.reset()
        build([str(inputs)], f"{bucket}/run", config, workers=1, quiet=True)
    assert watcher.broken == []
    assert objects(f"{bucket}/run") == files(local)
    assert [f for f in (tmp_path / "cache").rglob("*") if f.is_file()] == []


def test_page_images_of_a_remote_run_lie_on_this_machine(bucket: str, tmp_path: Path) -> None:
    run = RunDir(RemotePath(f"{bucket}/run", StorageSettings(cache_dir=str(tmp_path))))
    run.prepare()
    with run.lock(), run.page_images() as folder:
        assert folder.is_relative_to(tmp_path)
    assert not folder.exists()
    (folder / "longdoc-images-x").mkdir(parents=True)  # as if the build had been killed
    with run.lock():
        assert not folder.exists()


def test_a_second_build_in_the_same_bucket_is_refused(bucket: str, inputs: Path, config: Config) -> None:
    lock = RemotePath(f"{bucket}/run/.state/lock", NEAR)
    with lease(lock), pytest.raises(ConfigError, match=f"another build is running in {bucket}/run"):
        build([str(inputs)], f"{bucket}/run", config, quiet=True)


def test_a_store_that_stops_answering_ends_the_build_and_costs_only_time(
    bucket: str, inputs: Path, local: Path, faults: Faults, config: Config
) -> None:
    faults.choose = lambda asked: "503" if asked.method == "PUT" and "/questions/" in asked.path else ""
    with pytest.raises(EngineError, match=r"cannot write .*/questions/p\d+\.parquet: HTTP 503, 4 times"):
        build([str(inputs)], f"{bucket}/run", config, workers=1, quiet=True)
    faults.reset()
    result = build([str(inputs)], f"{bucket}/run", config, workers=1, quiet=True)
    assert "parse" not in result.work
    assert objects(f"{bucket}/run") == files(local)


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("s3://no-such-bucket-of-tests/run", "cannot be written to: there is no such file"),
        ("https://host/run", "cannot be written to; name a folder, s3://... or gs://..."),
        ("ftp://host/run", "no such kind of storage"),
    ],
)
def test_places_that_hold_no_run(bucket: str, inputs: Path, config: Config, out: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        build([str(inputs)], out, config, quiet=True)


def test_a_folder_of_something_else_is_not_written_into(bucket: str, inputs: Path, config: Config) -> None:
    RemotePath(f"{bucket}/mine/letter.txt", NEAR).write_bytes(b"x")
    with pytest.raises(ConfigError, match="is not empty and not a run"):
        build([str(inputs)], f"{bucket}/mine", config, quiet=True)
