"""Image hashes: alike for the same page, however it was saved, and for nothing else."""

from __future__ import annotations

import io
import random

import pytest
from fakes import LETTER, picture_of
from PIL import Image, ImageDraw

from corpus.page_images import bits, crop_hashes, distances, image_hash, raster_size

SAME, OTHER = 0.15, 0.2


def page_of(seed: int, lines: int = 38, width: int = 12) -> Image.Image:
    """A page of random words."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnoprstu", k=draw.randint(2, 9))) for _ in range(60)]
    return picture_of([" ".join(draw.choices(words, k=draw.randint(width // 2, width))) for _ in range(lines)], LETTER)


def small(page: Image.Image) -> Image.Image:
    return page.resize(raster_size(*page.size))


def distance(a: str, b: str) -> float:
    return float(distances(bits([a]), bits([b]))[0, 0])


def compressed(page: Image.Image) -> Image.Image:
    """As another program saves it: at another resolution, as a poor JPEG."""
    data = io.BytesIO()
    page.resize((page.width * 3 // 4, page.height * 3 // 4)).save(data, "JPEG", quality=40)
    return Image.open(data)


@pytest.mark.parametrize("seed", range(5))
def test_a_page_saved_anew_keeps_its_hash_and_another_page_has_another(seed: int) -> None:
    page = page_of(seed)
    hashed = image_hash(small(page))
    assert len(hashed) == 64
    assert distance(hashed, image_hash(small(compressed(page)))) < SAME
    assert distance(hashed, image_hash(small(page_of(seed + 100)))) > OTHER


def test_margins_do_not_count() -> None:
    page = page_of(1)
    framed = Image.new("L", (page.width + 300, page.height + 500), 255)
    framed.paste(page, (250, 120))
    assert distance(image_hash(small(page)), image_hash(small(framed))) < SAME


def test_the_hashes_of_crops_recognise_a_cropped_page() -> None:
    page = page_of(2, lines=47, width=14)
    x, y = page.width // 10, page.height // 10
    cropped = image_hash(small(page.crop((x, y, page.width - x, page.height - y))))
    hashes = crop_hashes(small(page))
    assert hashes[0] == image_hash(small(page)) and len(set(hashes)) == len(hashes) > 2
    assert distance(cropped, hashes[0]) > SAME
    assert min(distance(cropped, h) for h in hashes) < SAME
    uneven = image_hash(small(page.crop((x // 2, y, page.width - x, page.height))))
    assert min(distance(uneven, h) for h in crop_hashes(small(page), uneven=False)) > SAME
    assert min(distance(uneven, h) for h in hashes) < SAME


def test_pages_that_show_next_to_nothing_have_no_hash() -> None:
    blank = Image.new("L", (300, 400), 255)
    numbered = blank.copy()
    ImageDraw.Draw(numbered).text((145, 380), "17", fill=0)
    lined = blank.copy()
    ImageDraw.Draw(lined).text((60, 190), "This page is intentionally left blank", fill=0)
    gradient = Image.linear_gradient("L")
    assert [image_hash(p) for p in (blank, numbered, lined, gradient, Image.new("L", (300, 400), 40))] == [""] * 5
    assert crop_hashes(lined) == ()


@pytest.mark.parametrize("size", [(1, 1), (448, 2), (2, 448)])
def test_odd_sizes_are_no_error(size: tuple[int, int]) -> None:
    assert len(image_hash(Image.effect_noise(size, 100))) in (0, 64)


def test_the_raster_is_small_whatever_the_page() -> None:
    assert raster_size(612, 792) == (346, 448)
    assert raster_size(1e6, 1) == (448, 1)
