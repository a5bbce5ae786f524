"""vLLM as a child process: command, start, death, restart, stop, orphans; with a vLLM that serves nothing.

The real vLLM answers in `test_synth_vllm_engine.py`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fake_vllm import starts, write_fake_vllm
from pydantic import ValidationError
from test_corpus_workers import eventually, is_running

from corpus.config import VllmSettings
from corpus.errors import ConfigError, EngineError
from synth import vllm_server
from synth.vllm_server import VllmServer, command_of, environment_of, served_name, telling_lines

ROOT = Path(__file__).parent.parent
LONG_S = 60.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny-VL"
    folder.mkdir()
    return folder


QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "vllm.log"


def settings(model: Path, **more: object) -> VllmSettings:
    python = write_fake_vllm(model / "python")
    return VllmSettings(python=str(python), **{"stop_timeout_s": 10, **more})  # type: ignore[arg-type]


def plan(model: Path, *lines: str) -> None:
    (model / "plan.txt").write_text("\n".join(lines))


def processes(model: Path) -> list[int]:
    """Process ids of every server and engine so far."""
    return [pid for note in starts(model) for pid in (note["pid"], note["engine"])]


def all_gone(model: Path) -> bool:
    return not any(map(is_running, processes(model)))


def scratch(model: Path) -> list[Path]:
    """Where the server keeps temporary files, each time."""
    return [Path(note["environment"]["TMPDIR"]) for note in starts(model)]


def models_of(server: VllmServer, key: str) -> object:
    request = urllib.request.Request(f"{server.base_url}/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=LONG_S) as answer:
        return json.load(answer)["data"]


# --------------------------------------------------------------------------------------------------------- command


def after(command: list[str], name: str) -> str:
    """The last value given for an argument."""
    return command[len(command) - command[::-1].index(name)]


def test_the_command_says_everything(tmp_path: Path) -> None:
    asked = VllmSettings(
        python="/opt/vllm/bin/python",
        tensor_parallel_size=2,
        data_parallel_size=4,
        max_model_len=65_536,
        extra_args=("--gpu-memory-utilization", "0.95"),
    )
    command = command_of(asked, QWEN, 8123, max_images=15, media=tmp_path)
    assert command[:5] == [asked.python, "-m", "vllm.entrypoints.cli.main", "serve", QWEN]
    expected = {
        "--host": "127.0.0.1",
        "--port": "8123",
        "--served-model-name": QWEN,
        "--tensor-parallel-size": "2",
        "--data-parallel-size": "4",
        "--max-model-len": "65536",
        "--limit-mm-per-prompt": '{"image": 15, "video": 0}',
        "--allowed-local-media-path": str(tmp_path),
        "--gpu-memory-utilization": "0.95",
        "--generation-config": "vllm",
        "--structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}',
    }
    assert {name: after(command, name) for name in expected} == expected
    assert "--enable-prefix-caching" in command


def test_what_is_not_set_is_not_said() -> None:
    command = command_of(VllmSettings(), "m", 1, max_images=1)
    assert command[0] == sys.executable
    assert not {"--max-model-len", "--allowed-local-media-path"} & set(command)


def test_extra_arguments_override_defaults_and_nothing_else() -> None:
    extra = ("--structured-outputs-config", "{}", "--hos", "0.0.0.0", "--no-enable-prefix-caching")
    command = command_of(VllmSettings(extra_args=extra), "m", 1, max_images=1)
    assert after(command, "--structured-outputs-config") == "{}"
    place = command.index
    assert place("--hos") < place("--host")
    assert place("--no-enable-prefix-caching") < place("--enable-prefix-caching")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--port", "longdoc sets it itself"),
        ("--host=0.0.0.0", "longdoc sets it itself"),
        ("--api_key", "longdoc sets it itself"),
        ("-tp=2", "use synth.vllm.tensor_parallel_size"),
        ("--max_model_len=10", "use synth.vllm.max_model_len"),
    ],
)
def test_arguments_that_are_ours_are_refused(argument: str, says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)):
        VllmSettings(extra_args=("--enforce-eager", argument))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"),
        ("/data/models/Qwen3-VL/", "Qwen3-VL"),
        ("~/models/Qwen3-VL", "Qwen3-VL"),
        ("./Qwen3-VL", "Qwen3-VL"),
    ],
)
def test_a_folder_is_served_by_its_own_name(model: str, name: str) -> None:
    assert served_name(VllmSettings(), model) == name
    assert served_name(VllmSettings(served_model_name="writer"), model) == "writer"


def test_the_environment_has_the_key_and_no_modules_of_ours() -> None:
    ours = {"PATH": "/bin", "PYTHONPATH": "/ours", "VLLM_API_KEY": "old"}
    here = environment_of(VllmSettings(), "key", ours)
    assert here == {
        "PATH": "/bin",
        "PYTHONPATH": "/ours",
        "VLLM_API_KEY": "key",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONSAFEPATH": "1",
    }
    assert "PYTHONPATH" not in environment_of(VllmSettings(python="/other/python"), "key", ours)


# ----------------------------------------------------------------------------------------------------------- start


def test_it_serves_and_leaves_nothing(model: Path, log: Path) -> None:
    with VllmServer(settings(model), str(model), log=log, max_images=15) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", server.base_url)
        assert models_of(server, server.api_key) == [{"id": "Tiny-VL", "object": "model"}]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            models_of(server, "guessed")
        server.ensure_running()
        assert server.restarts == 0
        assert len(processes(model)) == 2 and all(map(is_running, processes(model)))
    assert all_gone(model)
    server.stop()  # once more does no harm


def test_the_key_is_new_each_time_and_on_no_command_line(model: Path, log: Path) -> None:
    keys = []
    for _ in range(2):
        with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
            keys.append(server.api_key)
            for pid in (starts(model)[-1]["pid"], server._process and server._process.pid):
                assert server.api_key not in Path(f"/proc/{pid}/cmdline").read_text()
    first, second = starts(model)
    assert first["environment"]["VLLM_API_KEY"] == keys[0] != keys[1] == second["environment"]["VLLM_API_KEY"]
    assert len(keys[0]) >= 32
    said = log.read_text()
    assert said.count("longdoc starts: ") == said.count("start ") == 2
    assert not any(key in said for key in keys)


def test_no_folder_and_no_interpreter_are_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"synth\.model = '/no/such' is not a folder"):
        VllmServer(VllmSettings(), "/no/such", log=tmp_path / "log", max_images=1)
    with pytest.raises(ConfigError, match=r"synth\.vllm\.python = '/no/such'"):
        VllmServer(VllmSettings(python="/no/such"), "m", log=tmp_path / "log", max_images=1)


def test_a_death_at_the_start_shows_the_log(model: Path, log: Path) -> None:
    plan(model, "die")
    with pytest.raises(EngineError) as caught, VllmServer(settings(model), str(model), log=log, max_images=1):
        pass
    lines = str(caught.value).splitlines()
    assert lines[0] == f"vLLM was not ready when it ended; it exited with code 3; the end of its log, {log}:"
    assert lines[1:] == ["| start 1: die", "| RuntimeError: no memory is left"]
    assert len(starts(model)) == 1  # a start that fails would fail again
    assert all_gone(model)


def test_an_interpreter_without_vllm_says_so(tmp_path: Path) -> None:
    alone = tmp_path / "python"
    alone.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    alone.chmod(0o755)
    asked = VllmSettings(python=str(alone))
    with (
        pytest.raises(EngineError, match="No module named 'vllm'"),
        VllmServer(asked, str(model), log=tmp_path / "l", max_images=1),
    ):
        pass


def test_what_cannot_be_executed_says_so(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/no/such/shell\n")
    broken.chmod(0o755)
    asked = VllmSettings(python=str(broken))
    with pytest.raises(EngineError, match=r"\| cannot run .*: No such file"):
        VllmServer(asked, str(model), log=tmp_path / "log", max_images=1).__enter__()


def test_a_log_that_cannot_be_written_says_so(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="cannot be started"):
        VllmServer(settings(model), str(model), log=tmp_path / "file" / "log", max_images=1).__enter__()
    assert starts(model) == []


def test_a_start_that_hangs_is_ended(model: Path, log: Path) -> None:
    plan(model, "hang stubborn")
    asked = settings(model, start_timeout_s=1, stop_timeout_s=0.2)
    with pytest.raises(
        EngineError, match=r"not ready after 1 s; raise synth\.vllm\.start_timeout_s(.|\n)*start 1: hang"
    ):
        VllmServer(asked, str(model), log=log, max_images=1).__enter__()
    assert all_gone(model)


def test_a_long_log_is_shown_in_part(model: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "LOG_TAIL_BYTES", 1_000)
    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        with log.open("a") as said:
            said.write("".join(f"line {i}\n" for i in range(100_000)) + "x" * 500 + "\n\x00\n")
        shown = server._last_lines().splitlines()
    assert shown[-2] == "| line 99999" and shown[-1] == "| " + "x" * 300
    assert len(shown) == 1 + vllm_server.LOG_LINES


def test_of_a_log_the_errors_are_told_and_not_their_tracebacks() -> None:
    worker, core = (
        "(Worker pid=12) ERROR 11-25 10:08:13 [executor.py:953]",
        "(EngineCore pid=11) ERROR 11-25 10:08:15 [core.py:7]",
    )
    assert telling_lines(
        [
            f"{worker} Traceback (most recent call last):",
            f'{worker}   File "/opt/loader.py", line 7, in load',
            f"{worker}     raise NoMemory(size)",
            f"{worker}           ^^^^^^^^^^^^^^",
            f"{worker} NoMemory: 80 GiB",
            f"{core} NoMemory: 80 GiB",
            "",
            "\x1b[36m(APIServer pid=10)\x1b[0m RuntimeError: see above\x00",
            "[rank0]: a prefix that is not vLLM's",
            "(" * 100_000,
        ]
    ) == ["NoMemory: 80 GiB", "RuntimeError: see above", "[rank0]: a prefix that is not vLLM's", "(" * 300]


# --------------------------------------------------------------------------------------------------------- restart


@pytest.mark.parametrize("who", ["pid", "engine"])
def test_a_server_that_is_killed_is_started_again_at_the_same_address(model: Path, log: Path, who: str) -> None:
    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        before = server.base_url, server.api_key
        os.kill(starts(model)[0][who], signal.SIGKILL)
        assert eventually(server._has_ended)
        server.ensure_running()
        assert (server.base_url, server.api_key) == before
        assert models_of(server, server.api_key)
        assert server.restarts == 1
        first, second = starts(model)
        assert not is_running(first["pid"]) and not is_running(first["engine"])
        assert first["arguments"] == second["arguments"]
    assert all_gone(model)


def test_deaths_are_counted_and_end_the_run(model: Path, log: Path) -> None:
    plan(model, "serve", "die", "serve", "die")
    with VllmServer(settings(model, max_restarts=3), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[0]["pid"], signal.SIGSEGV)
        assert server.ensure_running() == 2  # the first of them died
        os.kill(starts(model)[2]["pid"], signal.SIGSEGV)
        for _ in range(2):  # callers that come later learn it too
            with pytest.raises(EngineError, match="was started again 3 times and is down"):
                server.ensure_running()
        assert len(starts(model)) == 4
    assert all_gone(model)


def test_deaths_are_counted_anew_when_it_has_answered(model: Path, log: Path) -> None:
    with VllmServer(settings(model, max_restarts=1), str(model), log=log, max_images=1) as server:
        for restarts in (1, 2, 3):
            os.kill(starts(model)[-1]["engine"], signal.SIGKILL)  # vLLM ends by itself then: nobody knows why
            assert eventually(server._has_ended)
            assert server.ensure_running() == restarts
            server.note_answer()
        os.kill(starts(model)[-1]["engine"], signal.SIGKILL)
        assert eventually(server._has_ended)
        assert server.ensure_running() == 4
        os.kill(starts(model)[-1]["engine"], signal.SIGKILL)
        assert eventually(server._has_ended)
        with pytest.raises(EngineError, match="was started again 4 times and is down; it exited with code 1"):
            server.ensure_running()


def test_kills_from_outside_are_not_blamed_on_it(model: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VllmServer(settings(model, max_restarts=0), str(model), log=log, max_images=1) as server:
        numbers = [signal.SIGKILL, signal.SIGTERM]
        for restarts, (number, who) in enumerate(((n, w) for n in numbers for w in ("server", "supervisor")), start=1):
            assert server._process is not None
            os.kill(starts(model)[-1]["pid"] if who == "server" else server._process.pid, number)
            assert eventually(server._has_ended)
            assert server.ensure_running() == restarts
            assert models_of(server, server.api_key)
        monkeypatch.setattr(vllm_server, "MAX_RESTARTS", 4)
        os.kill(starts(model)[-1]["pid"], signal.SIGKILL)
        with pytest.raises(EngineError, match="was started again 4 times and is down; it was killed by SIGKILL"):
            server.ensure_running()
    assert all_gone(model)


def test_a_kill_while_it_starts_is_no_fault_of_its_settings(
    model: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(model, "killed", "killed", "serve", "killed", "killed", "serve", "killed", "killed")
    with VllmServer(settings(model, max_restarts=0), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[-1]["pid"], signal.SIGKILL)
        assert server.ensure_running() == 3
    assert len(starts(model)) == 6
    monkeypatch.setattr("corpus.kills.OUTSIDE_KILLS", 2)
    with pytest.raises(EngineError, match=r"vLLM cannot be started: .*; it was killed by SIGKILL(.|\n)* 2 times"):
        VllmServer(settings(model), str(model), log=log, max_images=1).__enter__()
    assert all_gone(model)


def test_what_a_killed_supervisor_left_is_removed_by_the_next_start(
    model: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        (left,) = scratch(model)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        assert eventually(server._has_ended) and left.is_dir()
        server.ensure_running()
        assert not left.exists()
        with VllmServer(settings(model), str(model), log=log, max_images=1):  # the folders of the living stay
            assert [folder.is_dir() for folder in scratch(model)] == [False, True, True]
    assert list(tmp_path.glob("longdoc-*")) == []


def test_the_death_that_ends_the_run_shows_its_log(model: Path, log: Path) -> None:
    plan(model, "serve", "die")
    with VllmServer(settings(model, max_restarts=1), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[0]["pid"], signal.SIGSEGV)
        with pytest.raises(EngineError) as caught:
            server.ensure_running()
    assert "start 2: die" in str(caught.value) and "start 1" not in str(caught.value)
    with VllmServer(settings(model, max_restarts=0), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[-1]["pid"], signal.SIGSEGV)
        with pytest.raises(EngineError, match="it was killed by SIGSEGV"):
            server.ensure_running()


def test_a_silent_server_is_started_again(model: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_server, "PROBE_S", 0.2)
    plan(model, "silent", "serve")
    with VllmServer(settings(model, health_timeout_s=1), str(model), log=log, max_images=1) as server:
        (model / "silent").touch()
        server.ensure_running()
        assert server.restarts == 1
        assert models_of(server, server.api_key)
    assert all_gone(model)


def test_many_callers_restart_it_once(model: Path, log: Path) -> None:
    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[0]["pid"], signal.SIGKILL)
        callers = [threading.Thread(target=server.ensure_running) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(LONG_S)
        assert server.restarts == 1
        assert len(starts(model)) == 2


def test_the_port_stays_ours_while_the_server_is_down(model: Path, log: Path) -> None:
    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[0]["pid"], signal.SIGKILL)
        assert eventually(server._has_ended)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server._port))
        server.ensure_running()


# ------------------------------------------------------------------------------------------------------------ stop


@pytest.mark.parametrize("how", ["serve", "serve stubborn", "serve escape", "serve stubborn escape"])
def test_stopping_leaves_nothing(model: Path, log: Path, how: str) -> None:
    plan(model, how)
    with VllmServer(settings(model, stop_timeout_s=0.3), str(model), log=log, max_images=1):
        assert all(map(is_running, processes(model)))
        (folder,) = scratch(model)
        (folder / "socket").touch()
    assert len(processes(model)) == 2
    assert all_gone(model)
    assert not folder.exists()


def test_stopping_ends_a_wait_for_the_start(model: Path, log: Path) -> None:
    plan(model, "serve", "hang")
    caught: list[EngineError] = []

    def wait() -> None:
        try:
            server.ensure_running()
        except EngineError as e:
            caught.append(e)

    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        os.kill(starts(model)[0]["pid"], signal.SIGKILL)
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert eventually(lambda: len(starts(model)) == 2)
    waiting.join(LONG_S)
    assert [str(e) for e in caught] == ["vLLM was stopped"]
    assert all_gone(model)
    with pytest.raises(EngineError, match="was stopped"):
        server.ensure_running()


# --------------------------------------------------------------------------------------------------------- orphans

PARENT = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with it ignored
sys.path.insert(0, sys.argv[1])
from test_synth_vllm_server import settings
from synth.vllm_server import VllmServer
asked = settings(Path(sys.argv[2]), stop_timeout_s=0.3)
with VllmServer(asked, sys.argv[2], log=Path(sys.argv[3]), max_images=1) as server:
    print(server._process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["serve", "hang", "serve stubborn escape"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_everything_ends_with_its_parent(model: Path, log: Path, how: str, number: signal.Signals) -> None:
    plan(model, how)
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT / "tests"), str(model), str(log)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: len(starts(model)) == 1 or process.poll() is not None, within_s=LONG_S)
        assert process.poll() is None and all(map(is_running, processes(model)))
        process.send_signal(number)
        process.wait(LONG_S)
        assert eventually(lambda: all_gone(model) and not scratch(model)[0].exists())
    finally:
        process.kill()
        process.communicate()


def test_a_supervisor_that_is_killed_takes_everything_with_it(model: Path, log: Path) -> None:
    plan(model, "serve stubborn")
    with VllmServer(settings(model), str(model), log=log, max_images=1) as server:
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGKILL)
        assert eventually(lambda: not is_running(starts(model)[0]["pid"]))
        server.ensure_running()
        assert server.restarts == 1
        assert not is_running(starts(model)[0]["engine"])
    assert all_gone(model)


def test_a_supervisor_whose_parent_is_gone_starts_nothing(tmp_path: Path) -> None:
    """The parent may be killed before it runs."""
    supervisor = [sys.executable, "-I", str(vllm_server.SUPERVISOR), "0", "1"]
    done = subprocess.run([*supervisor, "touch", str(tmp_path / "ran")], stdin=subprocess.PIPE)
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists()
