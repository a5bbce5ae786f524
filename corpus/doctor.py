"""What can run here: engines and extras, each tried rather than guessed, with the command that installs it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corpus.config import OcrSettings

SET_UP = "python3 -m venv DIR && DIR/bin/python -m pip install paddleocr onnxruntime; --set ocr.python=DIR/bin/python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One engine. `required`: a default build needs it."""

    name: str
    purpose: str
    usable: bool
    required: bool
    found: str  # version, or why it is not usable
    install: str  # the way to get it; '' where it is usable


@dataclass(frozen=True, slots=True)
class _Engine:
    name: str
    purpose: str
    required: bool
    install: str
    probe: Callable[[], str]  # the version; raises where it is not usable


def check(ocr: OcrSettings) -> list[dict[str, Any]]:
    """Every engine, as plain dicts; PaddleOCR with the interpreter and the models that the settings name."""
    paddle = _Engine("paddleocr", "pages without a text layer", False, SET_UP, lambda: _paddleocr(ocr))
    return [asdict(_try(engine)) for engine in (*ENGINES, paddle)]


def print_checks(checks: list[dict[str, Any]]) -> None:
    """A table for a person."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "engine", "for", "found", "to install"):
        table.add_column(column, overflow="fold")
    for c in checks:
        mark = "ok" if c["usable"] else ("MISSING" if c["required"] else "-")
        table.add_row(mark, c["name"], c["purpose"], escape(c["found"]), escape(c["install"]))
    Console(highlight=False).print(table)


def _try(engine: _Engine) -> Check:
    try:
        found, usable = engine.probe(), True
    except Exception as e:  # whatever an engine's own start-up raises is the finding
        found, usable = (str(e).splitlines() or [type(e).__name__])[0][:160], False
    return Check(
        name=engine.name,
        purpose=engine.purpose,
        usable=usable,
        required=engine.required,
        found=found,
        install="" if usable else engine.install,
    )


def _package(name: str) -> Callable[[], str]:
    def probe() -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise LookupError("not installed") from None

    return probe


def _pymupdf() -> str:
    from corpus.render import VERSION, pymupdf

    with pymupdf.open() as pdf:
        pdf.new_page().insert_text((72, 72), "Words")
        pdf[0].get_layout()
        if pdf[0].get_text().strip() != "Words":
            raise RuntimeError("cannot read back what it wrote")
    return f"{VERSION}, with layout model"


def _rapidocr() -> str:
    import numpy as np

    from corpus.ocr import RapidOcr

    engine = RapidOcr()
    engine.read(np.full((64, 256, 3), 255, np.uint8))
    return f"{engine.version}, models load offline"


def _poppler() -> str:
    from corpus.poppler import poppler_version

    return poppler_version()


def _paddleocr(ocr: OcrSettings) -> str:
    import numpy as np

    from corpus.paddle import PaddleOcr

    if not ocr.python:
        raise LookupError("no ocr.python given")
    engine = PaddleOcr(ocr)
    try:
        engine.read(np.full((64, 256, 3), 255, np.uint8))
    finally:
        engine.close()
    return f"{engine.version}, reads on {ocr.device} in {ocr.python}"


def _cuda() -> str:
    if importlib.util.find_spec("torch") is None:
        raise LookupError("torch is not installed")
    import torch

    if not torch.cuda.is_available():
        raise LookupError("no CUDA device")
    return f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}"


POPPLER = "pip install pdf2image; Debian: apt-get install poppler-utils"

ENGINES = (
    _Engine("pymupdf", "parsing, layout, rendering", True, "pip install 'pymupdf>=2.0'", _pymupdf),
    _Engine("rapidocr", "pages without a text layer", True, "pip install rapidocr onnxruntime", _rapidocr),
    _Engine("pdf2image", "render.backend: pdf2image", False, POPPLER, _poppler),
    _Engine("transformers", "exact token counts", False, "pip install transformers", _package("transformers")),
    _Engine("webdataset", "reading shards elsewhere", False, "pip install webdataset", _package("webdataset")),
    _Engine("s3fs", "inputs and runs at s3://", False, "pip install 'longdoc[s3]'", _package("s3fs")),
    _Engine("gcsfs", "inputs and runs at gs://", False, "pip install 'longdoc[gcs]'", _package("gcsfs")),
    _Engine("aiohttp", "inputs at https://", False, "pip install 'longdoc[http]'", _package("aiohttp")),
    _Engine("torch", "training", False, "pip install torch transformers accelerate", _package("torch")),
    _Engine("cuda", "training at speed", False, "a CUDA build of torch and a GPU", _cuda),
)
