"""OCR engines: what they may be asked, and what RapidOCR reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import rapidocr
from rapidocr import ModelType, OCRVersion
from rapidocr.utils.model_resolver import list_supported_langs
from rapidocr.utils.typings import TaskType

from corpus.config import OcrSettings
from corpus.ocr import OcrLine, engine_version, identity, load_engine, mean_confidence
from corpus.ocr_languages import CARRIED, FETCHED, LANGUAGES
from corpus.records import PageGrid
from corpus.render import open_pdf, render

ALIASES = {"french", "german"}  # of fr and de


def line(text: str, confidence: float) -> OcrLine:
    return OcrLine((0.0, 0.0, 1.0, 1.0), text, confidence)


def test_confidence_is_weighted_by_length() -> None:
    assert mean_confidence([]) == 0.0
    assert mean_confidence([line("ninety nine", 1.0), line("x", 0.4)]) == pytest.approx(0.95)


def test_languages_are_those_of_the_model_that_rapidocr_carries() -> None:
    theirs = set(list_supported_langs(TaskType.REC, OCRVersion.PPOCRV6, ModelType.SMALL))
    assert set(CARRIED.values()) == theirs - ALIASES


def test_the_model_that_rapidocr_carries_knows_the_letters_of_its_languages() -> None:
    (model,) = (Path(rapidocr.__file__).parent / "models").glob("*_rec_*.onnx")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    characters = set(session.get_modelmeta().custom_metadata_map["character"])
    letters = "äöüßÄÖÜ éèêëàçœ ñ¿ åæø čďěňřšťůž ąćęłńóśźż őű ığş ăâîșț đơư āēīū"
    assert set(letters.replace(" ", "")) <= characters
    assert not set("한국어 русский عربي हिन्दी".replace(" ", "")) & characters


def test_one_vocabulary_for_both_engines() -> None:
    assert not set(CARRIED) & set(FETCHED)
    assert set(LANGUAGES) == {"rapidocr", "paddleocr"}
    assert LANGUAGES["paddleocr"]["ko"] == "korean" and "ko" not in LANGUAGES["rapidocr"]
    assert all(OcrSettings(language=name).language == name for name in CARRIED)


def test_rapidocr_reads_accents(make_pdf: Callable[..., Path]) -> None:
    printed = ["Größe des Gebäudes: 48213 Quadratmeter", "Le café de Zoë à Besançon"]
    with open_pdf(make_pdf(pages=1, text="\n".join(printed))) as pdf:
        image = np.asarray(render(pdf[0], PageGrid(height=1584, width=1224)))[:400]
    assert [line.text for line in load_engine(OcrSettings(language="de")).read(image)] == printed


def test_versions_are_known_without_loading_an_engine() -> None:
    assert engine_version(OcrSettings(engine="none")) == "none"
    assert engine_version(OcrSettings()).startswith("rapidocr 3.")
    assert identity(OcrSettings(dpi=100)) != identity(OcrSettings())
