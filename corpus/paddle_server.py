"""PaddleOCR behind a pipe. The interpreter that PaddleOCR lives in runs this file as a script:

    PYTHON -I paddle_server.py OPTIONS

It imports the standard library, numpy and paddleocr, nothing of longdoc, because PaddleOCR clashes with torch and
vLLM and so lives in an environment that has neither them nor us. `corpus.paddle` is the other end of the pipe.

A frame is the length of its header (4 bytes, big endian), the header as JSON, and as many raw bytes as the header's
`num_bytes` says. Data cannot become code on either side, as it could with pickle. The first frame out says what was
loaded, then each page in (`height`, `width`, RGB bytes) has one frame out: its lines, or the error it met. Whatever
the library prints goes to stderr, because the pipe is moved away from the descriptors it prints to. The process ends
with its input, and on Linux with its parent, however the parent dies.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO, Any

MAX_HEADER_BYTES = 1 << 24  # a page of text takes thousands; more is no header of ours
PAGE_CHANNELS = 3

Read = Callable[[dict[str, Any], bytes], list[list[Any]]]


class BadFrame(Exception):
    """What came through the pipe is no frame."""


def write_frame(pipe: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    """Send one frame."""
    text = json.dumps({**header, "num_bytes": len(payload)}).encode()
    pipe.write(struct.pack(">I", len(text)) + text)
    pipe.write(payload)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Receive one frame: header and payload; None where the pipe ended between two frames.

    Raises:
        BadFrame: the pipe ended inside a frame, or what it gave is none.
    """
    prefix = pipe.read(4)
    if not prefix:
        return None
    (length,) = struct.unpack(">I", prefix) if len(prefix) == 4 else (0,)
    if not 0 < length <= MAX_HEADER_BYTES:
        raise BadFrame(f"no frame begins with {prefix!r}")
    try:
        header = json.loads(_read_exactly(pipe, length))
        payload = _read_exactly(pipe, header["num_bytes"])
    except (ValueError, KeyError, TypeError) as e:
        raise BadFrame(f"no header of a frame: {e}") from None
    return header, payload


def _read_exactly(pipe: IO[bytes], num_bytes: int) -> bytes:
    data = pipe.read(num_bytes)
    if len(data) != num_bytes:
        raise BadFrame(f"the pipe ended after {len(data)} of {num_bytes} bytes")
    return data


def serve(options: dict[str, Any]) -> None:
    """Load PaddleOCR, then answer pages until the input ends."""
    die_with_parent()
    requests, replies = take_pipes()
    try:
        read, about = load(options)
    except (Exception, SystemExit) as e:  # whatever the library does when it cannot start is the answer
        write_frame(replies, {"error": one_line(e)})
        return
    write_frame(replies, about)
    while frame := read_frame(requests):
        try:
            reply: dict[str, Any] = {"lines": read(*frame)}
        except (Exception, SystemExit) as e:  # it costs the page
            reply = {"error": one_line(e)}
        write_frame(replies, reply)


def take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for our own use; to the rest of the process they are empty and stderr."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return requests, replies


def load(options: dict[str, Any]) -> tuple[Read, dict[str, Any]]:
    """A function that reads a page, and what it reads with.

    `options`: device, language, and the models as {detection: [name, folder], recognition: [name, folder], format},
    or null for PaddleOCR's own choice for the language.
    """
    import numpy as np
    import paddleocr

    models, device = options["models"], options["device"]
    has_paddle = importlib.util.find_spec("paddle") is not None
    inference = "paddle" if (models["format"] == "paddle" if models else has_paddle) else "onnxruntime"
    choice: dict[str, Any] = {"lang": options["language"]}
    if models:
        choice = {}
        for kind in ("detection", "recognition"):
            choice[f"text_{kind}_model_name"], choice[f"text_{kind}_model_dir"] = models[kind]
    if inference == "onnxruntime":
        limits = {"intra_op_num_threads": 1, "inter_op_num_threads": 1, "enable_cpu_mem_arena": False}
        choice["engine_config"] = limits if device == "cpu" else {}
    elif device == "cpu":
        choice["cpu_threads"] = 1
    engine = paddleocr.PaddleOCR(
        engine=inference,
        device=device,
        use_doc_orientation_classify=False,
        use_doc_unwarping=False,
        use_textline_orientation=False,
        text_rec_score_thresh=0.0,
        **choice,
    )

    def read(header: dict[str, Any], pixels: bytes) -> list[list[Any]]:
        """Lines of a page as [x0, y0, x1, y1, text, confidence], boxes in pixels."""
        page = np.frombuffer(pixels, np.uint8).reshape(header["height"], header["width"], PAGE_CHANNELS)
        found = engine.predict(np.ascontiguousarray(page[:, :, ::-1]))[0]  # the engine expects BGR
        lines = []
        for corners, text, score in zip(found["rec_polys"], found["rec_texts"], found["rec_scores"], strict=True):
            corners = np.asarray(corners, float)
            lines.append([*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist(), str(text), float(score)])
        return lines

    return read, {"version": importlib.metadata.version("paddleocr"), "inference": inference}


def one_line(error: BaseException) -> str:
    """The error's class and the first line of what it says."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:500]


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies. A parent that is dead already has closed our input."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
