"""`synth.backend: vllm`: a vLLM server that we start, watch, restart and stop.

vLLM runs in an interpreter of its own choosing (`synth.vllm.python`), so that its torch need not be ours, and is
reached as any OpenAI-compatible server would be. It listens on this machine only, at a free port that stays ours while
it is down, and answers nobody without a key that is drawn for it and never on a command line. Between it and us stands
`vllm_supervisor.py`, which ends it with all of its engine processes when this process ends, even by kill -9.

A server that dies is started again, a few times without an answer in between: what it had not answered is asked again.
Loading a large model takes minutes, which is why one server serves the whole run. A server that was killed from outside
is not blamed (`corpus.kills`); of an engine process of vLLM we cannot tell, because vLLM buries it and ends by itself.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from corpus.blocks import clean
from corpus.config import VllmSettings
from corpus.errors import ConfigError, EngineError
from corpus.kills import OUTSIDE_KILLS, Killed, is_outside_kill, undisturbed

HOST = "127.0.0.1"
SUPERVISOR = Path(__file__).with_name("vllm_supervisor.py")
POLL_S = 0.2
PROBE_S = 5.0  # for one answer of /health
SUPERVISOR_S = 10.0  # to end once it has killed everything
MAX_RESTARTS = OUTSIDE_KILLS  # in a run, whatever it answers and whoever killed it
LOG_LINES, LOG_LINE_CHARS, LOG_TAIL_BYTES = 12, 300, 262_144
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours
PREFIX = re.compile(r"(?:\(\w{1,20} pid=\d{1,10}\) )?(?:[A-Z]{1,10} \d\d-\d\d [\d:]{8} \[[^\]\s]{1,80}\] ?)?")
FOLDER = ("/", "~", ".")  # what a path begins with, and no name of a hub
INSIDE_TRACEBACK = (" ", "\t", "Traceback (")
XGRAMMAR = {"backend": "xgrammar", "disable_any_whitespace": True}  # white space without end is valid JSON


def served_name(settings: VllmSettings, model: str) -> str:
    """The name by which requests call the model: as set, else the name of its folder, else its hub name."""
    if settings.served_model_name:
        return settings.served_model_name
    return PurePath(model).name if model.startswith(FOLDER) else model


def command_of(
    settings: VllmSettings, model: str, port: int, *, max_images: int, media: Path | None = None
) -> list[str]:
    """The command that serves the model; `vllm serve`, without the script that not every build installs.

    Arguments of the user come after what they may override and before what they may not: the last one counts.

    Args:
        model: folder or hub name.
        max_images: pages of one request, at most.
        media: folder whose images requests may name by file:// URL, if any.
    """
    command = [settings.python or sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
    command += [os.path.expanduser(model)]
    command += ["--structured-outputs-config", json.dumps(XGRAMMAR)]
    command += ["--generation-config", "vllm"]  # sampling is what a request says, whatever comes with the model
    command += ["--disable-uvicorn-access-log"]
    command += settings.extra_args
    command += ["--host", HOST, "--port", str(port), "--served-model-name", served_name(settings, model)]
    command += ["--tensor-parallel-size", str(settings.tensor_parallel_size)]
    command += ["--data-parallel-size", str(settings.data_parallel_size)]
    if settings.max_model_len is not None:
        command += ["--max-model-len", str(settings.max_model_len)]
    command += ["--enable-prefix-caching"]  # all questions of a segment begin with the same pages
    command += ["--limit-mm-per-prompt", json.dumps({"image": max_images, "video": 0})]
    if media is not None:
        command += ["--allowed-local-media-path", str(media.resolve())]
    return command


def environment_of(settings: VllmSettings, api_key: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: this one, the key, no usage reports, and no modules from the working directory."""
    ours = {"VLLM_API_KEY": api_key, "VLLM_NO_USAGE_STATS": "1", "PYTHONSAFEPATH": "1"}
    drop = {"PYTHONPATH", "PYTHONHOME"} if settings.python else set()  # they are for this interpreter
    return {name: value for name, value in environment.items() if name not in drop} | ours


def checked(settings: VllmSettings, model: str) -> VllmSettings:
    """The settings with the interpreter's whole path.

    Raises:
        ConfigError: no such folder or no such interpreter.
    """
    if model.startswith(FOLDER) and not Path(model).expanduser().is_dir():
        raise ConfigError(f"synth.model = {model!r} is not a folder")
    python = shutil.which(os.path.expanduser(settings.python or sys.executable))
    if python is None:
        raise ConfigError(f"synth.vllm.python = {settings.python!r} is not an executable file")
    return settings.model_copy(update={"python": settings.python and python})


class VllmServer:
    """A running vLLM server, as a context manager; ready for requests once it is entered.

    Args:
        model, max_images, media: see `command_of`.
        log: file that everything vLLM prints is added to.

    Raises:
        ConfigError: no such folder or no such interpreter.
        EngineError: it died before it was ready, or was not ready in time; shows the last lines of its log.
    """

    def __init__(
        self, settings: VllmSettings, model: str, *, log: Path, max_images: int, media: Path | None = None
    ) -> None:
        self._settings = checked(settings, model)
        self._log = log
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does: it can bind the port beside us
        self._held.bind((HOST, 0))
        self._port: int = self._held.getsockname()[1]
        self._command = command_of(self._settings, model, self._port, max_images=max_images, media=media)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # where the present process's part of the log begins, bytes
        self._lock = threading.Lock()  # held while the process is changed
        self._stopping = threading.Event()
        self.base_url = f"http://{HOST}:{self._port}/v1"
        self.api_key = secrets.token_urlsafe(32)
        self.model = served_name(settings, model)
        self.restarts = 0  # in all
        self._deaths = 0  # by itself, since it answered

    def __enter__(self) -> VllmServer:
        try:
            with self._lock:
                undisturbed(self._start)
        except Killed as e:
            self.stop()
            raise EngineError(f"vLLM cannot be started: {e}") from None
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def note_answer(self) -> None:
        """For callers to say that a request was answered: deaths are counted anew."""
        self._deaths = 0

    def ensure_running(self) -> int:
        """Return when the server answers, and how often it was started again; start it again if it died.

        For callers whose connection failed. Blocks, for minutes where a model is loaded. Callers may be threads: one
        restarts, the others wait for it.

        Raises:
            EngineError: it died too often, or was stopped.
        """
        with self._lock:
            if self._comes_round():
                return self.restarts
            death: Exception = self._end()
            while self._may_start_again(death):
                self.restarts += 1
                try:
                    self._start()
                    return self.restarts
                except (EngineError, Killed) as e:
                    self._refuse_if_stopping()
                    death = e
            raise EngineError(f"vLLM was started again {self.restarts} times and is down; {death}")

    def _may_start_again(self, death: Exception) -> bool:
        self._deaths += not isinstance(death, Killed)
        return self._deaths <= self._settings.max_restarts and self.restarts < MAX_RESTARTS

    def stop(self) -> None:
        """End the server and all of its processes; also from another thread than the one that waits for it."""
        self._stopping.set()
        with self._lock:
            self._end()
            self._held.close()

    def _start(self) -> None:
        """Start a process and wait until it is ready."""
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                log.write(f"longdoc starts: {shlex.join(self._command)}\n".encode(errors="replace"))
                log.flush()
                self._log_start = log.tell()
                self._process = self._supervised(log)
        except OSError as e:
            raise EngineError(f"vLLM cannot be started: {e}") from None
        deadline = time.monotonic() + self._settings.start_timeout_s
        while not self._is_healthy():
            if self._has_ended():
                death = self._end()
                raise type(death)(f"vLLM was not ready when it ended; {death}")
            if time.monotonic() > deadline:
                why = self._end()
                limit = self._settings.start_timeout_s
                raise EngineError(f"vLLM was not ready after {limit:g} s; raise synth.vllm.start_timeout_s; {why}")
            self._stopping.wait(POLL_S)
            self._refuse_if_stopping()

    def _supervised(self, log: BinaryIO) -> subprocess.Popen[bytes]:
        arguments = [str(os.getpid()), str(self._settings.stop_timeout_s), *self._command]
        return subprocess.Popen(
            [sys.executable, "-I", str(SUPERVISOR), *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment_of(self._settings, self.api_key, os.environ),
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def _refuse_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise EngineError("vLLM was stopped")

    def _comes_round(self) -> bool:
        """Whether the server answers, now or soon; a busy one may be late, one whose engine died ends by itself."""
        self._refuse_if_stopping()
        deadline = time.monotonic() + self._settings.health_timeout_s
        while not self._has_ended() and time.monotonic() < deadline:
            if self._is_healthy():
                return True
            self._stopping.wait(POLL_S)
            self._refuse_if_stopping()
        return False

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=PROBE_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _has_ended(self) -> bool:
        """Whether the supervisor ended, and with it everything that it watched."""
        return self._process is None or _ended_within(self._process.pid, 0)

    def _end(self) -> EngineError | Killed:
        """End what runs, if anything does; how it ended and what it said last."""
        process, self._process = self._process, None
        if process is None:
            return EngineError("it is not running")
        ended_itself = _ended_within(process.pid, 0)
        assert process.stdin is not None
        process.stdin.close()  # tells the supervisor to end everything
        _ended_within(process.pid, self._settings.stop_timeout_s + SUPERVISOR_S)
        with contextlib.suppress(ProcessLookupError):  # where the supervisor was killed: what it left, and itself
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if not ended_itself:
            return EngineError(f"we ended it; {self._last_lines()}")
        how = f"{_end_of(code)}; {self._last_lines()}"
        return Killed(how) if _is_outside_kill(code) else EngineError(how)

    def _last_lines(self) -> str:
        try:
            with self._log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - LOG_TAIL_BYTES))
                lines = log.read(LOG_TAIL_BYTES).decode("utf-8", "replace").splitlines()
        except OSError as e:
            return f"its log, {self._log}, cannot be read: {e.strerror}"
        last = telling_lines(lines)[-LOG_LINES:]
        return f"the end of its log, {self._log}:" + "".join(f"\n| {line}" for line in last or ["(it said nothing)"])


def telling_lines(lines: Sequence[str]) -> list[str]:
    """The lines of vLLM's log that say what happened, each once, without their prefixes and the frames of tracebacks.

    When an engine process fails, its error comes first, and then that of every process which waited for it.
    """
    told = dict.fromkeys(
        rest for line in lines if (rest := _unprefixed(line)) and not rest.startswith(INSIDE_TRACEBACK)
    )
    return [line for text in told if (line := clean(text)[:LOG_LINE_CHARS])]


def _unprefixed(line: str) -> str:
    plain = ESCAPE.sub("", line)
    prefix = PREFIX.match(plain)
    return plain[prefix.end() :] if prefix else plain


def _ended_within(pid: int, limit_s: float) -> bool:
    """Whether a child ends in time. It is not reaped: until then no other process group can have its number."""
    deadline = time.monotonic() + limit_s
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S / 10)
    return True


def _is_outside_kill(code: int) -> bool:
    """Whether the supervisor or the server was killed from outside, by the supervisor's exit code."""
    return is_outside_kill(code) or is_outside_kill(128 - code)


def _end_of(code: int) -> str:
    """How the server ended, from its supervisor's exit code: as a shell's, or negative where a signal killed that."""
    number = -code if code < 0 else code - 128
    known = {s.value: s.name for s in signal.Signals}
    return f"it was killed by {known[number]}" if number in known else f"it exited with code {code}"
