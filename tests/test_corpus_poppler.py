"""Poppler as renderer: runs of pages, and what happens to its processes when something goes wrong."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pdf2image
import pytest
from fakes import NO_POPPLER, poppler_in_the_way, render_a_page, write_raw_pdf
from PIL import Image

from corpus.errors import ConfigError, DocumentError
from corpus.poppler import MAX_RUN_PAGES, Limits, Wanted, poppler_version, render_with_poppler
from corpus.records import PageGrid
from corpus.render import open_pdf, path_without_password
from corpus.workers import Task, WorkerPool

MakePdf = Callable[..., Path]

pytestmark = pytest.mark.skipif(bool(NO_POPPLER), reason=NO_POPPLER)

LIMITS = Limits(timeout_s=60, memory_mb=2_048)
GRID = PageGrid(height=392, width=308)
COUNT = 'echo "$@" >> $HERE/calls; exec "$REAL" "$@"'


@pytest.fixture
def in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`in_the_way(script)` puts a `pdftoppm` of our own before the real one; a second argument names another tool."""

    def put(script: str, tool: str = "pdftoppm") -> Path:
        folder = poppler_in_the_way(tmp_path / "bin", script, tool)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    return put


def wanted(*grids: PageGrid, first: int = 0) -> list[Wanted]:
    return [Wanted(index=i, width=612, height=792, user_unit=1, grid=grid) for i, grid in enumerate(grids, start=first)]


def rendered(path: Path, pages: list[Wanted], num_pages: int, limits: Limits = LIMITS) -> list[Any]:
    return list(render_with_poppler(str(path), num_pages, pages, limits))


def runs(folder: Path) -> list[str]:
    """How the renderer called `pdftoppm`, but for asking its version."""
    return [line for line in (folder / "calls").read_text().splitlines() if line != "-v"]


def covers(page: int, do: str) -> str:
    """A script that does something when a page is among those asked for, and else what Poppler does."""
    return (
        'f=0; l=0; p=""; for a in "$@"; do [ "$p" = -f ] && f=$a; [ "$p" = -l ] && l=$a; p=$a; done\n'
        f'if [ $f -le {page} ] && [ $l -ge {page} ]; then {do}; fi; exec "$REAL" "$@"'
    )


def gone(pid: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


# ---------------------------------------------------------------------------------------------------- runs of pages


def test_pages_of_one_size_share_a_process(make_pdf: MakePdf, in_the_way: Callable[[str], Path]) -> None:
    path = make_pdf(pages=20)
    folder = in_the_way(COUNT)
    images = rendered(path, wanted(*[GRID] * 20), 20)
    assert [i.size for i in images] == [(308, 392)] * 20
    assert len(runs(folder)) == -(-20 // MAX_RUN_PAGES)


def test_large_pages_are_few_at_a_time(make_pdf: MakePdf, in_the_way: Callable[[str], Path]) -> None:
    path = make_pdf(pages=5)
    folder = in_the_way(COUNT)
    grid = PageGrid(height=2_800, width=2_800)
    assert len(rendered(path, wanted(*[grid] * 5), 5)) == 5
    assert len(runs(folder)) == 3  # of MAX_RUN_PIXELS, two fit


def test_pages_of_other_sizes_keep_their_order(make_pdf: MakePdf) -> None:
    other = PageGrid(height=560, width=420)
    grids = [GRID, GRID, other, GRID, other, other]
    path = make_pdf(text=["I" * (3 * i + 3) for i in range(7)])
    together = rendered(path, wanted(*grids, first=1), 7)
    assert [i.size for i in together] == [(g.width, g.height) for g in grids]
    alone = [rendered(path, [page], 7)[0] for page in wanted(*grids, first=1)]
    assert [i.tobytes() for i in together] == [i.tobytes() for i in alone]
    dark = [(np.asarray(i.convert("L")) < 128).mean() for i in alone]
    assert dark == sorted(dark)


def test_the_pixels_are_those_of_pdf2image(make_pdf: MakePdf) -> None:
    path = make_pdf(pages=2)
    (ours,) = rendered(path, wanted(GRID, first=1), 2)
    (theirs,) = pdf2image.convert_from_path(path, first_page=2, last_page=2, size=(308, 392), use_cropbox=True)
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    "name", ["-f 9.pdf", "line\nbreak.pdf", "caf\udce9.pdf", "$(touch owned).pdf", "x" * 250 + ".pdf"]
)
def test_a_strange_name_is_a_name(
    make_pdf: MakePdf, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_pdf("a.pdf", pages=1).rename(tmp_path / name)
    assert isinstance(rendered(path, wanted(GRID), 1)[0], Image.Image)
    assert [p.name for p in tmp_path.iterdir()] == [name]


# ------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("do", "reason"),
    [("kill -SEGV $$", "render-failed"), ("exit 1", "render-failed"), ("exec sleep 600", "render-timeout")],
)
def test_a_fault_is_the_fault_of_its_page(
    make_pdf: MakePdf, in_the_way: Callable[[str], Path], do: str, reason: str
) -> None:
    path = make_pdf(pages=5)
    in_the_way(covers(3, do))
    started = time.monotonic()
    limits = Limits(timeout_s=3, memory_mb=2_048)
    images = rendered(path, wanted(*[GRID] * 5), 5, limits)
    assert [isinstance(i, Image.Image) for i in images] == [True, True, False, True, True]
    assert images[2].reason == reason
    assert images[2].detail.startswith("page 3: Poppler ")
    assert time.monotonic() - started < 60


def kill_at_first(times: int, say: str = "") -> str:
    """What a script does when it is killed from outside the first so many times."""
    return f"echo x >> $HERE/kills; if [ $(wc -l < $HERE/kills) -le {times} ]; then {say} kill -KILL $$; sleep 60; fi"


HALF_AN_IMAGE = 'printf "P6\\n308 392\\n255\\nxyz";'


@pytest.mark.parametrize(("tool", "say"), [("pdftoppm", HALF_AN_IMAGE), ("pdfinfo", 'echo "Pages: 5";')])
@pytest.mark.usefixtures("asked_anew")
def test_kills_from_outside_are_no_fault_of_the_page(
    make_pdf: MakePdf, in_the_way: Callable[..., Path], tool: str, say: str
) -> None:
    path, version = make_pdf(pages=5), poppler_version()
    whole = [image.tobytes() for image in rendered(path, wanted(*[GRID] * 5), 5)]
    folder = in_the_way(f'{kill_at_first(6, say)}; exec "$REAL" "$@"', tool)
    assert [image.tobytes() for image in rendered(path, wanted(*[GRID] * 5), 5)] == whole
    assert len((folder / "kills").read_text().splitlines()) > 6
    (folder / "kills").unlink()
    poppler_version.cache_clear()
    assert poppler_version() == version
    assert len((folder / "kills").read_text().splitlines()) == 7


def test_who_is_killed_without_end_is_given_up(
    make_pdf: MakePdf, in_the_way: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.kills.OUTSIDE_KILLS", 3)
    in_the_way(covers(1, "kill -TERM $$; sleep 60"))
    (fault,) = rendered(make_pdf(pages=1), wanted(GRID), 1)
    assert str(fault) == "render-failed: page 1: Poppler was killed by SIGTERM 3 times, from outside"


def test_a_file_that_poppler_does_not_open_is_the_documents_fault(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\nnothing else")
    with pytest.raises(DocumentError, match="render-failed: Poppler does not open it"):
        rendered(tmp_path / "a.pdf", wanted(GRID), 1)


def test_other_pages_than_pymupdf_counts_are_the_documents_fault(make_pdf: MakePdf) -> None:
    with pytest.raises(DocumentError, match=r"Poppler counts 3 pages, PyMuPDF 4; use render\.backend=pymupdf"):
        rendered(make_pdf(pages=3), wanted(GRID), 4)


def test_memory_has_a_limit(make_pdf: MakePdf) -> None:
    with pytest.raises(DocumentError, match="render-failed"):
        rendered(make_pdf(), wanted(GRID), 3, Limits(timeout_s=60, memory_mb=4))


def test_the_process_ends_when_the_worker_is_killed(
    make_pdf: MakePdf, in_the_way: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = in_the_way(covers(1, "echo $$ > $HERE/pid; exec sleep 600"))
    task = Task("hang", render_a_page, str(make_pdf(pages=1)), timeout_s=3)
    with WorkerPool(1, memory_mb=4_096) as pool:
        (outcome,) = pool.run([task], lambda _: None)
    assert outcome.value.reason == "timeout"
    assert gone(int((folder / "pid").read_text()))


def test_pdf2image_is_left_as_it_was(make_pdf: MakePdf) -> None:
    rendered(make_pdf(pages=1), wanted(GRID), 1)
    assert pdf2image.pdf2image.Popen is subprocess.Popen


# --------------------------------------------------------------------------------------------------------- passwords


def test_a_password_is_not_among_the_arguments(make_pdf: MakePdf, in_the_way: Callable[[str], Path]) -> None:
    path = make_pdf(pages=2, password="s3cret")
    folder = in_the_way(COUNT)
    with open_pdf(path, "s3cret") as pdf, path_without_password(pdf, str(path), "s3cret") as readable:
        images = list(render_with_poppler(readable, 2, wanted(GRID, GRID), LIMITS))
    assert all(isinstance(i, Image.Image) and i.convert("L").getextrema()[0] < 160 for i in images)
    assert runs(folder) and not any("s3cret" in run for run in runs(folder))
    assert not os.path.exists(readable)
    with pytest.raises(DocumentError, match="Incorrect password"):
        rendered(path, wanted(GRID), 2)


@pytest.mark.parametrize("password", [None, "s3cret"])
def test_an_open_document_is_read_where_it_lies(make_pdf: MakePdf, password: str | None) -> None:
    path = make_pdf(pages=1)
    with open_pdf(path, password) as pdf, path_without_password(pdf, str(path), password) as readable:
        assert readable == str(path)


# ------------------------------------------------------------------------------------------------- what has to be there


@pytest.fixture
def asked_anew() -> Iterator[None]:
    poppler_version.cache_clear()
    yield
    poppler_version.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_the_version_is_popplers() -> None:
    said = subprocess.run(["pdftoppm", "-v"], capture_output=True, text=True).stderr.split()
    assert poppler_version() == f"poppler {said[2]}, pdf2image {importlib.metadata.version('pdf2image')}"


@pytest.mark.usefixtures("asked_anew")
def test_a_missing_poppler_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"Poppler's pdftoppm does not run: .*apt-get install poppler-utils"):
        poppler_version()


@pytest.mark.usefixtures("asked_anew")
def test_a_missing_pdf2image_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"pdf2image is not installed: pip install 'longdoc\[pdf2image\]'"):
        poppler_version()


@pytest.mark.usefixtures("asked_anew")
def test_two_versions_of_poppler_are_refused(in_the_way: Callable[[str], Path]) -> None:
    in_the_way('echo "pdftoppm version 1.2.3" >&2')
    with pytest.raises(ConfigError, match=r"pdftoppm 1\.2\.3 and pdfinfo"):
        poppler_version()


def test_a_page_that_both_see_as_one_is_compared_in_its_unit(tmp_path: Path) -> None:
    path = write_raw_pdf(tmp_path / "a.pdf", [("/MediaBox[0 0 306 396]/UserUnit 2", "")])
    (image,) = rendered(path, [Wanted(index=0, width=612, height=792, user_unit=2, grid=GRID)], 1)
    assert isinstance(image, Image.Image)
    (fault,) = rendered(path, wanted(GRID), 1)
    assert isinstance(fault, DocumentError)
