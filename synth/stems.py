"""Words of a text in the form in which two texts are compared: nouns without the ending of their plural, Chinese
characters two by two. One definition for the headers of tables and for what stands beside a number."""

from __future__ import annotations

import re

from synth.grounding import CJK, STOP_WORDS, tokens


def words_of(text: str) -> frozenset[str]:
    """Words that say something, stemmed; numbers as they are."""
    return frozenset(_stem(w) for w in tokens(text) if w not in STOP_WORDS)


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def pairs(text: str) -> frozenset[str]:
    """Chinese characters two by two (a lone one by itself), and the words of other scripts."""
    runs = re.findall(f"[{CJK}]+", text)
    two = frozenset(r[i : i + 2] for r in runs for i in range(max(1, len(r) - 1)))
    return two | words_of(re.sub(f"[{CJK}]+", " ", text))
