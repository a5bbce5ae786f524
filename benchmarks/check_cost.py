"""What the cost of a sample would be wrong by, if all pages were US Letter, or windows at a page's edge were whole.

    python benchmarks/check_cost.py

prints, for rows full of one kind of page at 144 DPI, how far the cost without `patch_pairs` is off, and how far windows
at the edge, which are counted whole, overstate it. Arithmetic alone: the same everywhere.
"""

from __future__ import annotations

from corpus.records import PageGrid
from corpus.vision_tokens import FAMILIES, natural_size, num_patches, snap
from packing.cost import FAMILY_DIMS, ModelDims, Passes, sample_flops

DPI = 144
PAGES = {  # width and height in points
    "A5": (420, 595),
    "US Letter": (612, 792),
    "A4": (595, 842),
    "slide 4:3": (720, 540),
    "slide 16:9": (960, 540),
    "A3": (842, 1191),
    "A2": (1191, 1684),
    "A1": (1684, 2384),
}
LENGTHS = (32_768, 131_072)


def overstated_at_edges(page: PageGrid, patch: int, dims: ModelDims) -> float:
    """Operations, forward and backward, that whole windows have more than those of the page."""
    rows, columns, side = page.height // patch, page.width // patch, int(dims.vision_window_patches**0.5)
    if not side:
        return 0.0
    sizes = [
        min(side, rows - r) * min(side, columns - c) for r in range(0, rows, side) for c in range(0, columns, side)
    ]
    pairs = rows * columns * side**2 - sum(n * n for n in sizes)
    layers = dims.vision_layers - dims.vision_full_layers
    return float(Passes.of(dims.frozen).vision_attention * 4 * dims.vision_hidden * layers * pairs)


def main() -> None:
    print(f"{'family':<12}{'page':<12}{'patches':>8}{'tokens':>9}{'as Letter':>11}{'edges':>9}")
    for name, dims in FAMILY_DIMS.items():
        family = FAMILIES[name]
        for page, size in PAGES.items():
            grid = snap(*natural_size(*size, DPI), family)
            patches = num_patches(grid, family)
            for tokens in LENGTHS:
                num_pages = tokens * family.merge**2 // patches
                exact = float(sample_flops(tokens, num_pages * patches, 50, dims, num_pages * patches**2))
                letter = float(sample_flops(tokens, num_pages * patches, 50, dims))
                edges = num_pages * overstated_at_edges(grid, family.patch, dims) / exact
                print(f"{name:<12}{page:<12}{patches:>8,}{tokens:>9,}{letter / exact - 1:>+11.1%}{edges:>9.3%}")


if __name__ == "__main__":
    main()
