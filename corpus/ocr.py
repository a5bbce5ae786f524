"""Pixels to text lines, for pages whose text layer cannot be used.

An engine is anything with `version` and `read`; RapidOCR is the embedded default (its PP-OCRv6 models are inside
the wheel, so it works offline). One thread a worker: documents are read in parallel, not pages.
"""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from corpus.errors import EngineError
from corpus.records import Box

TRUSTED_CONFIDENCE = 0.85  # a page that reads better on average is the right way up


@dataclass(frozen=True, slots=True)
class OcrLine:
    """One line of text. `box` is in pixels of the image that was read; `confidence` is 0..1."""

    box: Box
    text: str
    confidence: float


class OcrEngine(Protocol):
    """What parsing needs of an OCR engine."""

    version: str

    def read(self, image: np.ndarray) -> list[OcrLine]:
        """Lines of an RGB image `[H, W, 3]` uint8, top to bottom, left to right."""
        ...


class RapidOcr:
    """RapidOCR with the models it carries."""

    def __init__(self) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError as e:
            raise EngineError(f"RapidOCR cannot be loaded ({e}); pip install rapidocr onnxruntime") from e
        self.version = engine_version("rapidocr")
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.text_score": 0.0,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def read(self, image: np.ndarray) -> list[OcrLine]:
        """See `OcrEngine.read`.

        The engine's orientation classifier turns clean upright lines upside down (6 of 12 on one page of plain
        sans-serif print), so it is asked only where the page reads badly without it: a scan that stands on its head.
        """
        upright = self._lines(image, classify=False)
        if _mean_confidence(upright) >= TRUSTED_CONFIDENCE:
            return upright
        return max(upright, self._lines(image, classify=True), key=_mean_confidence)

    def _lines(self, image: np.ndarray, classify: bool) -> list[OcrLine]:
        found = self._engine(np.ascontiguousarray(image[:, :, ::-1]), use_cls=classify)  # the engine expects BGR
        if found.boxes is None or not found.txts:
            return []
        lines = []
        for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
            xs, ys = corners[:, 0], corners[:, 1]
            box = (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))
            lines.append(OcrLine(box, str(text).strip(), float(score)))
        return [line for line in lines if line.text]


def _mean_confidence(lines: list[OcrLine]) -> float:
    """Weighted by length, so that specks read as letters count little."""
    letters = sum(len(line.text) for line in lines)
    return sum(line.confidence * len(line.text) for line in lines) / letters if letters else 0.0


@functools.cache
def load_engine(name: str) -> OcrEngine:
    """The engine of that name, loaded once a process."""
    if name == "rapidocr":
        return RapidOcr()
    raise EngineError(f"unknown OCR engine {name!r}")


def engine_version(name: str) -> str:
    """Version of an engine's package without loading it; 'none' where pages stay unread."""
    return "none" if name == "none" else importlib.metadata.version(name)
