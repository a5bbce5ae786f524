"""A document to windows: the runs of consecutive pages that become training contexts. Pure; lengths alone.

The whole document is one window when it fits the token range, because a window is what the model learns to
use: cutting costs context, and skipping documents costs more (of 93 real documents 74 fit whole into
32,768-131,072 tokens and 14 more as windows; a rule of 32-50 pages keeps 19).

What does not fit is cut by an exact search, lexicographic in
  1. pages kept,  2. fewest windows,  3. fewest segments cut through,  4. cuts at section starts, outer ones
  first,  5. near equal lengths (least squares).
Aims 1 and 2 are found for every page border from both ends in O(pages) with a sliding minimum; the other
three are then searched among the borders that lie on some best path, of which there are few (the slack of the
fewest windows is less than one window). 10,000 pages of 2,526 tokens take 0.1 s on one core; 10,000 pages of
53 tokens, where five windows leave the most slack, 1 s.

The alternative, cutting greedily from the front, is simpler and leaves a short last window that is often
below the smallest length and so loses pages.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from corpus.records import LeftOut, Section, Segment, Window

TOO_SHORT = "too-short"  # a run of pages below the smallest length
PAGE_TOO_LONG = "page-too-long"  # one page above the largest length
NO_WINDOW_FITS = "no-window-fits"  # long enough, but no cut leaves windows within the range

_DEEPEST_LEVEL = 9  # section levels beyond it count as this one
_NO_SECTION = _DEEPEST_LEVEL + 1
_BALANCE_BITS = 96  # room for a sum of squared lengths below the other two aims
_SECTION_BITS = 32
_NEVER = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCut:
    """The pages of a document, each once: in a window or left out with a reason. Both in page order."""

    windows: tuple[Window, ...]
    left_out: tuple[LeftOut, ...]


def cut_windows(
    doc_id: str,
    page_tokens: Sequence[int | None],
    sections: Sequence[Section],
    segments: Sequence[Segment],
    *,
    min_tokens: int,
    max_tokens: int,
    reserve: int,
    overhead: int,
    page_problems: Mapping[int, str],
) -> WindowCut:
    """Cut a document into windows; every page is in exactly one window or left out with its reason.

    Args:
        page_tokens: tokens of each page (image, its label, vision start and end); None where the page cannot
            be rendered, and then `page_problems` holds the reason at its index.
        segments: the runs of pages that questions were asked about; a window should hold each one whole.
        reserve: tokens of the longest question and answer that must fit beside the pages.
        overhead: tokens of the chat frame, the same for every window.

    A window holds `overhead + pages + reserve <= max_tokens` and `overhead + pages >= min_tokens`: the
    reserve does not count towards the smallest length, since the turn that is drawn may be shorter.
    """
    num_pages = len(page_tokens)
    most, least = max_tokens - overhead - reserve, min_tokens - overhead
    reasons: list[str] = [""] * num_pages
    for page, tokens in enumerate(page_tokens):
        if tokens is None:
            reasons[page] = page_problems[page]
        elif tokens > most:
            reasons[page] = PAGE_TOO_LONG
    penalties = _border_penalties(num_pages, sections, segments)
    windows: list[Window] = []
    for start, stop in _runs(reasons):
        lengths = [t for t in page_tokens[start:stop] if t is not None]
        cuts = _cut_run(lengths, penalties[start : stop + 1], least, most)
        for first, end in cuts:
            windows.append(Window(doc_id=doc_id, index=len(windows), first_page=start + first, num_pages=end - first))
        for first, end in _gaps(cuts, stop - start):
            reason = TOO_SHORT if sum(lengths[first:end]) < least else NO_WINDOW_FITS
            reasons[start + first : start + end] = [reason] * (end - first)
    return WindowCut(windows=tuple(windows), left_out=_left_out(reasons))


def _runs(reasons: Sequence[str]) -> list[tuple[int, int]]:
    """Runs `(start, stop)` of pages that have no reason against them."""
    runs, start = [], 0
    for page, reason in enumerate([*reasons, "end"]):
        if reason:
            if page > start:
                runs.append((start, page))
            start = page + 1
    return runs


def _gaps(cuts: Sequence[tuple[int, int]], num_pages: int) -> list[tuple[int, int]]:
    """The runs of pages between, before and after the windows."""
    borders = [(0, 0), *cuts, (num_pages, num_pages)]
    return [(left[1], right[0]) for left, right in pairwise(borders) if left[1] < right[0]]


def _left_out(reasons: Sequence[str]) -> tuple[LeftOut, ...]:
    """Neighbouring pages with the same reason as one entry."""
    runs: list[LeftOut] = []
    for page, reason in enumerate(reasons):
        if not reason:
            continue
        last = runs[-1] if runs else None
        if last and last.reason == reason and last.first_page + last.num_pages == page:
            runs[-1] = LeftOut(first_page=last.first_page, num_pages=last.num_pages + 1, reason=reason)
        else:
            runs.append(LeftOut(first_page=page, num_pages=1, reason=reason))
    return tuple(runs)


def _border_penalties(num_pages: int, sections: Sequence[Section], segments: Sequence[Segment]) -> list[int]:
    """What a cut before each page costs: segments cut through, then how deep a section starts there."""
    change = [0] * (num_pages + 1)
    for segment in segments:  # a cut before page p goes through it when first < p < first + num_pages
        if segment.num_pages > 1:
            change[min(segment.first_page + 1, num_pages)] += 1
            change[min(segment.first_page + segment.num_pages, num_pages)] -= 1
    depth = [_NO_SECTION] * (num_pages + 1)
    for section in sections:
        if section.first_page <= num_pages:
            level = min(max(section.level, 1), _DEEPEST_LEVEL)
            depth[section.first_page] = min(depth[section.first_page], level)
    cut_through = accumulate(change)
    return [((n << _SECTION_BITS) | d) << _BALANCE_BITS for n, d in zip(cut_through, depth, strict=True)]


def _cut_run(lengths: Sequence[int], penalties: Sequence[int], least: int, most: int) -> list[tuple[int, int]]:
    """The best windows `(first, end)` of a run of pages; borders are 0..n, penalties one a border."""
    n = len(lengths)
    ends = list(accumulate(lengths, initial=0))
    reach = _Reach.of(ends, least, most)
    before = _fewest(reach, n)
    after = _fewest(reach.mirrored(), n)
    best = before[n]
    on_path = [before[i] + after[n - i] == best for i in range(n + 1)]
    levels: dict[int, list[int]] = {}  # borders on a best path, by what came before them
    for i in range(n + 1):
        if on_path[i]:
            levels.setdefault(before[i], []).append(i)

    num_windows = best % (n + 1)
    if not num_windows:
        return []
    target = ends[n] // num_windows
    edge = [0, *penalties[1:n], 0]  # the ends of the run are no cuts
    cost, came_from = [_NEVER << 2 * _BALANCE_BITS] * (n + 1), [-1] * (n + 1)
    cost[0] = 0
    for j in range(1, n + 1):
        if not on_path[j]:
            continue
        if before[j - 1] + n + 1 == before[j]:  # page j - 1 is left out
            cost[j], came_from[j] = cost[j - 1], j - 1
        level = levels.get(before[j] - 1, ())
        low, high = bisect_left(level, reach.first[j]), bisect_right(level, reach.last[j])
        found, start, wanted = cost[j] - edge[j], -1, ends[j] - target
        for i in level[low:high]:
            off = wanted - ends[i]
            total = cost[i] + edge[i] + off * off
            if total < found:
                found, start = total, i
        if start >= 0:
            cost[j], came_from[j] = found + edge[j], ~start
    return _walk_back(came_from, n)


def _walk_back(came_from: Sequence[int], n: int) -> list[tuple[int, int]]:
    """Windows along the path; a window's start is stored inverted, to tell it from a page left out."""
    cuts, j = [], n
    while j > 0:
        i = came_from[j]
        if i < 0:
            cuts.append((~i, j))
        j = ~i if i < 0 else i
    return cuts[::-1]


@dataclass(frozen=True, slots=True)
class _Reach:
    """For each border, the first and last border at which a window that ends there may start."""

    first: list[int]
    last: list[int]  # below `first` where no window ends here

    @staticmethod
    def of(ends: Sequence[int], least: int, most: int) -> _Reach:
        first = [bisect_left(ends, end - most, 0, j) for j, end in enumerate(ends)]
        last = [bisect_right(ends, end - least, 0, j) - 1 for j, end in enumerate(ends)]
        return _Reach(first, last)

    def mirrored(self) -> _Reach:
        """The same windows with the run read backwards."""
        n = len(self.first) - 1
        borders = range(n + 1)
        # A window i..j exists when first[j] <= i <= last[j]; both rise with j: bisection finds its ends.
        starts = [bisect_left(self.last, i, i + 1) for i in borders]
        stops = [bisect_right(self.first, i, i + 1) - 1 for i in borders]
        return _Reach([n - stops[n - b] for b in borders], [n - starts[n - b] for b in borders])


def _fewest(reach: _Reach, n: int) -> list[int]:
    """For each border, `pages left out * (n + 1) + windows` of the best way from border 0."""
    best = [0] * (n + 1)
    waiting: deque[int] = deque()  # starts within reach, best in front
    added = 0
    for j in range(1, n + 1):
        while added <= reach.last[j]:
            while waiting and best[waiting[-1]] > best[added]:
                waiting.pop()
            waiting.append(added)
            added += 1
        while waiting and waiting[0] < reach.first[j]:
            waiting.popleft()
        best[j] = best[j - 1] + n + 1
        if waiting:
            best[j] = min(best[j], best[waiting[0]] + 1)
    return best
