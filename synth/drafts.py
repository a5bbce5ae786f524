"""A question before it has words: what to ask, the answer and where it stands."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from corpus.records import Evidence, Segment
from synth.document_index import DocumentIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """`fields` fill the pattern's phrasing; two drafts of one document with the same `key` ask the same thing.

    `uses`: what the question is about, where asking about it once in a document is enough.
    """

    pattern: str
    fields: dict[str, str] = field(default_factory=dict)
    answer: str
    answer_format: str
    evidence: tuple[Evidence, ...]
    anchor: str
    names_pages: bool
    key: tuple[str, ...]
    uses: tuple[str, ...] = ()


T = TypeVar("T")
Pattern = Callable[[DocumentIndex, Segment, random.Random], Iterator[Draft]]


def shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    """The items in an order drawn by seed; the list itself is left alone."""
    return rng.sample(items, len(items))
