"""The run directory: what is done, what is not, and who may write."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import ConfigError
from corpus.rundir import RunDir, partition_of
from corpus.store import file_sha256, write_json


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.prepare()
    return made


def partition_file(run: RunDir, name: str = "pages/p0003.parquet", content: bytes = b"pages") -> Path:
    file = run.path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


# --------------------------------------------------------------------------------------------------------- markers


def test_a_partition_is_done_when_its_marker_says_so(run: RunDir) -> None:
    file = partition_file(run)
    assert not run.is_done("pages", "p0003", "f1")
    made = run.finish("pages", "p0003", "f1", [file], facts={"ocr_pages": {"d": 2}})
    assert run.is_done("pages", "p0003", "f1")
    assert run.marker("pages", "p0003") == made
    assert made.files == {"pages/p0003.parquet": file_sha256(file)}
    assert made.facts == {"ocr_pages": {"d": 2}}
    assert made.output == [file_sha256(file)]


def test_another_fingerprint_stage_or_partition_is_not_done(run: RunDir) -> None:
    run.finish("pages", "p0003", "f1", [partition_file(run)])
    for stage, partition, fingerprint in (
        ("pages", "p0003", "f2"),
        ("pages", "p0004", "f1"),
        ("shards", "p0003", "f1"),
    ):
        assert not run.is_done(stage, partition, fingerprint)


def test_a_partition_whose_file_is_gone_is_not_done(run: RunDir) -> None:
    file = partition_file(run)
    run.finish("pages", "p0003", "f1", [file])
    file.unlink()
    assert run.marker("pages", "p0003") is None
    assert run.markers("pages") == {}


def test_a_partition_that_was_reopened_is_not_done(run: RunDir) -> None:
    run.finish("pages", "p0003", "f1", [partition_file(run)])
    run.reopen("pages", "p0003")
    run.reopen("pages", "p0003")
    assert not run.is_done("pages", "p0003", "f1")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"fingerprint": "f1"}', '{"fingerprint": "f1", "files": {}, "x": 1}']
)
def test_a_marker_that_cannot_be_read_is_none(run: RunDir, content: str) -> None:
    run.finish("pages", "p0003", "f1", [])
    (marker,) = run.state.rglob("pages-p0003.json")
    assert run.is_done("pages", "p0003", "f1")
    marker.write_text(content)
    assert not run.is_done("pages", "p0003", "f1")


def test_markers_of_a_stage_are_listed_by_name_in_order(run: RunDir) -> None:
    for name in ("p0010", "p0002"):
        run.finish("pages", name, name, [])
    run.finish("shards", "p0001", "f", [])
    assert list(run.markers("pages")) == ["p0002", "p0010"]


def test_a_known_digest_is_not_computed_again(run: RunDir) -> None:
    made = run.finish("pages", "p0003", "f1", [partition_file(run)], known={"pages/p0003.parquet": "told"})
    assert made.output == ["told"]


def test_a_partition_that_no_document_falls_into_any_more_is_dropped(run: RunDir) -> None:
    files = {name: partition_file(run, f"pages/{name}.parquet") for name in ("p0001", "p0002")}
    for name, file in files.items():
        run.finish("pages", name, "f", [file])
    run.drop("pages", keep=["p0002"])
    assert list(run.markers("pages")) == ["p0002"]
    assert [file.exists() for file in files.values()] == [False, True]


# ------------------------------------------------------------------------------------------------------ partitions


@pytest.mark.parametrize(
    ("doc_id", "count", "name"),
    [
        ("0000000000000000", 16, "p0000"),
        ("0fffffffffffffff", 16, "p0000"),
        ("1000000000000000", 16, "p0001"),
        ("ffffffffffffffff", 16, "p0015"),
        ("ffffffffffffffff", 4096, "p4095"),
    ],
)
def test_a_partition_is_the_leading_bits_of_the_id(doc_id: str, count: int, name: str) -> None:
    assert partition_of(doc_id, count) == name


@given(st.integers(0, 2**64 - 1), st.sampled_from([16, 32, 256]))
def test_partitions_hold_neighbouring_ids_and_are_split_by_doubling(number: int, count: int) -> None:
    doc_id = f"{number:016x}"
    assert int(partition_of(doc_id, 2 * count)[1:]) // 2 == int(partition_of(doc_id, count)[1:])


def test_partitions_are_filled_evenly() -> None:
    counts = Counter(partition_of(f"{i << 52:016x}", 16) for i in range(4096))
    assert set(counts.values()) == {256}


@pytest.mark.parametrize(("documents", "count"), [(0, 16), (1_024, 16), (1_025, 32), (100_000, 2_048)])
def test_the_first_build_fixes_the_number_of_partitions(run: RunDir, documents: int, count: int) -> None:
    assert run.num_partitions(documents) == count
    assert run.num_partitions(2_049) == count
    assert RunDir(run.root).num_partitions(1) == count


def test_a_run_of_another_format_is_not_continued(run: RunDir) -> None:
    write_json(run.work("run-format.json"), {"format": 99, "num_partitions": 16})
    with pytest.raises(ConfigError, match=r"format 99, this one writes 1\); build into a new folder"):
        run.num_partitions(1)


# --------------------------------------------------------------------------------------------------- who may write


def test_a_new_or_an_empty_folder_and_an_older_run_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        RunDir(tmp_path / name).prepare()
        RunDir(tmp_path / name).prepare()
        assert (tmp_path / name / ".state").is_dir()


def test_what_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        RunDir(tmp_path / "file").prepare()
    with pytest.raises(ConfigError, match="cannot be written to: Not a directory"):
        RunDir(tmp_path / "file" / "run").prepare()
    with pytest.raises(ConfigError, match="is not empty and not a run of `corpus build`; name another folder"):
        RunDir(tmp_path).prepare()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_second_build_is_kept_out_while_the_first_runs(run: RunDir) -> None:
    second = "import pathlib, sys\nfrom corpus.errors import ConfigError\nfrom corpus.rundir import RunDir\n"
    second += "try:\n    with RunDir(pathlib.Path(sys.argv[1])).lock(): print('in')\n"
    second += "except ConfigError as e: print(e)"

    def other_process() -> str:
        command = [sys.executable, "-c", second, str(run.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with run.lock():
        assert other_process() == f"another build is running in {run.root}; wait for it or name another --out"
    assert other_process() == "in"


def test_taking_the_lock_clears_what_a_killed_run_left(run: RunDir) -> None:
    left = partition_file(run, "pages/.p0003.parquet.99.tmp")
    kept = partition_file(run)
    with run.lock():
        assert not left.exists()
        assert kept.exists()


def test_page_images_have_a_folder_below_the_run_that_a_kill_does_not_outlive(run: RunDir) -> None:
    with run.lock(), run.page_images() as folder:
        assert folder == run.work("page-images")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    (folder / "longdoc-images-x").mkdir(parents=True)  # as if the build had been killed
    (folder / "longdoc-images-x" / "page.jpeg").touch()
    with run.lock():
        assert not folder.exists()


def test_a_run_that_outgrows_its_partitions_says_so(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.prepare()
    assert run.num_partitions(10) == 16
    assert run.num_partitions(8 * 64 * 16) == 16
    with pytest.raises(ConfigError, match="build into a new folder"):
        run.num_partitions(8 * 64 * 16 + 1)
