"""Shards: plain tars with the same bytes on every machine, and an index that is exact."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
import webdataset
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import ConfigError
from corpus.shard_index import Member, ShardFile, index_table
from corpus.shards import BLOCK, ShardReader, dump_json, page_name, tar_header, write_shards
from corpus.store import write_table

Samples = list[tuple[str, list[tuple[str, bytes]]]]

SAMPLES: Samples = [
    (
        f"0123456789abcde{i}-w00",
        [
            ("json", dump_json({"title": "Ünïcödé", "number": i})),
            ("questions.json", b"[]"),
            ("text.json", b""),
            *((page_name(p), bytes([i, p % 256]) * size) for p, size in ((0, 255), (1, 256), (12_345, 257))),
        ],
    )
    for i in range(5)
]


def write(folder: Path, samples: Samples = SAMPLES, max_bytes: int = 10**9) -> tuple[list[ShardFile], list[Member]]:
    return write_shards(folder, "p0003", samples, max_bytes)


def members_of(tar: Path) -> list[tuple[str, bytes]]:
    """What the standard library reads."""
    with tarfile.open(tar) as archive:
        return [(m.name, archive.extractfile(m).read()) for m in archive]  # type: ignore[union-attr]


def flat(samples: Samples) -> list[tuple[str, bytes]]:
    return [(f"{key}.{name}", data) for key, members in samples for name, data in members]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two shards and their index."""
    files, members = write(tmp_path / "shards", max_bytes=15_000)
    assert len(files) == 2
    write_table(tmp_path / "shards" / "index.parquet", index_table(files, members))
    return tmp_path


# -------------------------------------------------------------------------------------------------------- archives


def test_the_standard_library_reads_every_member(tmp_path: Path) -> None:
    write(tmp_path)
    assert members_of(tmp_path / "p0003-000000.tar") == flat(SAMPLES)


def test_the_stock_webdataset_reads_every_sample(tmp_path: Path) -> None:
    write(tmp_path)
    found = list(webdataset.WebDataset(str(tmp_path / "p0003-000000.tar"), shardshuffle=False))
    assert [s["__key__"] for s in found] == [key for key, _ in SAMPLES]
    for sample, (_, members) in zip(found, SAMPLES, strict=True):
        assert {k: v for k, v in sample.items() if not k.startswith("__")} == dict(members)


def test_headers_are_those_of_the_standard_library() -> None:
    info = tarfile.TarInfo("0123456789abcdef-w00.p0007.jpg")
    info.size = 123_456
    ours = bytearray(tar_header(info.name, info.size))
    theirs = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    for header in (ours, theirs):  # device numbers: zeros or nothing, both mean none
        header[148:156] = header[329:345] = b""
    assert ours == theirs


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 1), ("x", 8**11), ("ü", 1)])
def test_what_ustar_cannot_say_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError):
        tar_header(name, size)
    assert len(tar_header("x" * 100, 8**11 - 1)) == BLOCK


def test_the_same_samples_have_the_same_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "a", max_bytes=10_000)
    lazily = ((key, iter(members)) for key, members in SAMPLES)
    second = write_shards(tmp_path / "b", "p0003", lazily, 10_000)
    assert first == second
    for file in first[0]:
        data = (tmp_path / "a" / file.shard).read_bytes()
        assert data == (tmp_path / "b" / file.shard).read_bytes()
        assert (len(data), xxhash.xxh3_128_hexdigest(data)) == (file.num_bytes, file.xxh128)


def test_members_carry_no_time_and_no_owner(tmp_path: Path) -> None:
    write(tmp_path)
    with tarfile.open(tmp_path / "p0003-000000.tar") as archive:
        about = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.isreg()) for m in archive}
    assert about == {(0, 0, 0, "", "", 0o644, True)}


def test_the_index_gives_every_member_by_one_read(tmp_path: Path) -> None:
    _, members = write(tmp_path, max_bytes=10_000)
    found = []
    for m in members:
        fd = os.open(tmp_path / m.shard, os.O_RDONLY)
        found.append((f"{m.key}.{m.name}", os.pread(fd, m.size, m.offset)))
        os.close(fd)
    assert found == flat(SAMPLES)


def test_a_shard_is_closed_after_the_sample_that_takes_it_past_the_limit(tmp_path: Path) -> None:
    samples: Samples = [(f"k{i}", [("json", bytes(1_000))]) for i in range(5)]  # 1,536 bytes each
    files, members = write(tmp_path, samples, max_bytes=1_537)
    assert [f.shard for f in files] == [f"p0003-00000{i}.tar" for i in range(3)]
    assert [m.shard[-5] for m in members] == ["0", "0", "1", "1", "2"]
    assert [f.num_bytes for f in files] == [2 * 1_536 + 1_024, 2 * 1_536 + 1_024, 1_536 + 1_024]
    assert [x for f in files for x in members_of(tmp_path / f.shard)] == flat(samples)


def test_a_sample_is_never_split(tmp_path: Path) -> None:
    _, members = write(tmp_path, max_bytes=1)
    assert all(len({m.shard for m in members if m.key == key}) == 1 for key, _ in SAMPLES)
    assert len({m.shard for m in members}) == len(SAMPLES)


def test_no_samples_make_no_shard(tmp_path: Path) -> None:
    assert write(tmp_path, []) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_a_fault_while_writing_leaves_whole_shards_only(tmp_path: Path) -> None:
    def faulty() -> Samples:
        yield from SAMPLES[:3]  # type: ignore[misc]
        raise KeyError("page")

    with pytest.raises(KeyError):
        write(tmp_path, faulty(), max_bytes=7_000)
    assert [p.name for p in tmp_path.iterdir()] == ["p0003-000000.tar"]
    assert members_of(tmp_path / "p0003-000000.tar") == flat(SAMPLES[:2])


NAMES = st.text("abcdefgh0123456789-", min_size=1, max_size=20)


@settings(max_examples=30)
@given(
    st.dictionaries(NAMES, st.dictionaries(NAMES, st.binary(max_size=1_200), min_size=1, max_size=3), max_size=4),
    st.integers(1, 4_000),
)
def test_whatever_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, content: dict, limit: int) -> None:
    folder = tmp_path_factory.mktemp("shards")
    samples: Samples = [(key, list(members.items())) for key, members in content.items()]
    files, members = write(folder, samples, max_bytes=limit)
    assert [x for f in files for x in members_of(folder / f.shard)] == flat(samples)
    assert [(m.key, m.name, m.size) for m in members] == [(k, n, len(d)) for k, ms in samples for n, d in ms]
    assert all(f.num_bytes % BLOCK == 0 for f in files)


# ---------------------------------------------------------------------------------------------------------- reader


def test_a_reader_finds_samples_members_and_bytes(run: Path) -> None:
    with ShardReader(run) as shards:
        assert list(shards) == [key for key, _ in SAMPLES]
        for key, members in reversed(SAMPLES):
            assert shards.names(key) == [name for name, _ in members]
            assert [shards.read(key, name) for name, _ in members] == [data for _, data in members]
        assert shards.read_json(SAMPLES[4][0], "json") == {"title": "Ünïcödé", "number": 4}


def test_a_closed_reader_holds_no_file_and_can_go_on(run: Path) -> None:
    shards = ShardReader(run)
    before = len(os.listdir("/proc/self/fd"))
    shards.read(SAMPLES[0][0], "json")
    shards.read(SAMPLES[4][0], "json")
    assert len(os.listdir("/proc/self/fd")) == before + 2
    shards.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert shards.read(SAMPLES[0][0], "json")
    shards.close()


def test_what_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with ShardReader(run) as shards:
        with pytest.raises(ConfigError, match="no sample 'nobody-w00' in"):
            shards.read("nobody-w00", "json")
        with pytest.raises(ConfigError, match=r"has no member 'p0007\.jpg'; it has json, questions\.json"):
            shards.read(SAMPLES[0][0], "p0007.jpg")
    with pytest.raises(ConfigError, match=r"has no shards/index\.parquet; finish its build first"):
        ShardReader(tmp_path / "elsewhere")


def test_json_has_the_same_bytes_whatever_the_order_of_its_keys() -> None:
    assert dump_json({"b": 1, "a": "ü"}) == dump_json({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    assert json.loads(dump_json({"a": "x\ud800"})) == {"a": "x?"}
