"""PaddleOCR as an OCR engine: a server process in an interpreter of its own, one a worker.

PaddleOCR's dependencies clash with torch and vLLM, so it is never imported here: `ocr.python` runs
`corpus/paddle_server.py`, and pages go to it through a pipe (a page of 6 MB takes milliseconds beside the seconds that
reading it takes). A server that dies is started again for the page it died of; a page that crashes it twice is given
up with the reason, and the run goes on; a kill from outside is no fault of the page (`corpus.kills`). A server that
cannot start ends the run, because no page can be read then: that is tried before a build begins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpus.config import OcrSettings
from corpus.errors import ConfigError, DocumentError, EngineError
from corpus.kills import Killed, how_it_ended, is_outside_kill, undisturbed
from corpus.ocr import TRUSTED_CONFIDENCE, OcrLine, mean_confidence
from corpus.ocr_languages import FETCHED, LANGUAGES
from corpus.paddle_server import BadFrame, read_frame, write_frame
from corpus.store import file_sha256

SERVER = Path(__file__).with_name("paddle_server.py")
SET_UP = "see `corpus doctor` for how to set it up"
ATTEMPTS = 2  # at one page
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
END_S = 1.0  # from the end of its output to that of the process
PADDLE_FILES = ("inference.json", "inference.pdmodel")  # of which one, with inference.pdiparams


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """A detector and a recogniser on disk. `format`: onnx or paddle."""

    detection: tuple[str, str]  # PaddleOCR's name of the model, its folder
    recognition: tuple[str, str]
    format: str

    def digests(self) -> list[str]:
        """SHA-256 of every file, for fingerprints."""
        folders = (Path(self.detection[1]), Path(self.recognition[1]))
        return [file_sha256(f) for folder in folders for f in sorted(folder.glob("inference.*"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a server said when it was ready: PaddleOCR's version, and onnxruntime or paddle."""

    version: str
    inference: str


class _Died(Exception):
    """The server is gone by itself, and why."""


class PaddleOcr:
    """PaddleOCR in `settings.python`.

    Raises:
        ConfigError: no such interpreter or models.
        EngineError: the server cannot start.
    """

    def __init__(self, settings: OcrSettings) -> None:
        self._settings = settings
        self._models = find_models(Path(settings.models).expanduser(), settings.language) if settings.models else None
        self._server: _Server | None = None
        try:
            self.about = undisturbed(self._running).about
        except Killed as e:
            raise EngineError(f"PaddleOCR cannot start in ocr.python = {settings.python}: {e}") from None
        self.version = f"{self.about.version}, {self.about.inference}"

    def read(self, image: np.ndarray) -> list[OcrLine]:
        """See `OcrEngine.read`. A page that reads badly is read once more standing on its head.

        Raises:
            DocumentError: `ocr-failed`: the engine could not read this page.
            EngineError: the server cannot start any more.
        """
        upright = self._lines(image)
        if mean_confidence(upright) >= TRUSTED_CONFIDENCE:
            return upright
        turned = [_turned(line, image.shape) for line in self._lines(image[::-1, ::-1])]
        return max(upright, turned, key=mean_confidence)

    def close(self) -> None:
        """End the server; the next page starts another."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _running(self) -> _Server:
        if self._server is None:
            self._server = _Server(self._settings, self._models)
        return self._server

    def _ask(self, image: np.ndarray) -> dict[str, Any]:
        try:
            return self._running().ask(image)
        except (_Died, Killed):
            self.close()
            raise

    def _lines(self, image: np.ndarray) -> list[OcrLine]:
        why = ""
        for _ in range(ATTEMPTS):
            try:
                reply = undisturbed(partial(self._ask, image))
            except _Died as e:
                why = str(e)
                continue
            except Killed as e:
                raise DocumentError("ocr-failed", f"PaddleOCR was {e}") from None
            if "error" in reply:
                raise DocumentError("ocr-failed", f"PaddleOCR: {reply['error']}")
            lines = [OcrLine((x0, y0, x1, y1), t.strip(), conf) for x0, y0, x1, y1, t, conf in reply["lines"]]
            return [line for line in lines if line.text]
        raise DocumentError("ocr-failed", f"PaddleOCR died {ATTEMPTS} times of this page: {why}")


class _Server:
    """One server process; ready once it is constructed."""

    def __init__(self, settings: OcrSettings, models: Models | None) -> None:
        python = find_python(settings.python)
        options = {
            "device": settings.device,
            "language": LANGUAGES["paddleocr"][settings.language],
            "models": models and dataclasses.asdict(models),
        }
        environment = {**os.environ, **(ONE_THREAD if settings.device == "cpu" else {})}
        if models:  # else the library asks its hosts, before it looks at the folders
            environment["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the server)
        try:
            self._process = subprocess.Popen(
                [python, "-I", str(SERVER), json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=environment,
            )
        except OSError as e:
            self._said.close()
            raise EngineError(f"ocr.python = {python} cannot be run: {e.strerror}") from None
        try:
            reply = self._receive()
        except _Died as e:
            reply = {"error": str(e)}
        except Killed:
            self.close()
            raise
        if "error" in reply:
            self.close()
            not_installed = reply["error"].startswith(("ModuleNotFoundError", "ImportError"))
            way_out = SET_UP if not_installed else "check ocr.device, ocr.models and the network"
            raise EngineError(f"PaddleOCR cannot start in ocr.python = {python}: {reply['error']}; {way_out}")
        self.about = About(version=str(reply["version"]), inference=str(reply["inference"]))

    def ask(self, image: np.ndarray) -> dict[str, Any]:
        """The server's reply to a page.

        Raises:
            _Died, Killed: it gave none.
        """
        self._said.seek(0)  # what it printed about earlier pages
        self._said.truncate()
        height, width, _ = image.shape
        with contextlib.suppress(BrokenPipeError):  # it is gone: the answer will say so
            assert self._process.stdin is not None
            write_frame(self._process.stdin, {"height": height, "width": width}, np.ascontiguousarray(image).tobytes())
        return self._receive()

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # half a page that nobody will read
                pipe.close()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        broken = ""
        try:
            frame = read_frame(self._process.stdout)
        except BadFrame as e:
            frame, broken = None, f"it broke the protocol ({e})"
        if frame is None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that breaks the protocol may run on
                self._process.wait(END_S if broken else None)
            code = self._process.returncode
            if is_outside_kill(code):
                raise Killed(how_it_ended(code))
            raise _Died(broken or f"{how_it_ended(code)}{self._last_words()}")
        return frame[0]

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1].strip()[:200]}" if lines else ""


def _turned(line: OcrLine, shape: tuple[int, ...]) -> OcrLine:
    """A line that was read on the page turned by 180 degrees, where it stands on the page."""
    height, width = shape[:2]
    x0, y0, x1, y1 = line.box
    return OcrLine((width - x1, height - y1, width - x0, height - y0), line.text, line.confidence)


def find_python(python: str | None) -> str:
    """The interpreter that `ocr.python` names, as a path or a command.

    Raises:
        ConfigError: there is none.
    """
    found = shutil.which(os.path.expanduser(python or ""))
    if found is None:
        raise ConfigError(f"ocr.python = {python!r} is not an executable file; {SET_UP}")
    return found


def find_models(folder: Path, language: str) -> Models:
    """The detector and the recogniser below a folder, each in a folder of its own, as PaddleOCR lays them out.

    Raises:
        ConfigError: not exactly one of each, files are missing, or the recogniser cannot read the language.
    """
    found: dict[str, list[tuple[str, Path]]] = {"det": [], "rec": []}
    for about in sorted(folder.glob("*/inference.yml")):
        name = re.search(r"^\s*model_name:\s*['\"]?([\w.-]+)", about.read_text("utf-8", "replace"), re.MULTILINE)
        kind = name.group(1).rpartition("_")[2] if name else ""
        if name and kind in found:
            found[kind].append((name.group(1), about.parent))
    for kind, what in (("det", "detection"), ("rec", "recognition")):
        if len(found[kind]) != 1:
            names = ", ".join(name for name, _ in found[kind]) or "none"
            raise ConfigError(
                f"ocr.models = {folder} must hold one folder of a {what} model, with inference.yml in it; found {names}"
            )
    (detection,), (recognition,) = found["det"], found["rec"]
    formats = {_format(detection[1]), _format(recognition[1])}
    if len(formats) > 1:
        raise ConfigError(f"ocr.models = {folder} mixes ONNX and Paddle models; name a folder with one kind")
    if language in FETCHED and recognition[0].startswith("PP-OCR"):
        raise ConfigError(
            f"ocr.language = {language!r}, but the recognition model in ocr.models, {recognition[0]}, reads Latin "
            "script, Chinese and Japanese; name a folder with a model of that language"
        )
    return Models(
        detection=(detection[0], str(detection[1].resolve())),
        recognition=(recognition[0], str(recognition[1].resolve())),
        format=formats.pop(),
    )


def _format(folder: Path) -> str:
    if (folder / "inference.onnx").is_file():
        return "onnx"
    if (folder / "inference.pdiparams").is_file() and any((folder / name).is_file() for name in PADDLE_FILES):
        return "paddle"
    raise ConfigError(
        f"ocr.models: {folder} holds neither inference.onnx nor inference.json and inference.pdiparams; "
        "fetch the model again"
    )
