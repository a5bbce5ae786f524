"""Pixels to text lines, for pages whose text layer cannot be used.

An engine is anything with `version` and `read`; RapidOCR is the embedded default (its PP-OCRv6 models are inside
the wheel, so it works offline), PaddleOCR the other choice (`corpus.paddle`). One thread a worker: documents are read
in parallel, not pages.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from corpus.config import OcrSettings
from corpus.errors import ConfigError, EngineError
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
        self.version = importlib.metadata.version("rapidocr")
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
        if mean_confidence(upright) >= TRUSTED_CONFIDENCE:
            return upright
        return max(upright, self._lines(image, classify=True), key=mean_confidence)

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


def mean_confidence(lines: Sequence[OcrLine]) -> float:
    """0..1, weighted by length, so that specks read as letters count little; 0 where there is no line."""
    letters = sum(len(line.text) for line in lines)
    return sum(line.confidence * len(line.text) for line in lines) / letters if letters else 0.0


@functools.cache
def load_engine(settings: OcrSettings) -> OcrEngine:
    """The engine that the settings name, loaded once a process.

    Raises:
        ConfigError: an interpreter or models that are not there.
        EngineError: it cannot be loaded.
    """
    if settings.engine == "rapidocr":
        return RapidOcr()
    if settings.engine == "paddleocr":
        from corpus.paddle import PaddleOcr

        return PaddleOcr(settings)
    raise EngineError(f"unknown OCR engine {settings.engine!r}")


@functools.cache
def engine_version(settings: OcrSettings) -> str:
    """Name and version of the engine; 'none' where pages stay unread.

    PaddleOCR is started for it, with its models loaded, so that whatever is wrong with it shows before a build begins.

    Raises:
        ConfigError: the engine cannot be used as it is set.
    """
    if settings.engine == "none":
        return "none"
    if settings.engine == "rapidocr":
        return f"rapidocr {importlib.metadata.version('rapidocr')}"
    from corpus.paddle import PaddleOcr

    try:
        engine = PaddleOcr(settings)
    except EngineError as e:
        raise ConfigError(str(e)) from None
    engine.close()
    return f"paddleocr {engine.version}"


def identity(settings: OcrSettings) -> list[str]:
    """Everything that decides what an engine reads on a page, for fingerprints.

    The language is no part of it for RapidOCR, which reads every language with one model, nor for PaddleOCR with
    models of its own.
    """
    version = engine_version(settings)
    if settings.engine != "paddleocr":
        models = []
    elif settings.models:
        from corpus.paddle import find_models

        models = [settings.device, *find_models(Path(settings.models).expanduser(), settings.language).digests()]
    else:
        models = [settings.device, settings.language]
    return [version, str(settings.dpi), str(settings.min_confidence), *models]
