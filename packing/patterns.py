"""Which lengths fill a row together: the linear program of cutting stock, solved by column generation. Pure.

A *pattern* is a set of sample sizes that share a row. With enough samples of every size, the fewest rows are the
least sum of pattern counts that covers all samples (Gilmore and Gomory 1961). Solved as a linear program, this
gives two things: a lower bound on the rows of any packing, and the patterns of a nearly optimal one.

- Sizes are counted in cells of `capacity / CELLS` tokens. Rounded down, every true row is a pattern, so the bound
  holds; rounded up, every pattern is a true row. Both err by less than a cell a sample.
- Samples of at most an eighth of a row count as a fluid that fills what is free. That only lowers the bound, and
  leaves at most seven samples to a pattern.
- The dual values of a relaxed program price the patterns: the most valuable one is a knapsack, solved over all
  capacities at once by doubling (rows of 1, 2, 4, 8 samples). Dividing the dual solution by the value of that
  pattern makes it feasible: a valid bound in every round (Farley 1990). Pricing at a mean of the best duals so
  far and the newest ones (Wentges 1997) saves rounds.

Volume alone bounds rows of whole documents badly (1.2 times too low), and so does the L2 bound of Martello and
Toth (1.7 % too low).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

CELLS = 1_024
SMALL = 8  # samples of at most capacity / SMALL are a fluid; no pattern has so many others
ROUNDS = 40
GAP = 5e-4  # between the program's value and its bound: near enough to stop
SMOOTHING = 0.7  # weight of the best duals so far

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def lower_bound(lengths: IntArray, capacity: int, enough: float) -> float:
    """A number of rows that no packing goes below; a finer one is not looked for once it reaches `enough`.

    Args:
        lengths: tokens of each sample, 1..capacity.
        capacity: tokens of a row, at most.
    """
    volume = bound = float(lengths.sum()) / capacity
    for cells in (CELLS // 2, CELLS):
        if bound < enough:
            cells = min(cells, capacity)
            bound = max(bound, _Program(lengths, lengths * cells // capacity, capacity, cells).solve().bound)
            if bound == volume:  # rows can be filled: a finer grid would say the same
                break
    return bound


def fill_patterns(lengths: IntArray, capacity: int) -> list[tuple[tuple[int, ...], int]]:
    """Patterns of a nearly optimal packing: the sizes (see `sizes_of`) of their samples, and how many rows of each."""
    cells = min(CELLS, capacity)
    solution = _Program(lengths, sizes_of(lengths, capacity), capacity, cells).solve()
    rows = np.rint(solution.rows_of).astype(np.int64)
    used = np.argsort(-rows, kind="stable")[: np.count_nonzero(rows)]
    return [(tuple(p[p > 0].tolist()), n) for p, n in zip(solution.patterns[used], rows[used].tolist(), strict=True)]


def sizes_of(lengths: IntArray, capacity: int) -> IntArray:
    """Cells of each sample, rounded up, so that what fits a row in cells fits it in tokens."""
    return -(-lengths * min(CELLS, capacity) // capacity)


@dataclass(frozen=True, slots=True)
class _Solution:
    bound: float  # rows
    patterns: IntArray  # [patterns, SMALL] sizes, 0 for none
    rows_of: FloatArray  # rows of each pattern


class _Program:
    """Cover every size as often as there are samples of it, and the fluid, with the least sum of patterns."""

    def __init__(self, lengths: IntArray, cells_of: IntArray, capacity: int, cells: int) -> None:
        large = cells_of >= max(1, cells // SMALL)
        sizes, counts = np.unique(cells_of[large], return_counts=True)
        self._cells = cells
        self._sizes = sizes
        self._demand = np.append(counts.astype(np.float64), float(lengths[~large].sum()) / capacity)

    def solve(self) -> _Solution:
        """Add the patterns that the duals ask for, until the bound is near the program's value."""
        best = np.append(self._sizes / self._cells, 1.0)  # duals: of each size and of a row of fluid
        bound = float(best @ self._demand)
        patterns, solved = self._first_patterns(), 0
        rows_of = np.zeros(len(patterns))
        while len(self._sizes) and solved < ROUNDS:
            value, rows_of, newest = self._relaxed(patterns)
            solved += 1
            if value <= bound * (1 + GAP):
                break
            more = patterns
            for duals in (SMOOTHING * best + (1 - SMOOTHING) * newest, newest):
                worth, found = self._best_patterns(duals)
                if (scaled := float(duals @ self._demand) / worth) > bound:
                    best, bound = duals / worth, scaled
                asked = found[self._worth(found, newest) > 1 + 1e-7]
                more = np.unique(np.concatenate([patterns, asked]), axis=0)
                if len(more) > len(patterns):
                    break
            if len(more) == len(patterns) or solved == ROUNDS:
                break
            patterns = more
        return _Solution(bound, patterns, rows_of)

    def _first_patterns(self) -> IntArray:
        """Each size with the largest ones that still fit, and with itself; and a row of fluid."""
        with_itself = np.zeros((len(self._sizes) + 1, SMALL), dtype=np.int64)
        greedy = with_itself.copy()
        fits = np.concatenate([[0], self._sizes])
        space = np.full(len(self._sizes), self._cells)
        for i in range(SMALL):
            taken = fits[np.searchsorted(self._sizes, space, side="right")] if i else self._sizes
            space = space - taken
            greedy[:-1, i] = taken
            with_itself[:-1, i] = np.where((i + 1) * self._sizes <= self._cells, self._sizes, 0)
        return np.unique(np.sort(np.concatenate([with_itself, greedy]), axis=1), axis=0)

    def _relaxed(self, patterns: IntArray) -> tuple[float, FloatArray, FloatArray]:
        """The program over these patterns without whole numbers: its value, the rows of each, and the duals."""
        from scipy.optimize import linprog  # here, because every worker of a build would load it
        from scipy.sparse import csc_array

        at, place = np.nonzero(patterns)
        size = np.searchsorted(self._sizes, patterns[at, place])
        every = np.arange(len(patterns))
        free = 1 - patterns.sum(axis=1) / self._cells
        covers = csc_array(
            (
                np.concatenate([np.ones(len(at)), free]),
                (np.concatenate([size, np.full(len(every), len(self._sizes))]), np.concatenate([at, every])),
            ),
            shape=(len(self._demand), len(patterns)),
        )
        result = linprog(np.ones(len(patterns)), A_ub=-covers, b_ub=-self._demand, method="highs-ds")
        assert result.status == 0, result.message  # every size has a pattern and a row holds fluid: it is solvable
        return float(result.fun), result.x, -result.ineqlin.marginals

    def _worth(self, patterns: IntArray, duals: FloatArray) -> FloatArray:
        """What the duals say of each pattern: its samples, and fluid in the rest."""
        prices = np.append(duals[:-1], 0.0)[np.searchsorted(self._sizes, patterns)]
        free: FloatArray = 1 - patterns.sum(axis=1) / self._cells
        worth: FloatArray = np.where(patterns > 0, prices, 0.0).sum(axis=1) + duals[-1] * free
        return worth

    def _best_patterns(self, duals: FloatArray) -> tuple[float, IntArray]:
        """The worth of the best pattern, and for each size the best pattern that holds it."""
        gain = duals[:-1] - duals[-1] * self._sizes / self._cells  # over fluid in the same place
        best = np.zeros(self._cells + 1)
        best[self._sizes] = np.maximum(gain, 0.0)
        size = np.zeros(self._cells + 1, dtype=np.int64)
        size[self._sizes] = np.where(gain > 0, self._sizes, 0)
        top = np.maximum.accumulate(best)
        source = np.maximum.accumulate(np.where(best >= top, np.arange(len(best)), 0))
        best, size = best[source], size[source]
        splits: list[IntArray] = []
        for _ in range(SMALL.bit_length() - 1):  # 2, 4, 8 samples
            best, split = _two_halves(best)
            splits.append(split)
        space = (self._cells - self._sizes)[:, None]
        for split in reversed(splits):
            space = np.concatenate([split[space], space - split[space]], axis=1)
        found = np.sort(np.concatenate([self._sizes[:, None], size[space]], axis=1), axis=1)
        return float(best[-1] + duals[-1]), found[:, -SMALL:]


def _two_halves(best: FloatArray) -> tuple[FloatArray, IntArray]:
    """For each capacity, the best sum over two parts of it, and the first part. `best` rises."""
    n = len(best)
    mirrored = sliding_window_view(np.concatenate([best[::-1], np.full(n, -np.inf)]), n)  # [n - 1 - c][i] = best[c - i]
    value, split = np.empty(n), np.empty(n, dtype=np.int64)
    for start in range(0, n, 128):  # blocks that stay in the cache
        capacity = np.arange(start, min(n, start + 128))
        sums = best[: capacity[-1] + 1] + mirrored[n - 1 - capacity][:, : capacity[-1] + 1]
        split[capacity] = sums.argmax(axis=1)
        value[capacity] = sums[np.arange(len(capacity)), split[capacity]]
    return value, split
