"""Shards: plain tars with the same bytes on every machine, and an index that is exact."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Faults

from corpus.config import StorageSettings
from corpus.errors import ConfigError, EngineError
from corpus.shard_index import Member, Shard, ShardFile, ShardIndex, index_schema, index_table
from corpus.shards import BLOCK, BUFFER_BYTES, ShardReader, dump_json, page_name, tar_header, write_shards
from corpus.storage import RemotePath, path_of
from corpus.store import write_table

NEAR = StorageSettings(timeout_s=1, attempts=3, backoff_s=0.01)
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


def write_run(run: Path, samples: Samples = SAMPLES, max_bytes: int = 10**9) -> tuple[list[ShardFile], list[Member]]:
    """Shards and their index."""
    files, members = write(run / "shards", samples, max_bytes)
    write_table(run / "shards" / "index.parquet", index_table(files, members))
    return files, members


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two shards and their index."""
    files, _ = write_run(tmp_path, max_bytes=15_000)
    assert len(files) == 2
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


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 1), ("x", 8**11), ("ü", 1), ("a\0b", 1)])
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


def test_names_as_long_as_ustar_takes(tmp_path: Path) -> None:
    samples: Samples = [("k" * 90, [("p" * 9, b"1"), ("q" * 5 + ".jpg", b"22")]), ("l" * 98, [("m", b"")])]
    write_run(tmp_path, samples)
    assert members_of(tmp_path / "shards" / "p0003-000000.tar") == flat(samples)
    with ShardReader(tmp_path) as shards:
        assert {key: dict(shards.read_window(key)) for key in shards} == {k: dict(m) for k, m in samples}


class Writes:
    """`os.writev` that notes what it is given and takes at most `limit` bytes of it."""

    def __init__(self, limit: int) -> None:
        self._writev, self._limit = os.writev, limit
        self.given: list[tuple[int, int]] = []  # pieces, bytes

    def __call__(self, fd: int, pieces: Sequence[bytes | memoryview]) -> int:
        self.given.append((len(pieces), sum(len(p) for p in pieces)))
        whole = b"".join(pieces)[: self._limit]
        return self._writev(fd, [whole])


@pytest.mark.parametrize("buffer_bytes", [1, 511, 512, 513, 4_096, 10**6])
@pytest.mark.parametrize("taken", [7_000, 10**9])
def test_bytes_do_not_depend_on_the_buffer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer_bytes: int, taken: int
) -> None:
    expected = write(tmp_path / "a", max_bytes=10_000)
    writes = Writes(taken)
    monkeypatch.setattr("os.writev", writes)
    monkeypatch.setattr("corpus.shards.BUFFER_BYTES", buffer_bytes)
    assert write(tmp_path / "b", max_bytes=10_000) == expected
    for file in expected[0]:
        assert (tmp_path / "a" / file.shard).read_bytes() == (tmp_path / "b" / file.shard).read_bytes()
    largest = max(len(data) for _, data in flat(SAMPLES))
    assert max(num_bytes for _, num_bytes in writes.given) < buffer_bytes + max(largest, 2 * BLOCK)
    if buffer_bytes > 10**5 and taken > 10**5:
        assert len(writes.given) == len(expected[0])


def test_many_small_members_are_no_more_pieces_than_a_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = Writes(10**9)
    monkeypatch.setattr("os.writev", writes)
    samples: Samples = [("k", [(f"{i:04d}", b"x") for i in range(1_500)])]
    write(tmp_path, samples)
    assert members_of(tmp_path / "p0003-000000.tar") == flat(samples)
    assert len(writes.given) > 2
    assert max(pieces for pieces, _ in writes.given) <= 1_024


def test_pages_are_written_while_they_are_made(tmp_path: Path) -> None:
    waiting = []

    def pages() -> Iterator[tuple[str, bytes]]:
        for page in range(40):
            yield page_name(page), bytes(300_000)
            (partial,) = tmp_path.iterdir()
            waiting.append((page + 1) * 300_000 - partial.stat().st_size)

    write_shards(tmp_path, "p0003", [("k", pages())], 10**9)
    assert max(waiting) < 2 * BUFFER_BYTES


NAMES = st.text("abcdefgh0123456789-", min_size=1, max_size=20)
PAGES = st.sampled_from([page_name(p, f) for p in (0, 1, 2, 3, 12_345) for f in ("jpeg", "webp", "png")])
MEMBERS = st.dictionaries(st.one_of(NAMES, PAGES), st.binary(max_size=1_200), min_size=1, max_size=6)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(NAMES, MEMBERS, max_size=5), st.integers(1, 4_000), st.integers(1, 9), st.randoms())
def test_whatever_goes_in_comes_out_by_every_way(
    tmp_path_factory: pytest.TempPathFactory, content: dict, limit: int, batch: int, draw: Random
) -> None:
    run = tmp_path_factory.mktemp("run")
    samples: Samples = [(key, list(members.items())) for key, members in content.items()]
    files, members = write_run(run, samples, max_bytes=limit)
    assert [x for f in files for x in members_of(run / "shards" / f.shard)] == flat(samples)
    assert [(m.key, m.name, m.size) for m in members] == [(k, n, len(d)) for k, ms in samples for n, d in ms]
    assert all(f.num_bytes % BLOCK == 0 for f in files)
    tars = [str(run / "shards" / f.shard) for f in files]
    stock = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False) if tars else []
    found = [{k: v for k, v in s.items() if k not in ("__url__", "__local_path__", "__key__")} for s in stock]
    assert found == [dict(ms) for _, ms in samples]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corpus.shard_index.BATCH_ROWS", batch)
        shards = ShardReader(run)
    assert list(shards) == [key for key, _ in samples]
    for key, ms in draw.sample(samples, len(samples)):
        assert shards.names(key) == [name for name, _ in ms]
        assert list(shards.read_window(key).items()) == ms
        assert [shards.read(key, name) for name, _ in ms] == [data for _, data in ms]
        pages = {}
        for page, image_format in itertools.product(range(4), ("png", "webp", "jpeg")):  # the first of SUFFIXES wins
            if page_name(page, image_format) in dict(ms):
                pages[page] = page_name(page, image_format)
        asked = draw.choices(list(pages), k=3) if pages else []
        assert shards.read_pages(key, asked) == [dict(ms)[pages[p]] for p in asked]
        assert [shards.read_page(key, p) for p in asked] == [dict(ms)[pages[p]] for p in asked]
    shards.close()


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


def num_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def everything(shards: ShardReader, key: str) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in shards.read_window(key).items()}


def test_a_window_and_neighbouring_pages_are_one_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def pread(fd: int, size: int, offset: int, pread: Callable[[int, int, int], bytes] = os.pread) -> bytes:
        reads.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr("os.pread", pread)
    key, members = SAMPLES[3]
    content = dict(members)
    with ShardReader(run) as shards:
        assert shards.read_window(key) == content
        assert len(reads) == 1
        assert shards.read_pages(key, [1, 0, 1]) == [content[page_name(p)] for p in (1, 0, 1)]
        assert len(reads) == 2
        assert shards.read_pages(key, []) == []
        assert len(reads) == 2
        with pytest.raises(ConfigError, match=r"has no member 'p0007\.jpg'"):
            shards.read_pages(key, [0, 7])
        assert len(reads) == 2


def test_pages_apart_are_read_apart(tmp_path: Path) -> None:
    content = [(page_name(p), bytes([p]) * 50_000) for p in range(9)]
    write_run(tmp_path, [("k", content)])
    with ShardReader(tmp_path) as shards:
        views = shards.read_pages("k", [8, 2, 3, 7, 0])
        assert views == [content[p][1] for p in (8, 2, 3, 7, 0)]
        held = [len(view.obj) for view in views]  # type: ignore[arg-type]
    assert held[1] == held[2] == held[0] == held[3] < 102_000 and held[4] < 51_000


def test_a_short_read_is_continued(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    monkeypatch.setattr("os.pread", lambda fd, size, offset: pread(fd, min(size, 100), offset))
    with ShardReader(run) as shards:
        assert all(everything(shards, key) == dict(members) for key, members in SAMPLES)


def test_no_more_than_so_many_archives_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.shards.MAX_OPEN", 2)
    files, _ = write_run(tmp_path, max_bytes=1)
    assert len(files) == len(SAMPLES)
    before = num_open()
    with ShardReader(tmp_path) as shards:
        for key, members in (*SAMPLES, *SAMPLES):
            assert everything(shards, key) == dict(members)
            assert num_open() <= before + 2
        assert num_open() == before + 2
    assert num_open() == before


def test_a_reader_that_nobody_holds_closes_its_files(run: Path) -> None:
    before = num_open()
    shards = ShardReader(run)
    everything(shards, SAMPLES[0][0])
    assert num_open() == before + 1
    del shards
    assert num_open() == before


def test_threads_share_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.shards.MAX_OPEN", 1)  # nearly every read takes the place of another's archive
    write_run(tmp_path, max_bytes=1)
    before = num_open()
    with ShardReader(tmp_path) as shards, ThreadPoolExecutor(8) as pool:
        wanted = SAMPLES * 60
        found = list(pool.map(lambda s: (everything(shards, s[0]), shards.read(s[0], "json")), wanted))
    assert found == [(dict(members), dict(members)["json"]) for _, members in wanted]
    assert num_open() == before


def test_a_forked_process_goes_on_reading(run: Path) -> None:
    with ShardReader(run) as shards:
        assert everything(shards, SAMPLES[0][0]) == dict(SAMPLES[0][1])
        child = os.fork()
        if not child:
            ok = all(everything(shards, key) == dict(members) for key, members in SAMPLES)
            shards.close()
            os._exit(0 if ok else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert everything(shards, SAMPLES[4][0]) == dict(SAMPLES[4][1])


def test_a_pickled_reader_opens_the_run_again(run: Path) -> None:
    with ShardReader(run) as shards:
        shards.read(SAMPLES[0][0], "json")
        packed = pickle.dumps(shards)
    assert len(packed) < 1_000
    with pickle.loads(packed) as copy:
        assert everything(copy, SAMPLES[4][0]) == dict(SAMPLES[4][1])


def test_an_archive_that_is_not_the_indexed_one_is_named(tmp_path: Path) -> None:
    files, members = write_run(tmp_path)
    shard, (key, _) = tmp_path / "shards" / files[0].shard, SAMPLES[2]
    within = next(m.offset for m in members if m.key == key) + 5
    whole = shard.read_bytes()
    way_out = re.escape("; copy the run anew, or delete this file and run the same `corpus build` again")
    reads: list[Callable[[ShardReader], object]] = [
        lambda shards: shards.read(key, "json"),
        lambda shards: shards.read_page(key, 0),
        lambda shards: shards.read_pages(key, [0, 1]),
        lambda shards: shards.read_window(key),
    ]
    for read in reads:
        with ShardReader(tmp_path) as shards:
            shard.write_bytes(whole[:-BLOCK])
            with pytest.raises(EngineError, match=f"{shard.name} is damaged or was replaced: it has .*{way_out}"):
                read(shards)
            shard.write_bytes(whole)
            read(shards)
            shard.write_bytes(whole[:within])  # cut while it is open
            with pytest.raises(EngineError, match=f"{shard.name} is .*: it ends within {key}.*{way_out}"):
                read(shards)
            shard.write_bytes(whole[:BLOCK] + whole[:-BLOCK])  # the same size, other places
            with pytest.raises(EngineError, match=f"{shard.name} is .*: it does not hold {key}.*{way_out}"):
                read(shards)
            shards.close()
            shard.unlink()
            with pytest.raises(EngineError, match=f"{shard.name} is .*: No such file or directory{way_out}"):
                read(shards)
            shard.write_bytes(whole)


def test_a_member_of_another_size_is_not_the_indexed_one(tmp_path: Path) -> None:
    files, _ = write_run(tmp_path, [("k", [("json", bytes(100))])])
    with ShardReader(tmp_path) as shards:
        write(tmp_path / "shards", [("k", [("json", bytes(99))])])
        with pytest.raises(EngineError, match=f"{files[0].shard} is .*: it does not hold k.json"):
            shards.read("k", "json")


# ----------------------------------------------------------------------------------------------------------- index


def index_of(folder: Path, members: Sequence[Member]) -> ShardIndex:
    shards = sorted({m.shard for m in members})
    files = [ShardFile(shard=s, num_bytes=len(s), xxh128="") for s in shards]
    write_table(folder / "index.parquet", index_table(files, members))
    return ShardIndex(folder / "index.parquet")


def member(key: str, name: str, offset: int, size: int = 1, shard: str = "s.tar") -> Member:
    return Member(shard=shard, key=key, name=name, offset=offset, size=size)


def rows_of(index: ShardIndex) -> list[Member]:
    return [
        member(key, name, offset, size, index.shard(sample).name)
        for key, sample in ((key, index.sample(key)) for key in index)
        for name, offset, size in index.members(sample)
    ]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_an_index_in_any_order_with_any_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr("corpus.shard_index.BATCH_ROWS", batch)
    members = [
        member("b", "json", 512),
        member("b", "p0000.jpg", 2**33, 2**32),  # past 32 bits, within a sample too
        member("b", "p0001.jpg", 2**35, 2**31),
        member("a", "json", 2**40, 0),
        member("c", "p0001.jpg", 512, 7, shard="t.tar"),
        member("aa", "x", 2_048, 7, shard="t.tar"),
        member("aa", "y", 1_024, 7, shard="t.tar"),
    ]
    index = index_of(tmp_path, members)
    assert len(index) == 4 and list(index) == ["b", "a", "c", "aa"]
    assert rows_of(index) == members
    for key in ("", "ab", "b ", "d", "b\0", "ü", "\ud800", "k" * 300):
        with pytest.raises(KeyError):
            index.sample(key)
    sample = index.sample("b")
    assert index.shard(sample) == Shard(name="s.tar", num_bytes=len("s.tar"))
    assert [index.member(sample, n) for n in ("p0001.jpg", "x", "z")] == [(2**35, 2**31), None, None]


def test_an_index_of_more_names_than_16_bits_tell(tmp_path: Path) -> None:
    members = [member(f"{i // 100:04d}", f"{i}", 512 * i) for i in range(70_000)]
    assert rows_of(index_of(tmp_path, members)) == members


def test_an_empty_index(tmp_path: Path) -> None:
    index = index_of(tmp_path, [])
    assert list(index) == [] and len(index) == 0
    with pytest.raises(KeyError):
        index.sample("a")


def test_an_index_takes_few_bytes_a_member(tmp_path: Path) -> None:
    members = [member(f"{i // 41:016x}-w00", page_name(i % 41), 300_000 * i, 290_000) for i in range(41 * 500)]
    index = index_of(tmp_path, members)
    assert index.num_bytes < 12 * len(members)


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"index\.parquet is damaged: sample a stands in it in two places; run"):
        index_of(tmp_path, [member("a", "x", 512), member("b", "x", 1_536), member("a", "y", 2_560)])
    (tmp_path / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(EngineError, match=r"index\.parquet is damaged: .*; run the same `corpus build` again"):
        ShardIndex(tmp_path / "index.parquet")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(EngineError, match=r"index\.parquet is damaged: "):
        ShardIndex(tmp_path / "index.parquet")
    row = {"shard": None, "key": "a", "name": "x", "offset": 512, "size": 1, "shard_bytes": 1, "shard_xxh128": ""}
    write_table(tmp_path / "index.parquet", pa.Table.from_pylist([row], schema=index_schema()))
    with pytest.raises(EngineError, match=r"index\.parquet is damaged: a name is missing"):
        ShardIndex(tmp_path / "index.parquet")


# ---------------------------------------------------------------------------------------------------------- remote


@pytest.fixture
def far(bucket: str, run: Path) -> ShardReader:
    """A reader of the same run in a bucket."""
    for file in (run / "shards").iterdir():
        RemotePath(f"{bucket}/run/shards/{file.name}", NEAR).write_bytes(file.read_bytes())
    return ShardReader(path_of(f"{bucket}/run", NEAR))


def test_a_bucket_is_read_by_ranges(far: ShardReader, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    key, members = SAMPLES[4]
    content = dict(members)
    for read, expected, requests in (
        (lambda: far.read_window(key), content, 1),
        (lambda: far.read_pages(key, [1, 0]), [content[page_name(1)], content[page_name(0)]], 1),
        (lambda: far.read_page(key, 0), content[page_name(0)], 1),
        (lambda: far.read(key, "text.json"), b"", 1),
    ):
        faults.reset()
        assert read() == expected
        assert [asked.method for asked in faults.seen] == ["GET"] * requests
    monkeypatch.setattr("corpus.shards.BLOCK_BYTES", 2_000)
    faults.reset()
    assert pickle.loads(pickle.dumps(far)).read_window(key) == content
    assert len([asked for asked in faults.seen if asked.path.endswith(".tar")]) > 1
    far.close()


def test_a_cut_connection_is_tried_again(far: ShardReader, faults: Faults) -> None:
    faults.once_each("cut", "short", path=r"\.tar")
    assert all(everything(far, key) == dict(members) for key, members in SAMPLES)
    assert {"cut", "short"} <= {asked.fault for asked in faults.seen}


def test_a_remote_archive_that_is_not_the_indexed_one_is_named(far: ShardReader, bucket: str) -> None:
    shard, key = RemotePath(f"{bucket}/run/shards/p0003-000000.tar", NEAR), SAMPLES[2][0]
    whole = shard.read_bytes()
    within = whole.index(f"{key}.json".encode()) + BLOCK + 5
    for broken, says in (
        (whole[:BLOCK] + whole[:-BLOCK], f"{shard} is damaged or was replaced: it does not hold {key}.json where"),
        (whole[:within], f"{key}.*: cannot read {shard}"),
    ):
        shard.write_bytes(broken)
        with pytest.raises(EngineError, match=says):
            far.read_window(key)
    shard.unlink()
    with pytest.raises(EngineError, match=f"{shard} is damaged or was replaced: there is no such file; copy"):
        far.read_window(key)
