"""How few rows could hold these samples? A lower bound that no packer can beat, for `bench_packing.py`.

The linear relaxation of cutting stock (Gilmore and Gomory 1961), solved by column generation: a pattern is what one
row may hold, and the patterns of the relaxation may be used in fractions. Prices from any iteration give a bound once
they are divided by the best pattern's price (Farley 1990), so the search may stop early. Lengths are rounded down to a
grain first, which only makes them easier to pack, so that there are few classes and the best pattern is a table of
`capacity / grain` entries. Martello and Toth's L2, at full resolution, is taken where it is the larger one.

Written apart from the packer that it judges, for checking 20,000 samples in seconds; it shares no code with it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

GRAIN = 256
CLOSE = 2e-4  # stop when the bound is that near to the relaxation's optimum
SLACK = 1e-6  # of floating point

Pattern = tuple[int, ...]  # classes, one a sample, in falling order


def row_bound(lengths: np.ndarray, capacity: int, grain: int = GRAIN) -> int:
    """No packing of samples of 1..`capacity` tokens has fewer rows."""
    return max(counted_bound(lengths, capacity), relaxation(lengths, capacity, grain))


def counted_bound(lengths: np.ndarray, capacity: int) -> int:
    """The part of the bound that needs no linear program: the sum of the lengths, and L2."""
    return max(-(-int(lengths.sum()) // capacity), martello_toth(lengths, capacity))


def martello_toth(lengths: np.ndarray, capacity: int) -> int:
    """L2: samples above half a row need a row each; those down to `k` do not fit beside the ones above capacity - k."""
    rising = np.sort(lengths)
    total = np.concatenate([[0], np.cumsum(rising)])
    half = np.searchsorted(rising, capacity // 2, side="right")  # the samples from here on exceed half a row
    k = np.unique(np.append(rising[:half], 0))
    first, alone = np.searchsorted(rising, k), np.searchsorted(rising, capacity - k, side="right")
    alone = np.maximum(alone, half)
    space = (alone - half) * capacity - (total[alone] - total[half])  # beside the samples that could take one of k
    small = np.maximum(total[half] - total[np.minimum(first, half)] - space, 0)
    return int((len(rising) - half - (-small // capacity)).max())


def relaxation(lengths: np.ndarray, capacity: int, grain: int) -> int:
    """The linear relaxation's bound for lengths rounded down to multiples of `grain`."""
    units, counts = np.unique(lengths // grain, return_counts=True)
    space = capacity // grain
    counts, units = counts[units > 0], units[units > 0]
    if not len(units):
        return 0
    patterns = [(j,) * (space // int(size)) for j, size in enumerate(units)]
    known = set(patterns)
    bound = 0.0
    while True:
        optimum, prices = solve(patterns, counts)
        best, choice = price(units, prices, space)
        bound = max(bound, float(prices @ counts) / max(float(best[space]), 1.0))
        fresh = [p for p in profitable(units, prices, best, choice, space) if p not in known]
        if optimum - bound <= CLOSE * optimum or not fresh:
            return math.ceil(bound - SLACK * bound)
        known.update(fresh)
        patterns += fresh


def solve(patterns: list[Pattern], counts: np.ndarray) -> tuple[float, np.ndarray]:
    """Fewest rows in fractions of these patterns, and the price of a sample of each class."""
    column = np.repeat(np.arange(len(patterns)), [len(p) for p in patterns])
    row = np.concatenate([np.array(p, dtype=np.int64) for p in patterns])
    held = coo_array((-np.ones(len(row)), (row, column)), shape=(len(counts), len(patterns))).tocsr()
    found = linprog(np.ones(len(patterns)), A_ub=held, b_ub=-counts.astype(float), method="highs")
    assert found.status == 0, found.message
    return float(found.fun), np.maximum(-found.ineqlin.marginals, 0.0)


def price(units: np.ndarray, prices: np.ndarray, space: int) -> tuple[np.ndarray, np.ndarray]:
    """For every space the price of the best pattern in it, and the class to take first (-1: one unit stays empty)."""
    best, choice = np.zeros(space + 1), np.full(space + 1, -1)
    fitting = np.searchsorted(units, np.arange(space + 1), side="right")
    for c in range(1, space + 1):
        best[c] = best[c - 1]
        if n := fitting[c]:
            values = prices[:n] + best[c - units[:n]]
            j = int(values.argmax())
            if values[j] > best[c]:
                best[c], choice[c] = values[j], j
    return best, choice


def profitable(
    units: np.ndarray, prices: np.ndarray, best: np.ndarray, choice: np.ndarray, space: int
) -> list[Pattern]:
    """For each class the best pattern that holds it, where it costs more than a row."""
    found = set()
    for j in np.flatnonzero(prices + best[space - units] > 1 + SLACK).tolist():
        pattern, left = [j], space - int(units[j])
        while left:
            if choice[left] < 0:
                left -= 1
            else:
                pattern.append(int(choice[left]))
                left -= int(units[choice[left]])
        found.add(tuple(sorted(pattern, reverse=True)))
    return sorted(found)
