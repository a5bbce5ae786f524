"""The language a document is written in, by `py3langid`: offline, 4.5 MB, the same answer every time. Pure."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

MIN_LETTERS = 100
MIN_PROBABILITY = 0.9
MAX_PAGES = 16
MAX_PAGE_CHARS = 2_000


def detect_language(pages: Sequence[str]) -> str:
    """The code (ISO 639) of the language of most of a document's pages, '' where there is too little text to tell."""
    written = [text for text in pages if text]
    step = max(1, len(written) // MAX_PAGES)
    text = " ".join(t[:MAX_PAGE_CHARS] for t in written[::step][:MAX_PAGES])
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= MIN_PROBABILITY else ""


def primary(language: str) -> str:
    """The language alone: "en" of "en-US" or "EN_gb"."""
    return language.strip().casefold().replace("_", "-").partition("-")[0]


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
