"""MosaicML streaming and litdata over the pages of `bench_shards.py`, in an interpreter that has them; and the pages.

The module itself needs the standard library only: `bench_shards.py` takes its data from here, so that every way
writes the same bytes. A peer's sample is a page, which is what its reader finds at random.

Reads a request a line, `{"do": ..., "peer": ..., "folder": ...}`, and answers `{"s": seconds}`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

PAGE_BYTES = 290_000
SPREAD_BYTES = 60_000


class Corpus(NamedTuple):
    """Pages of documents, `pages[document][page]`: random bytes, which compress as little as a JPEG does."""

    pages: list[list[bytes]]

    @property
    def num_bytes(self) -> int:
        return sum(len(page) for document in self.pages for page in document)

    @property
    def places(self) -> list[tuple[int, int]]:
        return [(d, p) for d, document in enumerate(self.pages) for p in range(len(document))]


def make_corpus(num_documents: int, num_pages: int) -> Corpus:
    draw = random.Random(0)
    sizes = [
        [PAGE_BYTES + draw.randint(-SPREAD_BYTES, SPREAD_BYTES) for _ in range(num_pages)] for _ in range(num_documents)
    ]
    return Corpus([[draw.randbytes(size) for size in document] for document in sizes])


def key_of(document: int) -> str:
    return f"{document:016x}-w00"


def name_of(page: int) -> str:
    return f"p{page:04d}.jpg"


def sync_files(folder: Path) -> None:
    """fsync every file below a folder, and the folder."""
    for path in (*folder.rglob("*"), folder):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def windows_at_random(num_documents: int) -> list[int]:
    return random.Random(1).sample(range(num_documents), num_documents)


def pages_at_random(corpus: Corpus, count: int) -> list[tuple[int, int]]:
    return random.Random(2).choices(corpus.places, k=count)


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def samples(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for document, pages in enumerate(corpus.pages):
        for page, data in enumerate(pages):
            yield {"key": f"{key_of(document)}.{name_of(page)}", "image": data}


class Mosaic:
    """MDS, uncompressed, without hashes: its defaults but for the size of a file."""

    package = "mosaicml-streaming"

    def __init__(self) -> None:
        import torch

        if torch.version.cuda is None:  # its torchvision declares operators of a build with CUDA, and does not import
            self._library = torch.library.Library("torchvision", "FRAGMENT")
            self._library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self._library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import streaming

        self._streaming = streaming

    def write(self, corpus: Corpus, folder: Path, file_bytes: int) -> None:
        columns = {"key": "str", "image": "bytes"}
        with self._streaming.MDSWriter(out=str(folder), columns=columns, size_limit=file_bytes) as out:
            for sample in samples(corpus):
                out.write(sample)

    def open(self, folder: Path) -> Any:
        return self._streaming.StreamingDataset(local=str(folder), shuffle=False, batch_size=1)


class Litdata:
    """Chunks as `litdata.optimize` makes them, without its worker processes."""

    package = "litdata"

    def __init__(self) -> None:
        import litdata
        from litdata.streaming.cache import Cache

        self._litdata, self._cache = litdata, Cache

    def write(self, corpus: Corpus, folder: Path, file_bytes: int) -> None:
        cache = self._cache(str(folder), chunk_bytes=file_bytes)
        for i, sample in enumerate(samples(corpus)):
            cache[i] = sample
        cache.done()
        cache.merge(1)

    def open(self, folder: Path) -> Any:
        return self._litdata.StreamingDataset(str(folder), shuffle=False)


def read(dataset: Any, corpus: Corpus, how: str, num_draws: int) -> float:
    pages = len(corpus.pages[0])

    def image(document: int, page: int) -> None:
        assert len(dataset[document * pages + page]["image"]) == len(corpus.pages[document][page])

    def in_order() -> None:
        assert sum(len(sample["image"]) for sample in dataset) == corpus.num_bytes

    def windows() -> None:
        for document in windows_at_random(len(corpus.pages)):
            for page in range(pages):
                image(document, page)

    def pages_drawn() -> None:
        for document, page in pages_at_random(corpus, num_draws):
            image(document, page)

    return seconds({"windows in order": in_order, "windows at random": windows, "pages at random": pages_drawn}[how])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no answer
    kinds: dict[str, type[Mosaic] | type[Litdata]] = {"MosaicML streaming": Mosaic, "litdata": Litdata}
    peers: dict[str, Mosaic | Litdata] = {}
    found = {}
    for name, kind in kinds.items():
        try:
            peers[name] = kind()
            found[name] = {"version": version(kind.package)}
        except Exception as e:  # whatever an import raises: the benchmark says why it has no figures
            found[name] = {"error": f"{type(e).__name__}: {e}".splitlines()[0]}

    def answer(value: Any) -> None:
        print(json.dumps(value), file=answers, flush=True)

    answer(found)
    corpus = Corpus([])
    datasets: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "load":
            corpus = make_corpus(request["documents"], request["pages"])
            answer({"bytes": corpus.num_bytes})
            continue
        name, folder = request["peer"], Path(request["folder"])
        if request["do"] == "write":
            shutil.rmtree(folder, ignore_errors=True)
            datasets.pop(name, None)
            os.sync()

            started = time.perf_counter()
            peers[name].write(corpus, folder, request["file_bytes"])
            if request["fsync"]:
                sync_files(folder)
            answer({"s": time.perf_counter() - started})
        else:
            if name not in datasets:
                datasets[name] = peers[name].open(folder)
                read(datasets[name], corpus, "windows in order", 0)
            answer({"s": read(datasets[name], corpus, request["how"], request["draws"])})


if __name__ == "__main__":
    main()
