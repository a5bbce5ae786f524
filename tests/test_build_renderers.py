"""Whole builds with each renderer and each image format."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from fakes import NO_POPPLER, poppler_in_the_way, write_pdf, write_raw_pdf
from PIL import Image
from test_build import by_name, promised_bytes, quick, write_document

from corpus.errors import ConfigError
from corpus.inspection import describe
from corpus.linting import lint_run
from corpus.pipeline import build
from corpus.poppler import poppler_version
from corpus.records import Sample
from corpus.sharding import renderer_version
from corpus.store import read_records
from trainer_plugin.dataset import PlanDataset

MakePdf = Callable[..., Path]

needs_poppler = pytest.mark.skipif(bool(NO_POPPLER), reason=NO_POPPLER)
CHOICES = [
    pytest.param(backend, image_format, marks=needs_poppler if backend == "pdf2image" else ())
    for backend in ("pymupdf", "pdf2image")
    for image_format in ("jpeg", "webp", "png")
]
SUFFIX = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}


def choice(backend: str, image_format: str) -> tuple[str, ...]:
    return f"render.backend={backend}", f"render.format={image_format}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A document, and one whose pages are turned and cropped."""
    folder = tmp_path_factory.mktemp("inputs")
    write_document(folder / "upright.pdf", 1)
    lines = "\n".join(f"Line {i} of the minutes, with some words to ask for" for i in range(20))
    write_pdf(folder / "turned.pdf", 4, lines, rotation=90, size=(700, 500), crop=(20, 30, 480, 650))
    return folder


@pytest.fixture(scope="module")
def asked(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which all is done that does not depend on the renderer."""
    run = tmp_path_factory.mktemp("asked") / "run"
    build([str(inputs)], run, quick(), until="synthesise", quiet=True)
    return run


@pytest.mark.parametrize(("backend", "image_format"), CHOICES)
def test_a_build_in_any_format_keeps_its_promises(
    inputs: Path, asked: Path, tmp_path: Path, backend: str, image_format: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(asked, run)
    result = build([str(inputs)], run, quick(*choice(backend, image_format)), quiet=True)
    assert {stage for stage, n in result.work.items() if n} == {"windows", "shard", "mixture", "plan"}
    assert {e.status for e in by_name(run).values()} == {"kept"}
    lint_run(run)
    samples = read_records(run / "samples.parquet", Sample)
    grids = {f"{s.doc_id}-w{s.window:02d}": s.grids for s in samples}
    shards = sorted(map(str, run.glob("shards/*.tar")))
    read = {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)}
    assert read.keys() == grids.keys() and len(read) == 2
    for key, sample in read.items():
        pages = json.loads(sample["json"])["pages"]
        assert all(page["name"].endswith(SUFFIX[image_format]) for page in pages)
        for page, grid in zip(pages, grids[key], strict=True):
            image = Image.open(io.BytesIO(sample[page["name"]]))
            assert (image.format, image.mode) == (image_format.upper(), "RGB")
            assert image.size == (page["width"], page["height"]) == (grid.width, grid.height)
    assert sum(s["pages"] for shard in shards for s in describe(Path(shard))["samples"].values()) == 10
    loaded = PlanDataset(run)[0][0]
    assert [i.size for i in loaded.images] == [(g.width, g.height) for g in loaded.sample.grids]
    assert json.loads((run / "run.json").read_text())["versions"]["renderer"] == renderer_version(backend)


@needs_poppler
def test_another_renderer_renders_anew_and_does_nothing_else(inputs: Path, asked: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(asked, run)
    build([str(inputs)], run, quick(), quiet=True)
    config = quick(*choice("pdf2image", "webp"))
    assert {stage for stage, n in build([str(inputs)], run, config, quiet=True).work.items() if n} == {"shard"}
    assert not any(build([str(inputs)], run, config, quiet=True).work.values())
    lint_run(run)
    shutil.copytree(asked, tmp_path / "fresh")
    build([str(inputs)], tmp_path / "fresh", config, workers=2, quiet=True)
    assert promised_bytes(tmp_path / "fresh") == promised_bytes(run)


@needs_poppler
def test_an_encrypted_document_is_rendered(make_pdf: MakePdf, tmp_path: Path) -> None:
    text = "\n".join(f"Line {i} of the secret minutes" for i in range(20))
    path = make_pdf("in.pdf", pages=4, text=text, password="s3cret")
    run = tmp_path / "run"
    build([str(path)], run, quick("render.backend=pdf2image", "mixture.tasks=null"), password="s3cret", quiet=True)
    assert by_name(run)["in.pdf"].status == "kept"
    for image in PlanDataset(run)[0][0].images:
        assert image.convert("L").getextrema()[0] < 60
    assert all(b"s3cret" not in f.read_bytes() for f in run.rglob("*") if f.is_file())


@needs_poppler
@pytest.mark.parametrize(("do", "reason"), [("kill -SEGV $$", "render-failed"), ("exec sleep 600", "render-timeout")])
def test_a_page_that_poppler_cannot_render_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: str, reason: str
) -> None:
    document = write_document(tmp_path / "a.pdf", 1, pages=9)
    hit = "|".join(f'*" -f {first} -l {last} "*' for first, last in ((1, 8), (3, 3), (5, 5)))
    script = f'case " $* " in {hit}) {do};; esac\nexec "$REAL" "$@"'
    monkeypatch.setenv("PATH", f"{poppler_in_the_way(tmp_path / 'bin', script)}:{os.environ['PATH']}")
    run = tmp_path / "run"
    config = quick("render.backend=pdf2image", "workers.page_timeout_s=6", "windows.min_tokens=1")
    build([str(document)], run, config, quiet=True)
    lint_run(run)
    entry = by_name(run)["a.pdf"]
    assert entry.status == "kept"
    reasons = {x.first_page: x.reason for x in entry.left_out}
    assert reasons[2].startswith(f"{reason}: page 3: ") and reasons[4].startswith(f"{reason}: page 5: ")


def test_a_missing_poppler_is_said_before_the_build_begins(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    poppler_version.cache_clear()
    with pytest.raises(ConfigError, match="apt-get install poppler-utils"):
        build([str(inputs)], tmp_path / "run", quick("render.backend=pdf2image"), quiet=True)
    assert not (tmp_path / "run").exists()
    build([str(inputs / "upright.pdf")], tmp_path / "run", quick(), until="ingest", quiet=True)


def test_a_page_too_long_for_webp_is_left_out_with_the_reason(tmp_path: Path) -> None:
    lines = " ".join(f"({i} words of the minutes of a council) Tj T*" for i in range(30))
    page = ("/MediaBox[0 0 612 792]", f"BT /F1 12 Tf 14 TL 72 700 Td {lines} ET")
    path = write_raw_pdf(tmp_path / "a.pdf", [page, page, page, ("/MediaBox[0 0 12000 80]", page[1]), page, page, page])
    run = tmp_path / "run"
    build([str(path)], run, quick("render.format=webp", "ocr.engine=none"), quiet=True)
    (left_out,) = [x for x in by_name(run)["a.pdf"].left_out if x.first_page == 3]
    assert left_out.reason.startswith("render-failed: page 4: no webp of it: ")
    result = build([str(path)], run, quick("render.format=png", "ocr.engine=none"), quiet=True)
    assert result.ledger[0].left_out == ()
    lint_run(run)
