"""PaddleOCR's process: protocol, death, restart, orphans, memory; with a library that reads nothing.

The real library is read with in `test_corpus_paddleocr_engine.py`.
"""

from __future__ import annotations

import ast
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fakes
import numpy as np
import pytest
from test_corpus_workers import eventually, is_running

from corpus import paddle
from corpus.config import OcrSettings
from corpus.errors import ConfigError, DocumentError, EngineError
from corpus.ocr import OcrLine, engine_version, identity, load_engine
from corpus.paddle import PaddleOcr, find_models
from corpus.paddle_server import MAX_HEADER_BYTES, BadFrame, read_frame, write_frame
from corpus.workers import ATTEMPTS, KILLED, OUT_OF_MEMORY, WORKER_DIED, Task, WorkerPool, resident_bytes

ROOT = Path(__file__).parent.parent
LONG_S = 60.0
LINE = OcrLine((1.0, 2.0, 57.0, 12.0), "Words on the page", 0.99)


@pytest.fixture
def python(tmp_path: Path) -> str:
    return str(fakes.write_paddle_environment(tmp_path / "environment"))


@pytest.fixture
def library(python: str) -> Path:
    """Where the library keeps its notes."""
    return Path(python).parents[1] / "library"


def settings(python: str, **more: object) -> OcrSettings:
    return OcrSettings(engine="paddleocr", python=python, **more)  # type: ignore[arg-type]


@pytest.fixture
def engine(python: str) -> Iterator[PaddleOcr]:
    made = PaddleOcr(settings(python))
    yield made
    made.close()


def starts(library: Path) -> list[int]:
    """Process ids of every server so far."""
    return [int(line) for line in (library / "starts.txt").read_text().split()]


def options(library: Path) -> dict[str, object]:
    found: dict[str, object] = ast.literal_eval((library / "options.txt").read_text())
    return found


# ---------------------------------------------------------------------------------------------------------- frames


def test_frames_arrive_as_they_were_sent() -> None:
    pipe = io.BytesIO()
    write_frame(pipe, {"height": 2, "text": "é\n"}, b"\x00\xff\n")
    write_frame(pipe, {"lines": []})
    pipe.seek(0)
    assert read_frame(pipe) == ({"height": 2, "text": "é\n", "num_bytes": 3}, b"\x00\xff\n")
    assert read_frame(pipe) == ({"lines": [], "num_bytes": 0}, b"")
    assert read_frame(pipe) is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"Traceback (most recent call last):\n",  # a header of 1.4 GB, if it were one
        b"\x00\x00\x00\x00",
        b"\x00\x00",
        b"\x00\x00\x00\x08{}",
        b"\x00\x00\x00\x02{}",  # no num_bytes
        b"\x00\x00\x00\x02[]",
        b"\x00\x00\x00\x02no",
        b'\x00\x00\x00\x0f{"num_bytes":9}short',
        (MAX_HEADER_BYTES + 1).to_bytes(4, "big") + b"{",
    ],
)
def test_what_is_no_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadFrame):
        read_frame(io.BytesIO(garbage))


# ------------------------------------------------------------------------------------------------------------ pages


def test_a_page_is_read_whatever_the_library_prints(engine: PaddleOcr, library: Path) -> None:
    for _ in range(3):
        assert engine.read(fakes.page_that_asks(0)) == [LINE]
    assert len(starts(library)) == 1
    assert engine.version == "3.0, onnxruntime"


def test_one_thread_a_worker_and_no_model_beyond_the_two(python: str, library: Path) -> None:
    PaddleOcr(settings(python, language="ko")).close()
    asked = options(library)
    assert asked["engine_config"] == {
        "intra_op_num_threads": 1,
        "inter_op_num_threads": 1,
        "enable_cpu_mem_arena": False,
    }
    assert (asked["lang"], asked["device"]) == ("korean", "cpu")
    assert [v for k, v in asked.items() if k.startswith("use_")] == [False] * 3
    PaddleOcr(settings(python, device="gpu")).close()
    assert (options(library)["engine_config"], options(library)["device"]) == ({}, "gpu")
    (library / "paddle.py").touch()
    PaddleOcr(settings(python)).close()
    assert (options(library)["engine"], options(library)["cpu_threads"]) == ("paddle", 1)


def test_models_of_a_folder_are_named_to_the_library(python: str, library: Path, tmp_path: Path) -> None:
    models = write_models(tmp_path / "models")
    PaddleOcr(settings(python, models=str(models))).close()
    asked = options(library)
    assert asked["text_detection_model_name"] == "PP-OCRv6_small_det"
    assert asked["text_recognition_model_dir"] == str(models / "b")
    assert "lang" not in asked


def test_a_page_that_the_library_cannot_read_costs_the_page(engine: PaddleOcr, library: Path) -> None:
    with pytest.raises(DocumentError, match=r"PaddleOCR: ValueError: cannot read this$") as caught:
        engine.read(fakes.page_that_asks(fakes.RAISE))
    assert caught.value.reason == "ocr-failed"
    assert engine.read(fakes.page_that_asks(0)) == [LINE]
    assert len(starts(library)) == 1


def test_a_server_that_died_is_started_again_for_its_page(engine: PaddleOcr, library: Path) -> None:
    assert engine.read(fakes.page_that_asks(fakes.KILLED_ONCE)) == [LINE]
    assert len(starts(library)) == 2
    os.kill(starts(library)[-1], signal.SIGKILL)  # while it has nothing to do
    assert engine.read(fakes.page_that_asks(0)) == [LINE]
    assert len(starts(library)) == 3


def test_kills_from_outside_are_no_fault_of_the_page(
    engine: PaddleOcr, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = paddle.ATTEMPTS + 3
    assert engine.read(fakes.page_that_asks(fakes.KILLED_SO_OFTEN, kills)) == [LINE]
    assert len(starts(library)) == kills + 1
    monkeypatch.setattr("corpus.kills.OUTSIDE_KILLS", 4)
    with pytest.raises(DocumentError, match="PaddleOCR was killed by SIGKILL 4 times, from outside"):
        engine.read(fakes.page_that_asks(fakes.KILLED_SO_OFTEN, 100))
    assert not any(map(is_running, starts(library)))


def test_a_kill_while_it_starts_is_no_fault_of_its_setting(python: str, library: Path) -> None:
    (library / "killed-at-start").write_text("3")
    engine = PaddleOcr(settings(python))
    assert engine.read(fakes.page_that_asks(0)) == [LINE]
    os.kill(starts(library)[-1], signal.SIGKILL)
    (library / "killed-at-start").write_text("3")
    assert engine.read(fakes.page_that_asks(0)) == [LINE]
    engine.close()
    assert len(starts(library)) == 8


def test_a_reply_that_was_cut_off_by_a_kill_is_asked_for_again(python: str, library: Path) -> None:
    (library / "killed-in-reply").touch()
    engine = PaddleOcr(settings(python))
    assert engine.read(fakes.page_that_asks(0)) == [LINE]
    engine.close()
    assert len(starts(library)) == 2


@pytest.mark.parametrize(
    ("what", "why"),
    [(fakes.CRASH, "killed by SIGSEGV"), (fakes.LEAVE, "exited with code 7: last words of the library")],
)
def test_a_page_that_crashes_it_twice_is_given_up_with_the_reason(
    engine: PaddleOcr, library: Path, what: int, why: str
) -> None:
    with pytest.raises(DocumentError, match=f"died 2 times of this page: {why}"):
        engine.read(fakes.page_that_asks(what, 7))
    assert len(starts(library)) == 2
    assert engine.read(fakes.page_that_asks(0)) == [LINE]
    assert not any(map(is_running, starts(library)[:2]))


def test_a_page_on_its_head_is_read_turned(engine: PaddleOcr) -> None:
    page = fakes.page_that_asks(fakes.UPSIDE_DOWN)
    assert engine.read(page) == [OcrLine((3.0, 28.0, 59.0, 38.0), "Words on the page", 0.99)]


def test_a_page_of_the_wrong_size_is_refused_by_the_server(python: str) -> None:
    engine = PaddleOcr(settings(python))
    pixels = np.zeros((4, 4, 3), np.uint8)
    header = {"height": 5, "width": 4}
    server = engine._running()
    assert server._process.stdin is not None
    write_frame(server._process.stdin, header, pixels.tobytes())
    assert "cannot reshape" in server._receive()["error"]
    engine.close()


# ------------------------------------------------------------------------------------------------------------ starts


def test_what_cannot_start_is_the_users_before_a_build_begins(python: str, library: Path, tmp_path: Path) -> None:
    for wrong in (str(tmp_path / "nowhere" / "python"), str(tmp_path), "no-such-command"):
        with pytest.raises(ConfigError, match=r"ocr.python = .* is not an executable file; see `corpus doctor`"):
            engine_version(settings(wrong))
    with pytest.raises(ConfigError, match="exited with code 0; check"):
        engine_version(settings("true"))
    (tmp_path / "noise").write_text("#!/bin/sh\necho Hello, this is no frame\nsleep 600\n")
    (tmp_path / "noise").chmod(0o755)
    with pytest.raises(ConfigError, match="it broke the protocol"):
        engine_version(settings(str(tmp_path / "noise")))
    (library / "broken").write_text("CUDAExecutionProvider is not available")
    with pytest.raises(ConfigError, match=r"RuntimeError: CUDAExecutionProvider is not available; check ocr\.device"):
        engine_version(settings(python, device="gpu"))
    (library / "broken").unlink()
    (library / "paddleocr.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    with pytest.raises(ConfigError, match=r"ImportError: libGL\.so\.1: .*; see `corpus doctor`"):
        engine_version(settings(python, device="gpu"))
    (library / "paddleocr.py").unlink()
    with pytest.raises(ConfigError, match="No module named 'paddleocr'; see `corpus doctor`"):
        engine_version(settings(python))


def test_a_server_that_cannot_start_again_ends_the_run(engine: PaddleOcr, library: Path) -> None:
    (library / "broken").write_text("the device is gone")
    with pytest.raises(EngineError, match="the device is gone"):
        engine.read(fakes.page_that_asks(fakes.CRASH))


def test_nothing_of_ours_is_visible_to_the_other_interpreter(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "paddleocr.py").write_text("raise ImportError('from our own path')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "ours"))
    PaddleOcr(settings(python)).close()
    source = (ROOT / "corpus" / "paddle_server.py").read_text()
    imported = {n for node in ast.walk(ast.parse(source)) for n in imported_by(node)}
    assert imported <= sys.stdlib_module_names | {"numpy", "paddleocr"}


def imported_by(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {str(node.module).partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_the_engine_is_loaded_once_a_process(python: str) -> None:
    engine = load_engine(settings(python))
    assert load_engine(settings(python)) is engine
    assert isinstance(engine, PaddleOcr)
    engine.close()


# ------------------------------------------------------------------------------------------------------- identities


def test_what_changes_the_text_of_a_page_is_its_identity(python: str, tmp_path: Path) -> None:
    models = write_models(tmp_path / "models")
    base = settings(python)
    assert identity(base) == ["paddleocr 3.0, onnxruntime", "144", "0.5", "cpu", "en"]
    assert identity(settings(python, low_confidence=0.1)) == identity(base)
    other = {"language": "de", "device": "gpu", "dpi": 200, "min_confidence": 0.1, "models": str(models)}
    different = [identity(settings(python, **{name: value})) for name, value in other.items()]
    assert len({tuple(d) for d in (*different, identity(base))}) == 1 + len(other)
    assert identity(settings(python, models=str(models), language="de")) == different[-1]
    (models / "b" / "inference.onnx").write_bytes(b"another model")
    assert identity(settings(python, models=str(models))) != different[-1]
    assert identity(OcrSettings(language="de")) == identity(OcrSettings())
    assert identity(OcrSettings(engine="none"))[0] == "none"


# ----------------------------------------------------------------------------------------------------------- models


def write_models(folder: Path, recogniser: str = "PP-OCRv6_small_rec") -> Path:
    for name, model in (("a", "PP-OCRv6_small_det"), ("b", recogniser)):
        (folder / name).mkdir(parents=True)
        (folder / name / "inference.yml").write_text(f"Global:\n  model_name: {model}\nPostProcess:\n  name: other\n")
        (folder / name / "inference.onnx").write_bytes(model.encode())
    return folder


def test_models_are_found_by_what_they_say_they_are(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "models")
    (folder / "c").mkdir()
    (folder / "c" / "inference.yml").write_text("Global:\n  model_name: PP-LCNet_x1_0_textline_ori\n")
    found = find_models(folder, "en")
    assert found.detection == ("PP-OCRv6_small_det", str(folder / "a"))
    assert found.recognition == ("PP-OCRv6_small_rec", str(folder / "b"))
    assert (found.format, len(found.digests())) == ("onnx", 4)
    for name in ("a", "b"):
        (folder / name / "inference.onnx").unlink()
        (folder / name / "inference.json").write_text("{}")
        (folder / name / "inference.pdiparams").touch()
    assert find_models(folder, "en").format == "paddle"


def spoil_nothing_there(folder: Path) -> None:
    for file in folder.glob("*/*"):
        file.unlink()


def spoil_two_recognisers(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "inference.yml").write_text("Global:\n  model_name: latin_PP-OCRv5_mobile_rec\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_nothing_there, r"one folder of a detection model, .*; found none"),
        (lambda f: (f / "b" / "inference.yml").unlink(), r"one folder of a recognition model, .*; found none"),
        (spoil_two_recognisers, "found PP-OCRv6_small_rec, latin_PP-OCRv5_mobile_rec"),
        (lambda f: (f / "b" / "inference.onnx").unlink(), "b holds neither inference.onnx nor"),
        (lambda f: (f / "b" / "inference.onnx").rename(f / "b" / "inference.json"), "holds neither"),
    ],
)
def test_a_folder_without_the_expected_files_is_refused(
    tmp_path: Path, python: str, spoil: Callable[[Path], None], says: str
) -> None:
    folder = write_models(tmp_path / "models")
    spoil(folder)
    with pytest.raises(ConfigError, match=says):
        engine_version(settings(python, models=str(folder)))


def test_mixed_models_and_models_of_another_language_are_refused(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "models")
    with pytest.raises(ConfigError, match=r"'ko', but the recognition model in ocr\.models, PP-OCRv6_small_rec, reads"):
        find_models(folder, "ko")
    (folder / "b" / "inference.onnx").unlink()
    (folder / "b" / "inference.pdmodel").touch()
    (folder / "b" / "inference.pdiparams").touch()
    with pytest.raises(ConfigError, match="mixes ONNX and Paddle"):
        find_models(folder, "en")
    korean = write_models(tmp_path / "korean", "korean_PP-OCRv5_mobile_rec")
    assert find_models(korean, "ko").recognition[0].startswith("korean")


# ---------------------------------------------------------------------------------------------------------- orphans


@pytest.mark.parametrize("what", [0, fakes.HANG], ids=["idle", "busy"])
def test_a_server_ends_with_its_parent(python: str, library: Path, what: int) -> None:
    parent = "import sys, fakes\nfakes.ask_paddle((sys.argv[1], int(sys.argv[2]), 0), print)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", parent, python, str(what)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"},
        stdin=subprocess.PIPE,
    )
    try:
        assert eventually((library / "reading.txt").exists, within_s=LONG_S)
        (server,) = starts(library)
        assert is_running(server)
    finally:
        process.kill()
        process.communicate()
    assert eventually(lambda: not is_running(server))


def test_a_server_counts_towards_the_memory_of_its_worker_and_dies_with_it(python: str, library: Path) -> None:
    with WorkerPool(1, memory_mb=600) as pool:
        (outcome,) = pool.run([Task("eat", fakes.ask_paddle, (python, fakes.EAT, 60), LONG_S)], lambda _: None)
        assert outcome.value.reason == OUT_OF_MEMORY
        assert eventually(lambda: not any(map(is_running, starts(library))))
        (outcome,) = pool.run([Task("fine", fakes.ask_paddle, (python, 0, 0), LONG_S)], lambda _: None)
        assert outcome.value is None
        server = starts(library)[-1]
        assert is_running(server)  # it waits for the worker's next page
    assert eventually(lambda: not is_running(server))


def test_a_worker_that_is_killed_leaves_no_server(python: str, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTEMPTS, KILLED, 3)
    with WorkerPool(1, memory_mb=2_000) as pool:

        def kill_workers() -> None:
            for attempt in range(3):
                assert eventually((library / "reading.txt").exists, within_s=LONG_S)
                worker = pool._busy[0].process.pid
                (library / "reading.txt").unlink()
                os.kill(worker, signal.SIGKILL)
                assert eventually(lambda: not is_running(starts(library)[-1])), attempt

        killer = threading.Thread(target=kill_workers)
        killer.start()
        (outcome,) = pool.run([Task("hang", fakes.ask_paddle, (python, fakes.HANG, 0), LONG_S)], lambda _: None)
        killer.join()
        assert outcome.value.reason == WORKER_DIED
        assert len(starts(library)) == 3
        assert eventually(lambda: not any(map(is_running, starts(library))))


def test_memory_counts_descendants() -> None:
    hold = "x = b'x' * (100 << 20); import sys; print('ready', flush=True); sys.stdin.read()"
    both = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hold!r}])"
    process = subprocess.Popen([sys.executable, "-c", both], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        assert 100 << 20 < resident_bytes(process.pid) < 300 << 20
    finally:
        process.communicate()
    assert resident_bytes(process.pid) == 0


def test_a_server_says_what_came_last(engine: PaddleOcr) -> None:
    """What it printed of earlier pages is dropped, so that its messages do not fill a disk."""
    for _ in range(5):
        engine.read(fakes.page_that_asks(0))
    said = engine._running()._said
    said.seek(0)
    assert said.read().count(b"reading") == 1
    assert paddle.ATTEMPTS == 2
