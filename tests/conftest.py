"""What every test may use. Nothing here, and no test, reaches the network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import write_pdf
from hypothesis import settings
from servers import ENVIRONMENT, Faults, faulty_proxy, s3_server

settings.register_profile("longdoc", derandomize=True, deadline=None)
settings.load_profile("longdoc")

bucket_numbers = itertools.count(1)


@pytest.fixture
def make_pdf(tmp_path: Path) -> Callable[..., Path]:
    """`make_pdf("a.pdf", pages=3, ...)` writes a small PDF into the test's folder; see `fakes.write_pdf`."""

    def make(path: str | Path = "document.pdf", **options: object) -> Path:
        return write_pdf(tmp_path / path, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    with s3_server() as address:
        yield address


@pytest.fixture
def faults() -> Faults:
    """What the proxy before `bucket` does wrong."""
    return Faults()


@pytest.fixture
def bucket(s3: str, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, reached through a proxy, with credentials in the environment."""
    from corpus.storage import file_system

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with faulty_proxy(s3, faults) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        file_system("s3", 10).clear_instance_cache()  # it keeps the address of an earlier proxy
        name = f"bucket-{next(bucket_numbers)}"
        file_system("s3", 10).mkdir(name)
        faults.reset()
        yield f"s3://{name}"
