"""A `vllm serve` that serves nothing but its health and its models, and fails on order.

`write_fake_vllm` writes an "interpreter" that runs this file. The model's folder says what each start does, one line a
start in `plan.txt`, `serve` when there is none: serve | die | killed | hang | silent. Words after it change how it
serves: `stubborn` ignores SIGTERM, `escape` has an engine process in a session of its own that ignores it too.
Every start adds a line to `starts.jsonl`: process ids, arguments and environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENGINE = "import signal, sys, time\nif 'stubborn' in sys.argv: signal.signal(15, signal.SIG_IGN)\n"
ENGINE += "print('engine ready', flush=True)\ntime.sleep(600)"


def write_fake_vllm(path: Path) -> Path:
    """An executable that stands for the interpreter of `synth.vllm.python`."""
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{__file__}" "$@"\n')
    path.chmod(0o755)
    return path


def starts(model: Path) -> list[dict[str, Any]]:
    """What every start so far noted."""
    notes = model / "starts.jsonl"
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def main(arguments: list[str]) -> None:
    assert arguments[:3] == ["-m", "vllm.entrypoints.cli.main", "serve"]
    model, options = Path(arguments[3]), arguments[4:]
    plan = model / "plan.txt"
    lines = plan.read_text().splitlines() if plan.exists() else []
    number = len(starts(model))
    words = (lines[number] if number < len(lines) else "serve").split()
    if "stubborn" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    engine = subprocess.Popen(
        [sys.executable, "-I", "-c", ENGINE, *(["stubborn"] if {"stubborn", "escape"} & set(words) else [])],
        stdout=subprocess.PIPE,
        start_new_session="escape" in words,
    )
    assert engine.stdout is not None
    engine.stdout.readline()
    note = {"pid": os.getpid(), "engine": engine.pid, "arguments": arguments, "environment": dict(os.environ)}
    with (model / "starts.jsonl").open("a") as notes:
        notes.write(json.dumps(note) + "\n")
    os.write(1, f"start {number + 1}: {words[0]}\n".encode())
    if words[0] == "die":
        os.write(1, b"\x1b[31mRuntimeError: no memory is left\x1b[0m\n")
        sys.exit(3)
    if words[0] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if words[0] == "hang":
        engine.wait()
    threading.Thread(target=end_with, args=(engine,), daemon=True).start()
    serve(int(options[options.index("--port") + 1]), options[options.index("--served-model-name") + 1], model, words)


def end_with(engine: subprocess.Popen[bytes]) -> None:
    """As vLLM does when its engine dies."""
    engine.wait()
    os._exit(1)


def serve(port: int, name: str, model: Path, words: list[str]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if words[0] == "silent" and (model / "silent").exists():
                threading.Event().wait()
            known = self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"
            body = json.dumps({"object": "list", "data": [{"id": name, "object": "model"}]}).encode()
            self.send_response(200 if self.path == "/health" or known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
