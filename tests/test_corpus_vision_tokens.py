"""Token counts are the image processors' own, to the last patch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from corpus.errors import DocumentError
from corpus.records import PageGrid
from corpus.vision_tokens import FAMILIES, Family, natural_size, num_image_tokens, num_patches, snap

both_families = pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
SIDES = st.integers(1, 20_000)


def processor_size(height: int, width: int, family: Family) -> tuple[int, int]:
    size: tuple[int, int] = smart_resize(
        height, width, factor=family.grid, min_pixels=family.min_pixels, max_pixels=family.max_pixels
    )
    return size


@functools.cache
def processor(family: Family) -> Any:
    return Qwen2VLImageProcessorPil(
        patch_size=family.patch,
        merge_size=family.merge,
        size={"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels},
    )


@pytest.mark.parametrize(
    ("size_pt", "pixels", "qwen25", "qwen3"),
    [
        ((612, 792), (1584, 1224), 2_508, 1_900),
        ((595, 842), (1684, 1190), 2_520, 1_961),
        ((595.276, 841.89), (1684, 1191), 2_580, 1_961),
    ],
    ids=["letter", "a4-whole-points", "a4"],
)
def test_letter_and_a4_at_144_dpi(
    size_pt: tuple[float, float], pixels: tuple[int, int], qwen25: int, qwen3: int
) -> None:
    assert natural_size(*size_pt, 144) == pixels
    counts = [num_image_tokens(snap(*pixels, FAMILIES[f]), FAMILIES[f]) for f in ("qwen2.5-vl", "qwen3-vl")]
    assert counts == [qwen25, qwen3]


@both_families
@given(height=SIDES, width=SIDES)
@settings(max_examples=400)
def test_a_page_snaps_to_the_size_of_the_processor(family: Family, height: int, width: int) -> None:
    try:
        size = processor_size(height, width, family)
        processor_size(*size, family)  # the processor must take the snapped image too
    except ValueError:
        with pytest.raises(DocumentError) as e:
            snap(height, width, family)
        assert e.value.reason == "aspect-ratio"
        return
    assert snap(height, width, family) == PageGrid(height=size[0], width=size[1])


@both_families
@given(height=SIDES, width=SIDES)
@settings(max_examples=200)
def test_a_snapped_page_is_not_resized_again_and_is_in_range(family: Family, height: int, width: int) -> None:
    assume(max(height, width) <= 150 * min(height, width))
    page = snap(height, width, family)
    assert processor_size(page.height, page.width, family) == (page.height, page.width)
    assert page.height % family.grid == page.width % family.grid == 0
    assert family.min_pixels <= page.height * page.width <= family.max_pixels
    assert num_patches(page, family) == family.merge**2 * num_image_tokens(page, family)


EXTREMES = st.one_of(
    SIDES,
    st.sampled_from(
        [1, 13, 14, 15, 16, 27, 28, 31, 32, 55, 56, 255, 256, 3_583, 3_584, 3_585, 4_096, 4_097, 65_535, 10**6]
    ),
)


@both_families
@given(height=EXTREMES, width=EXTREMES)
@example(height=200, width=1)
@example(height=1, width=200)
@example(height=201, width=1)
@example(height=10**6, width=5_000)
@settings(max_examples=500)
def test_patches_and_tokens_are_those_of_the_image_processor(family: Family, height: int, width: int) -> None:
    """The processor's own count, which it gives without an image, so that no size is too large to try."""
    whole = processor(family)
    try:
        page = snap(height, width, family)
    except DocumentError:
        with pytest.raises(ValueError, match="aspect ratio"):  # of the size, or of what it was resized to
            whole.get_number_of_image_patches(*processor_size(height, width, family))
        return
    patches = whole.get_number_of_image_patches(height, width)
    assert num_patches(page, family) == patches == whole.get_number_of_image_patches(page.height, page.width)
    assert num_image_tokens(page, family) * whole.merge_size**2 == patches


@both_families
@given(height=st.integers(1, 600), width=st.integers(1, 600), seed=st.integers(0, 9))
@settings(max_examples=25)
def test_a_page_rendered_at_the_snapped_size_is_not_resampled(
    family: Family, height: int, width: int, seed: int
) -> None:
    assume(max(height, width) <= 20 * min(height, width))
    page = snap(height, width, family)
    noise = np.random.default_rng(seed).integers(0, 256, (page.height, page.width, 3), dtype=np.uint8)
    resized, kept = (processor(family)(images=[noise], do_resize=r, return_tensors="np") for r in (True, False))
    assert np.array_equal(resized["pixel_values"], kept["pixel_values"])
    assert resized["image_grid_thw"].tolist() == kept["image_grid_thw"].tolist()
    assert len(kept["pixel_values"]) == num_patches(page, family)


@both_families
@pytest.mark.parametrize("pixels", [(1584, 1224), (40, 900), (20, 30)], ids=["letter", "strip", "stamp"])
def test_the_processor_cuts_a_snapped_image_into_our_patches(family: Family, pixels: tuple[int, int]) -> None:
    page = snap(*pixels, family)
    noise = np.random.default_rng(0).integers(0, 256, (page.height, page.width, 3), dtype=np.uint8)
    made = processor(family)(images=[noise], do_normalize=False, do_rescale=False, return_tensors="np")
    assert made["image_grid_thw"].tolist() == [[1, page.height // family.patch, page.width // family.patch]]
    assert len(made["pixel_values"]) == num_patches(page, family)
    first = made["pixel_values"][0].reshape(3, 2, family.patch, family.patch)[:, 0]
    assert np.array_equal(first, noise[: family.patch, : family.patch].transpose(2, 0, 1))  # no pixel was resampled


@both_families
@pytest.mark.parametrize(("height", "width"), [(201, 1), (1, 201), (20_100, 100)])
def test_an_aspect_ratio_beyond_200_is_refused(family: Family, height: int, width: int) -> None:
    with pytest.raises(DocumentError, match=rf"aspect-ratio: {width} x {height} px exceeds 200:1"):
        snap(height, width, family)


def test_an_aspect_ratio_beyond_200_after_snapping_is_refused() -> None:
    family = FAMILIES["qwen2.5-vl"]
    assert processor_size(41, 8_190, family) == (28, 8_176)
    with pytest.raises(DocumentError, match="aspect-ratio: 8176 x 28 px"):
        snap(41, 8_190, family)


@given(width=st.floats(1, 5_000), height=st.floats(1, 5_000), dpi=st.sampled_from([36, 72, 100, 144, 200, 300]))
def test_a_natural_size_holds_the_whole_page_and_no_pixel_more(width: float, height: float, dpi: int) -> None:
    rows, columns = natural_size(width, height, dpi)
    for pixels, points in ((rows, height), (columns, width)):
        assert pixels >= 1
        assert pixels - 1 < points * dpi / 72 <= pixels + 0.0011
