"""What every test may use. Nothing here, and no test, reaches the network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import write_pdf
from hypothesis import settings

settings.register_profile("longdoc", derandomize=True, deadline=None)
settings.load_profile("longdoc")


@pytest.fixture
def make_pdf(tmp_path: Path) -> Callable[..., Path]:
    """`make_pdf("a.pdf", pages=3, ...)` writes a small PDF into the test's folder; see `fakes.write_pdf`."""

    def make(path: str | Path = "document.pdf", **options: object) -> Path:
        return write_pdf(tmp_path / path, **options)  # type: ignore[arg-type]

    return make
