"""What must stay out of a corpus: benchmark PDFs, lists of hashes that stand for them, and benchmark questions.

A list is a text file with a line a file or page, which lets the owner of a benchmark share it without its PDFs:

    <SHA-256>  name                       a file, as `sha256sum` prints it
    page <image hashes> <word hashes> name:3     page 3 of a document, as `corpus fingerprint` prints it

Image hashes are separated by commas: of the page and of crops of it. "-" stands for none.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpus.blocks import clean, layer_blocks
from corpus.config import DEFAULT_STORAGE, StorageSettings, WorkerSettings
from corpus.errors import ConfigError, DocumentError
from corpus.fetch import local_copy
from corpus.ingest import expand_inputs
from corpus.page_images import HASH_BITS, crop_hashes
from corpus.sketches import WORD_HASHES, run_hashes, word_hashes, words_of
from corpus.storage import is_url, path_of
from corpus.store import read_table
from corpus.text_layer import SOUND, examine
from corpus.workers import Failure, Task, WorkerPool

VERSION = 1  # raise it when the same PDF should be fingerprinted anew
LIMIT_FACTOR = 10  # times workers.timeout_s, for one PDF whose pages are not counted yet
QUESTION_SUFFIXES = (".json", ".jsonl", ".parquet")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPage:
    """One page of a benchmark document, as far as it can be recognised."""

    document: str  # name to show
    page: int  # counted from 1
    images: tuple[str, ...]  # image hashes of the page and of its crops
    words: str  # of `corpus.sketches.word_hashes`


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkQuestion:
    """One question that must not be asked. `answer` is '' where the file gives none."""

    where: str  # file name and row
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkFile:
    """A fingerprinted PDF; `problem` says why its pages are unknown, and only its bytes are recognised."""

    name: str
    sha256: str
    pages: tuple[BenchmarkPage, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSet:
    """Everything that `clean.decontaminate` names, before its PDFs are opened."""

    pdfs: dict[str, str] = field(default_factory=dict)  # absolute path or URL -> name to show
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 -> name to show
    pages: tuple[BenchmarkPage, ...] = ()
    questions: tuple[BenchmarkQuestion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintJob:
    """A PDF to fingerprint; `uri` is a path or a URL."""

    uri: str
    name: str  # to show
    storage: StorageSettings


def read_benchmarks(entries: Sequence[str], storage: StorageSettings = DEFAULT_STORAGE) -> BenchmarkSet:
    """Sort out what the entries are, and read the lists and question files. All of them may be URLs.

    Raises:
        ConfigError: an entry that does not exist, is of no known kind, or is broken.
        EngineError: a bucket, folder or file behind a URL that cannot be read.
    """
    pdfs: list[str] = []
    digests: dict[str, str] = {}
    pages: list[BenchmarkPage] = []
    questions: list[BenchmarkQuestion] = []
    for entry in entries:
        if SHA256.fullmatch(entry.lower()):
            digests[entry.lower()] = entry.lower()
            continue
        path = path_of(os.path.expanduser(entry), storage)
        suffix = path.suffix.lower()
        listing = suffix == ".txt" or suffix in QUESTION_SUFFIXES
        if not is_url(str(path)) and not path.exists():
            raise ConfigError(f"clean.decontaminate: {entry!r} does not exist; name a folder, a file or a SHA-256")
        if suffix == ".pdf" or not (listing or path.is_file()):
            pdfs += _pdfs_of(path, storage)
        elif suffix == ".txt":
            listed, listed_pages = _read_list(path)
            digests |= listed
            pages += listed_pages
        elif listing:
            questions += _read_questions(path)
        else:
            raise ConfigError(
                f"clean.decontaminate: {entry!r} is neither a PDF, nor a list (.txt), "
                f"nor questions ({', '.join(QUESTION_SUFFIXES)})"
            )
    return BenchmarkSet(pdfs=names_of(pdfs), digests=digests, pages=tuple(pages), questions=tuple(questions))


def _pdfs_of(path: Path, storage: StorageSettings) -> list[str]:
    try:
        return [s.uri for s in expand_inputs([str(path)], storage=storage)]
    except ConfigError as e:
        raise ConfigError(f"clean.decontaminate: {e}") from None


def names_of(pdfs: Iterable[str]) -> dict[str, str]:
    """Paths, each once, with the name to show: the file's, or the whole path where several files share it."""
    paths = list(dict.fromkeys(pdfs))
    shared = Counter(os.path.basename(p) for p in paths)
    return {p: clean(os.path.basename(p) if shared[os.path.basename(p)] == 1 else p) for p in paths}


def _read_list(path: Path) -> tuple[dict[str, str], list[BenchmarkPage]]:
    digests, pages = {}, []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"clean.decontaminate: cannot read the list {path}: {e}") from None
    for number, line in enumerate(lines, start=1):
        head, _, rest = line.strip().partition(" ")
        if not head or head.startswith("#"):
            continue
        page = _listed_page(rest) if head == "page" else None
        if page:
            pages.append(page)
        elif SHA256.fullmatch(head.lower()):
            digests[head.lower()] = clean(rest).removeprefix("*") or f"{path.name}:{number}"
        else:
            raise ConfigError(
                f"clean.decontaminate: {path}, line {number}: neither a SHA-256 nor a page hash; "
                "make such a list with sha256sum or `corpus fingerprint`"
            )
    return digests, pages


def _listed_page(text: str) -> BenchmarkPage | None:
    hashes = rf"(?:-|[0-9a-f]{{{HASH_BITS // 4}}}(?:,[0-9a-f]{{{HASH_BITS // 4}}})*)"
    found = re.fullmatch(rf"({hashes}) (-|(?:[0-9a-f]{{8}}){{1,{WORD_HASHES}}}) (.*):(\d{{1,9}})", text)
    if not found:
        return None
    images, words, name, page = found.groups()
    return BenchmarkPage(
        document=clean(name),
        page=int(page),
        images=() if images == "-" else tuple(images.split(",")),
        words="" if words == "-" else words,
    )


def list_lines(file: BenchmarkFile) -> Iterator[str]:
    """A fingerprinted PDF as lines of a list."""
    yield f"{file.sha256}  {file.name}"
    for p in file.pages:
        yield f"page {','.join(p.images) or '-'} {p.words or '-'} {p.document}:{p.page}"


def _read_questions(path: Path) -> list[BenchmarkQuestion]:
    found = []
    for number, row in enumerate(_rows(path), start=1):
        question = row.get("question") if isinstance(row, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise ConfigError(f"clean.decontaminate: {path}, row {number} has no 'question'")
        answer = row.get("answer")
        found.append(
            BenchmarkQuestion(
                where=f"{path.name}:{number}", question=question, answer="" if answer is None else str(answer)
            )
        )
    return found


def _rows(path: Path) -> list[Any]:
    try:
        if path.suffix.lower() == ".parquet":
            rows: list[Any] = read_table(path).to_pylist()
            return rows
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise ValueError("not a list of objects")
            return rows
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError, pa.ArrowException) as e:
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise ConfigError(f"clean.decontaminate: cannot read questions from {path}: {first}") from None


def fingerprint_pdfs(
    pool: WorkerPool, pdfs: Mapping[str, str], timeout_s: float, storage: StorageSettings
) -> Iterator[tuple[str, BenchmarkFile | Failure]]:
    """Fingerprint PDFs (path -> name to show) in workers; pairs in the order of completion."""
    tasks = [
        Task(uri, fingerprint_pdf, FingerprintJob(uri=uri, name=name, storage=storage), timeout_s)
        for uri, name in pdfs.items()
    ]
    for outcome in pool.run(tasks, lambda _: None):
        yield outcome.key, outcome.value


def fingerprint_lines(uris: Sequence[str], workers: int) -> Iterator[tuple[str, str]]:
    """Lines of a list of these PDFs, and what is wrong with those that cannot be read: (line, '') or ('', problem)."""
    limits = WorkerSettings()
    with WorkerPool(workers, limits.memory_mb, limits.recycle_after) as pool:
        found = dict(fingerprint_pdfs(pool, names_of(uris), LIMIT_FACTOR * limits.timeout_s, DEFAULT_STORAGE))
    for uri in names_of(uris):
        file = found[uri]
        if isinstance(file, Failure):
            yield "", clean(f"{uri}: {file.reason}: {file.detail}")
            continue
        if file.problem:
            yield "", clean(f"{uri}: only its bytes are listed: {file.problem}")
        for line in list_lines(file):
            yield line, ""


def fingerprint_pdf(job: FingerprintJob, progress: Callable[[int], None]) -> BenchmarkFile:
    """Hash one benchmark PDF and each of its pages; runs in a worker, since PDFs may be hostile.

    Raises:
        DocumentError: the file cannot be read at all.
    """
    with local_copy(job.uri, None, job.storage) as copy:
        try:
            pages = tuple(_pages(copy.path, job.name, progress))
        except DocumentError as e:
            detail = e.detail.replace(str(copy.path), job.uri)
            return BenchmarkFile(name=job.name, sha256=copy.sha256, pages=(), problem=f"{e.reason}: {detail}")
        return BenchmarkFile(name=job.name, sha256=copy.sha256, pages=pages)


def _pages(file: Path, name: str, progress: Callable[[int], None]) -> Iterable[BenchmarkPage]:
    from corpus.parse import PageView, read_layout, thumbnail
    from corpus.render import count_pages, open_pdf

    num_pages = count_pages(file)
    with open_pdf(file) as pdf:
        for index in range(num_pages):
            try:
                layout, verdict = examine(read_layout(pdf[index], use_model=False), PageView(pdf[index]))
                words = word_hashes(run_hashes([w for b in layer_blocks(layout) for w in words_of(b.text)]))
                images = crop_hashes(thumbnail(pdf[index]), uneven=not words or verdict != SOUND)
            except Exception:  # PyMuPDF raises what it likes; a page that does not open shows nothing to recognise
                images, words = (), ""
            if images or words:
                yield BenchmarkPage(document=name, page=index + 1, images=images, words=words)
            progress(1)
