"""Writing and reading shards beside raw files, tarfile, webdataset, MosaicML streaming and litdata, in one run.

    python benchmarks/bench_shards.py [--documents 60] [--pages 38] [--rounds 5] [--file-mb 128] [--folder FOLDER]
        [--peers-python PYTHON] [--out FILE]

The data are random bytes in pieces of 230 to 350 KB, as page images have, held in memory. Every way is run in turn,
round after round, each round from another one on, so that neither a machine whose speed drifts nor what another way
left behind decides the result; the figures are medians of the rounds, and ratios are taken within a round. A way that
could not run is named, with the reason.

Writing, with fsync of every file (and its folder) and without, in files of `--file-mb`:

- `raw`: the very bytes of our shards, joined beforehand, by `os.write` of 8 MiB at a time.
- `ours`: `write_shards` and the index: headers, checksum, atomic files, Parquet.
- `webdataset`: `ShardWriter`, a document a sample, its defaults. `tarfile`: `addfile`, ustar.
- `MosaicML streaming`, `litdata`: see `shard_peers.py`; a page a sample.

Reading, from the page cache: windows (documents) in order and at random, in MB/s, and pages at random, in
microseconds. `raw` reads our shards, 8 MiB at a time in order, else by `pread` at places known beforehand.
webdataset's stock reader reads in order alone. Opening is not counted: of ours and of the peers the index, of
`tarfile` the list of members. Checksums are timed over one document. With `--members`, opening our index of so many
members is measured too.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest.mock
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import webdataset
import xxhash
from shard_peers import (
    Corpus,
    key_of,
    make_corpus,
    name_of,
    pages_at_random,
    seconds,
    sync_files,
    windows_at_random,
)

from corpus.rundir import available_cores
from corpus.shard_index import ShardIndex, index_schema, index_table
from corpus.shards import ShardReader, write_shards
from corpus.store import write_table

RAW_BYTES = 8 << 20
READS = ("windows in order", "windows at random", "pages at random")
PEERS = ("MosaicML streaming", "litdata")


@contextlib.contextmanager
def without_fsync() -> Iterator[None]:
    with unittest.mock.patch("os.fsync"):
        yield


class Way:
    """What writes a corpus into a folder that is not there, and reads it."""

    def __init__(self, corpus: Corpus, file_bytes: int) -> None:
        self.corpus, self.file_bytes = corpus, file_bytes


class Ours(Way):
    """This project's writer, index and reader."""

    def write(self, folder: Path) -> None:
        corpus = self.corpus
        samples = (
            (key_of(d), ((name_of(p), page) for p, page in enumerate(document)))
            for d, document in enumerate(corpus.pages)
        )
        files, members = write_shards(folder / "shards", "p0000", samples, self.file_bytes)
        write_table(folder / "shards" / "index.parquet", index_table(files, members))

    def open(self, folder: Path) -> dict[str, Callable[[int], None]]:
        corpus = self.corpus
        shards = ShardReader(folder)

        def window(document: int) -> None:
            assert len(shards.read_window(key_of(document))) == len(corpus.pages[document])

        def in_order(_: int) -> None:
            for document in range(len(corpus.pages)):
                window(document)

        def at_random(_: int) -> None:
            for document in windows_at_random(len(corpus.pages)):
                window(document)

        def pages(draws: int) -> None:
            for document, page in pages_at_random(corpus, draws):
                shards.read_page(key_of(document), page)

        return dict(zip(READS, (in_order, at_random, pages), strict=True))


class Raw(Way):
    """The bytes of our shards as plain files."""

    def __init__(self, corpus: Corpus, file_bytes: int, shards: Path) -> None:
        """`shards`: a folder that `Ours` wrote; its bytes are kept in memory."""
        super().__init__(corpus, file_bytes)
        self._files = {
            f.name: [data[i : i + RAW_BYTES] for i in range(0, len(data), RAW_BYTES)]
            for f in sorted((shards / "shards").glob("*.tar"))
            for data in (f.read_bytes(),)
        }
        index = ShardIndex(shards / "shards" / "index.parquet")
        self._places = {}
        for document, key in enumerate(index):
            sample = index.sample(key)
            members = [(offset, size) for _, offset, size in index.members(sample)]
            self._places[document] = (index.shard(sample).name, members)

    def write(self, folder: Path) -> None:
        folder.mkdir()
        for name, pieces in self._files.items():
            fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            for piece in pieces:
                assert os.write(fd, piece) == len(piece)
            os.fsync(fd)
            os.close(fd)
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def open(self, folder: Path) -> dict[str, Callable[[int], None]]:
        corpus = self.corpus
        fds = {name: os.open(folder / name, os.O_RDONLY) for name in self._files}

        def in_order(_: int) -> None:
            for fd in fds.values():
                os.lseek(fd, 0, os.SEEK_SET)
                while os.read(fd, RAW_BYTES):
                    pass

        def at_random(_: int) -> None:
            for document in windows_at_random(len(corpus.pages)):
                name, members = self._places[document]
                begin, end = members[0][0], sum(members[-1])
                assert len(os.pread(fds[name], end - begin, begin)) == end - begin

        def pages(draws: int) -> None:
            for document, page in pages_at_random(corpus, draws):
                name, members = self._places[document]
                offset, size = members[page]
                assert len(os.pread(fds[name], size, offset)) == size

        return dict(zip(READS, (in_order, at_random, pages), strict=True))


class Webdataset(Way):
    """The stock writer and reader."""

    def write(self, folder: Path) -> None:
        folder.mkdir()
        pattern = str(folder / "shard-%06d.tar")
        with webdataset.ShardWriter(pattern, maxcount=10**9, maxsize=self.file_bytes, verbose=0) as out:
            for d, document in enumerate(self.corpus.pages):
                out.write({"__key__": key_of(d), **{name_of(p): page for p, page in enumerate(document)}})
        sync_files(folder)

    def open(self, folder: Path) -> dict[str, Callable[[int], None]]:
        corpus = self.corpus
        files = sorted(map(str, folder.glob("*.tar")))

        def in_order(_: int) -> None:
            found = sum(1 for _ in webdataset.WebDataset(files, shardshuffle=False))
            assert found == len(corpus.pages)

        return {READS[0]: in_order}


class Tarfile(Way):
    """The standard library."""

    def write(self, folder: Path) -> None:
        folder.mkdir()
        remaining = iter(enumerate(self.corpus.pages))
        entry = next(remaining, None)
        number = 0
        while entry is not None:
            with tarfile.open(folder / f"shard-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as out:
                while entry is not None and out.offset < self.file_bytes:
                    document, pages = entry
                    for page, data in enumerate(pages):
                        info = tarfile.TarInfo(f"{key_of(document)}.{name_of(page)}")
                        info.size = len(data)
                        out.addfile(info, io.BytesIO(data))
                    entry = next(remaining, None)
            number += 1
        sync_files(folder)

    def open(self, folder: Path) -> dict[str, Callable[[int], None]]:
        corpus = self.corpus
        archives = [tarfile.open(f) for f in sorted(folder.glob("*.tar"))]  # noqa: SIM115  # read until the end
        places = {m.name: (archive, m) for archive in archives for m in archive.getmembers()}

        def member(document: int, page: int) -> None:
            archive, info = places[f"{key_of(document)}.{name_of(page)}"]
            file = archive.extractfile(info)
            assert file is not None and len(file.read()) == len(corpus.pages[document][page])

        def windows(documents: list[int]) -> None:
            for document in documents:
                for page in range(len(corpus.pages[document])):
                    member(document, page)

        def pages(draws: int) -> None:
            for document, page in pages_at_random(corpus, draws):
                member(document, page)

        in_order, at_random = list(range(len(corpus.pages))), windows_at_random(len(corpus.pages))
        return dict(zip(READS, (lambda _: windows(in_order), lambda _: windows(at_random), pages), strict=True))


class Peers:
    """MosaicML streaming and litdata in an interpreter of their own."""

    def __init__(self, python: str, documents: int, pages: int) -> None:
        script = Path(__file__).with_name("shard_peers.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.found = self._answer()
        self.ask(do="load", documents=documents, pages=pages)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the peers' interpreter ended; run benchmarks/shard_peers.py in it to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def opening(members: int) -> dict[str, float]:
    """Seconds and bytes of an index of windows of 41 members."""
    windows = members // 41
    names = ["json", "questions.json", "text.json", *(name_of(p) for p in range(38))]
    keys = [f"{int(i * 2**64 / windows):016x}-w00" for i in range(windows)]
    shard = np.repeat(np.arange(windows) // 85, 41)  # a gigabyte each
    size = np.random.default_rng(0).integers(230_000, 350_000, windows * 41)
    ends = np.cumsum((size + 511) // 512 * 512 + 512)
    ends -= np.concatenate([[0], ends])[np.searchsorted(shard, shard)]
    columns = {
        "shard": pa.array([f"p{s // 8:04d}-{s % 8:06d}.tar" for s in range(shard[-1] + 1)]).take(pa.array(shard)),
        "key": pa.array(keys).take(pa.array(np.repeat(np.arange(windows), 41))),
        "name": pa.array(names * windows),
        "offset": ends - (size + 511) // 512 * 512,
        "size": size,
        "shard_bytes": np.full(len(shard), 10**9),
        "shard_xxh128": ["0" * 32] * len(shard),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "index.parquet"
        write_table(file, pa.table(columns, schema=index_schema()))
        started, cpu = time.perf_counter(), time.process_time()
        index = ShardIndex(file)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        file_mb = file.stat().st_size / 1e6
    return {
        "members": len(shard),
        "s": round(took, 3),
        "cpu_s": round(cpu, 3),
        "memory_mb": round(index.num_bytes / 1e6, 1),
        "file_mb": round(file_mb, 1),
    }


def checksums(corpus: Corpus, rounds: int) -> dict[str, float]:
    """MB/s over one document in memory, by algorithm."""
    algorithms: dict[str, Callable[[bytes], Any]] = {
        "xxh3_128": xxhash.xxh3_128_digest,
        "crc32": zlib.crc32,
        "sha256": lambda data: hashlib.sha256(data).digest(),
    }
    document = b"".join(corpus.pages[0])
    return {
        name: round(len(document) / 1e6 / statistics.median(seconds(lambda do=do: do(document)) for _ in range(rounds)))
        for name, do in algorithms.items()
    }


def rotated(names: list[str], by: int) -> list[str]:
    """Each round begins with another way, so that none always comes after the same one."""
    return [*names[by % len(names) :], *names[: by % len(names)]]


def summary(rounds: dict[str, list[float]], reference: str) -> dict[str, Any]:
    """Median, and median, least and greatest ratio to the reference of the same round."""
    told = {}
    for name, values in rounds.items():
        ratios = [value / of for value, of in zip(values, rounds[reference], strict=True)]
        told[name] = {
            "median": round(statistics.median(values), 1),
            f"of_{reference}": [round(x, 3) for x in (statistics.median(ratios), min(ratios), max(ratios))],
        }
    return told


def measure(args: argparse.Namespace, folder: Path, peers: Peers | None) -> dict[str, Any]:
    corpus = make_corpus(args.documents, args.pages)
    megabytes, file_bytes = corpus.num_bytes / 1e6, args.file_mb * 1_000_000
    ours = Ours(corpus, file_bytes)
    ours.write(folder / "first")
    ways = {
        "raw": Raw(corpus, file_bytes, folder / "first"),
        "ours": ours,
        "tarfile": Tarfile(corpus, file_bytes),
        "webdataset": Webdataset(corpus, file_bytes),
    }
    shutil.rmtree(folder / "first")
    running = [*ways, *(name for name, about in (peers.found if peers else {}).items() if "version" in about)]

    def write(name: str, fsync: bool) -> float:
        target = folder / name
        if name not in ways:
            assert peers
            request = {"do": "write", "peer": name, "folder": str(target), "file_bytes": file_bytes, "fsync": fsync}
            return float(peers.ask(**request)["s"])
        shutil.rmtree(target, ignore_errors=True)
        os.sync()
        with contextlib.nullcontext() if fsync else without_fsync():
            return seconds(lambda: ways[name].write(target))

    writing: dict[bool, dict[str, list[float]]] = {fsync: {n: [] for n in running} for fsync in (True, False)}
    for round_ in range(args.rounds + 1):
        for fsync in (True, False):
            for name in rotated(running, round_):
                speed = megabytes / write(name, fsync)
                if round_:  # the first is to warm up
                    writing[fsync][name].append(speed)

    opened = {name: way.open(folder / name) for name, way in ways.items()}
    reading: dict[str, dict[str, list[float]]] = {}
    for how in READS:
        able = [n for n in running if n not in opened or how in opened[n]]
        reading[how] = {n: [] for n in able}
        for round_ in range(args.rounds + 1):
            for name in rotated(able, round_):
                if name in opened:
                    took = seconds(lambda do=opened[name][how]: do(args.draws))
                else:
                    assert peers
                    request = {
                        "do": "read",
                        "peer": name,
                        "folder": str(folder / name),
                        "how": how,
                        "draws": args.draws,
                    }
                    took = float(peers.ask(**request)["s"])
                if round_:
                    reading[how][name].append(took / args.draws * 1e6 if how == READS[2] else megabytes / took)
    return {
        "write_mb_per_s": {
            "with fsync": summary(writing[True], "raw"),
            "without": summary(writing[False], "raw"),
        },
        "read_mb_per_s": {how: summary(reading[how], "webdataset" if how == READS[0] else "raw") for how in READS[:2]},
        "random_page_us": summary(reading[READS[2]], "raw"),
        "checksum_mb_per_s": checksums(corpus, 2 * args.rounds + 1),
        "data": {
            "documents": args.documents,
            "pages_of_each": args.pages,
            "mb": round(megabytes, 1),
            "file_mb": args.file_mb,
        },
    }


def show(result: dict[str, Any]) -> None:
    tables = {f"write, {k}, MB/s": v for k, v in result["write_mb_per_s"].items()}
    tables |= {f"read {k}, MB/s": v for k, v in result["read_mb_per_s"].items()}
    tables["pages at random, us"] = result["random_page_us"]
    for title, table in tables.items():
        print(title)
        for name, about in table.items():
            (reference,) = (k for k in about if k != "median")
            ratio, least, most = about[reference]
            of = f"{ratio:.2f} ({least:.2f}-{most:.2f})"
            print(f"  {name:20} {about['median']:10.1f}  {reference.replace('_', ' ')} {of}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--pages", type=int, default=38, help="of each document")
    parser.add_argument("--rounds", type=int, default=6, help="besides one to warm up")
    parser.add_argument("--draws", type=int, default=2_000, help="random pages a round")
    parser.add_argument("--file-mb", type=int, default=128, help="size of a shard, of every way")
    parser.add_argument("--folder", type=Path, help="where to write; by default the system's temporary folder")
    parser.add_argument(
        "--members", type=int, action="append", default=[], help="also open an index of so many members"
    )
    parser.add_argument("--peers-python", help="an interpreter that has mosaicml-streaming and litdata")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    peers = Peers(args.peers_python, args.documents, args.pages) if args.peers_python else None
    found = peers.found if peers else {n: {"error": "--peers-python was not given"} for n in PEERS}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        result = measure(args, Path(folder), peers)
    if peers:
        peers.close()
    result["open_index"] = [opening(members) for members in args.members]
    result["not_run"] = {name: about["error"] for name, about in found.items() if "error" in about}
    result["rounds"] = args.rounds
    result["versions"] = {
        "python": platform.python_version(),
        **{p: importlib.metadata.version(p) for p in ("webdataset", "pyarrow", "numpy", "xxhash")},
        **{name: about["version"] for name, about in found.items() if "version" in about},
    }
    result["machine"] = f"{platform.machine()}, {available_cores()} cores"
    show(result)
    for name, reason in result["not_run"].items():
        print(f"not run: {name}: {reason}", file=sys.stderr)
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
