"""Servers on loopback for tests of remote storage: S3 (moto), a web server, and a proxy that misbehaves on order."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

KEY_ID, SECRET, TOKEN = "AKIALOOPBACKTEST0001", "s3cr3t-of-the-loopback-test", "session-token-of-the-loopback-test"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": TOKEN,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "NO_PROXY": "127.0.0.1",
}
SLOW_S = 1.5  # longer than the time limit of the tests' settings


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3-compatible server; yields its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class _Handler(BaseHTTPRequestHandler):
    """Quiet, and one request a connection."""

    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client gave up waiting
            super().handle()

    def body(self) -> bytes:
        """The request's body, also in chunks.

        Raises:
            ConnectionError: the client went away within it.
        """
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self._exactly(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self._line().split(b";")[0], 16):
            whole += self._exactly(size)
            self._line()
        self._line()
        return whole

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionError(f"{len(data)} of {size} bytes came")
        return data

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("a line ends too soon")
        return line


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Asked(NamedTuple):
    """A request that came through a proxy, and the fault that it met, '' for none."""

    method: str
    path: str
    fault: str = ""


class Faults:
    """What a proxy does wrong. `choose(asked)` names the fault of a request.

    Faults: 500, 503, 429; `refuse` closes without an answer; `slow` answers after `SLOW_S`; `cut` closes within the
    answer's body; `short` sends a sound answer with half the body; `lost` does what was asked and closes without
    saying so; `half` passes half of the request's body on to nobody and closes.
    """

    def __init__(self) -> None:
        self.choose: Callable[[Asked], str] = lambda _: ""
        self.seen: list[Asked] = []
        self._lock = threading.Lock()

    def of(self, method: str, path: str) -> str:
        with self._lock:
            fault = self.choose(Asked(method, path))
            self.seen.append(Asked(method, path, fault))
            return fault

    def reset(self) -> None:
        self.choose, self.seen = lambda _: "", []

    def once_each(self, *faults: str, method: str = "", path: str = "") -> None:
        """The first requests of each kind and path meet these faults, one after the other."""
        left: dict[tuple[str, str], list[str]] = {}

        def choose(asked: Asked) -> str:
            if method not in ("", asked.method) or not re.search(path, asked.path):
                return ""
            queue = left.setdefault((asked.method, asked.path), list(faults))
            return queue.pop(0) if queue else ""

        self.choose = choose


@contextmanager
def faulty_proxy(upstream: str, faults: Faults) -> Iterator[str]:
    """A server that passes requests on to `upstream` and misbehaves as `faults` says; yields its address."""

    class Proxy(_Handler):
        def pass_on(self) -> None:
            self.close_connection = True
            fault = faults.of(self.command, self.path)
            if fault == "half":
                self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            if fault in ("refuse", "half"):
                return
            try:
                body = self.body()
            except ConnectionError:  # of a client that was killed: half an object is none, as in any real store
                return
            if fault in ("500", "503", "429"):
                self.answer(int(fault), [], b"injected")
                return
            if fault == "slow":
                time.sleep(SLOW_S)
            status, headers, content = self.forward(body)
            if fault == "lost":
                return
            if fault == "short":
                content = content[: len(content) // 2]
            self.answer(status, headers, content, cut=fault == "cut")

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(upstream.removeprefix("http://"), timeout=20)
            skipped = ("expect", "transfer-encoding", "content-length", "connection")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, answer.getheaders(), content

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            told = {k.lower(): v for k, v in headers}
            for name, value in told.items():
                if name not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = told.get("content-length", "0") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length)
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)

    with _serving(Proxy) as address:
        yield address


class Site:
    """The files of a web server, by path; `tags` is whether it says which version a file has."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags = True


@contextmanager
def web_server(site: Site) -> Iterator[str]:
    """A plain web server that knows no ranges and sends links for paths that end with a slash; yields its address."""

    class Web(_Handler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            content, kind, status = site.files.get(path), "application/pdf", 200
            if content is None and path.endswith("/"):
                names = [p.removeprefix(path) for p in site.files if p.startswith(path)]
                content, kind = "".join(f'<a href="{n}">{n}</a>' for n in names if "/" not in n).encode(), "text/html"
            if content is None:
                content, status = b"not here", 404
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", kind)
            if site.tags and status == 200:
                self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

    with _serving(Web) as address:
        yield address
