"""A scripted chat server on loopback that speaks OpenAI's protocol, well or badly, and remembers everything.

    def answer(asked: Asked) -> str:
        return json.dumps({"answer": asked.text.upper()})

    with FakeChat(answer, script=mixture(7, {"right": 6, "500": 2, "cut": 1, "hang": 1})) as server:
        ...  # ask server.base_url for the model server.model
        assert server.answered_again == []

It runs in a thread of the test, so that a script may look at what the test holds; clients may be other processes. What
happens to a request depends on its content and on how often it has come, never on the order of arrival, so that a
seed means the same under any concurrency.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import socket
import threading
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

SLOW_S = 0.3
ANSWERS = ("right", "wrong", "malformed-json", "half-json", "white-space", "refusal", "slow")
TROUBLE = (
    "429",  # Retry-After: `retry_after`
    "400",
    "401",  # repeats the key that came
    "404",
    "500",
    "503",
    "context-length",
    "hang",  # no answer, for as long as the client waits
    "cut",  # the connection is closed without an answer
    "junk",  # something that is no HTTP
    "half-body",  # the connection is closed within the answer
    "broken-body",  # a sound response that is no JSON
    "endless-body",  # white space for as long as the client reads
    "drip",  # the same, a byte at a time, so that something comes before any pause is too long
)
BEHAVIOURS = (*ANSWERS, *TROUBLE)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as the server understood it."""

    content_id: str  # SHA-256 of all that was asked; a request that is sent again has the same
    attempt: int  # 1 for the first time that this content comes
    model: str
    system: str
    labels: tuple[str, ...]  # of the pages, such as "Page 3"
    images: tuple[bytes, ...]
    text: str  # after the images
    schema: dict[str, Any] | None
    body: dict[str, Any]
    headers: Mapping[str, str]


Answer = Callable[[Asked], str]
Script = Callable[[Asked], str]


def always(behaviour: str) -> Script:
    """The same behaviour for every request."""
    return lambda _: behaviour


def in_turn(*behaviours: str) -> Script:
    """Each content meets these one after the other, then "right"."""
    return lambda asked: behaviours[asked.attempt - 1] if asked.attempt <= len(behaviours) else "right"


def mixture(seed: int, weights: Mapping[str, float]) -> Script:
    """Behaviours drawn by weight, for every content and attempt anew."""

    def draw(asked: Asked) -> str:
        rng = random.Random(f"{seed}:{asked.content_id}:{asked.attempt}")
        return rng.choices(list(weights), list(weights.values()))[0]

    return draw


def malformed(text: str) -> str:
    """A JSON text that a model spoilt."""
    return text.replace(":", "=", 1) if ":" in text else f"{{{text}"


class FakeChat:
    """A server with a script. Its counters may be read at any time, also after it was stopped.

    `dies_after`: numbers of requests, counted from the first, at which it drops every connection and stops listening,
    as a killed server does; the request at that number is not answered. `start` brings it back on the same port.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        script: Script = lambda _: "right",
        wrong: Answer = lambda _: json.dumps({"answer": "wrong"}),
        model: str = "fake-vl",
        api_key: str = "",
        retry_after: str = "0",
        delay_s: float = 0.0,
        dies_after: tuple[int, ...] = (),
        counts_images: bool = True,
    ) -> None:
        """
        Args:
            answer: the right text for a request; `wrong`: the wrong one.
            script: names the behaviour that a request meets, one of `BEHAVIOURS`.
            api_key: '' takes any.
            delay_s: before every answer.
            counts_images: tell how many tokens of a prompt are images.
        """
        self.answer, self.wrong, self.script = answer, wrong, script
        self.model, self.api_key, self.retry_after, self.delay_s = model, api_key, retry_after, delay_s
        self.dies_after, self.counts_images = dies_after, counts_images
        self.requests: list[tuple[Asked, str]] = []  # with the behaviour that each met, in order of arrival
        self.seen: Counter[str] = Counter()  # requests by content
        self.answered: Counter[str] = Counter()  # answers that were sent whole, by content
        self.in_flight = self.max_in_flight = 0
        self.died = threading.Event()
        self.failures: list[Exception] = []  # of the script, of `answer`, or because a request made no sense
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """The address, the same after every start."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def answered_again(self) -> list[str]:
        """Contents that were answered more than once: paid for twice."""
        return [content for content, times in self.answered.items() if times > 1]

    @property
    def met(self) -> Counter[str]:
        """How often each behaviour was met."""
        return Counter(behaviour for _, behaviour in self.requests)

    def __enter__(self) -> FakeChat:
        self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if self.failures and kind is None:
            raise self.failures[0]

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        self.stop()
        self.died.clear()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self._port))
        listening.listen(512)
        self._port = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._loop, listening, started), daemon=True)
        self._thread.start()
        assert started.wait(10), "the fake server does not start"

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        if self._thread is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it died by itself
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            assert not self._thread.is_alive(), "the fake server does not stop"
            self._thread = None

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket, started: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.SockSite(runner, listening).start())
        loop.call_soon(started.set)
        try:
            loop.run_forever()
        finally:
            for connection in runner.server.connections if runner.server else ():
                if connection.transport:
                    connection.transport.abort()
            loop.run_until_complete(runner.cleanup())
            waiting = asyncio.all_tasks(loop)
            for task in waiting:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
            loop.close()
            listening.close()
            self.in_flight = 0
            self.died.set()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if not self._welcome(request):
            return _error(401, "invalid_api_key", "no such key")
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    def _welcome(self, request: web.Request) -> bool:
        return not self.api_key or request.headers.get("Authorization") == f"Bearer {self.api_key}"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._behave(request, await request.read())
        except ConnectionError:  # the client gave up
            raise asyncio.CancelledError from None
        except Exception as e:
            self.failures.append(e)
            raise
        finally:
            self.in_flight -= 1

    async def _behave(self, request: web.Request, received: bytes) -> web.StreamResponse:
        asked = self._understand(json.loads(received), request.headers)
        behaviour = self.script(asked)
        assert behaviour in BEHAVIOURS, behaviour
        self.requests.append((asked, behaviour))
        if len(self.requests) in self.dies_after:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(3600)
        if not self._welcome(request):
            return _error(401, "invalid_api_key", "no such key")
        if asked.model != self.model:
            return _error(404, "model_not_found", f"The model `{asked.model}` does not exist.")
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if behaviour in TROUBLE:
            return await self._trouble(behaviour, asked, request)
        if behaviour == "slow":
            await asyncio.sleep(SLOW_S)
        response = web.Response(body=self._response(asked, behaviour), content_type="application/json")
        await response.prepare(request)
        self.answered[asked.content_id] += 1  # before the client can know
        try:
            await response.write_eof()
        except ConnectionError:
            self.answered[asked.content_id] -= 1
            raise
        return response

    def _understand(self, body: dict[str, Any], headers: Mapping[str, str]) -> Asked:
        """The request; an image behind a `file://` URL counts by its content, as one sent inline does."""
        system = "\n".join(m["content"] for m in body["messages"] if m["role"] == "system")
        (content,) = [m["content"] for m in body["messages"] if m["role"] == "user"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts = [p["text"] for p in parts if p["type"] == "text"]
        images = tuple(_image(p["image_url"]["url"]) for p in parts if p["type"] == "image_url")
        kinds = [p["type"] for p in parts]
        assert kinds == ["text", "image_url"] * len(images) + ["text"], f"pages and text out of order: {kinds}"
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        schema = schema or body.get("structured_outputs", {}).get("json")
        rest = {k: v for k, v in body.items() if k != "messages"}
        whole = [rest, system, texts, [hashlib.sha256(image).hexdigest() for image in images]]
        content_id = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        self.seen[content_id] += 1
        return Asked(
            content_id=content_id,
            attempt=self.seen[content_id],
            model=body["model"],
            system=system,
            labels=tuple(text.strip() for text in texts[:-1]),
            images=images,
            text=texts[-1].strip(),
            schema=schema,
            body=body,
            headers=headers,
        )

    def _response(self, asked: Asked, behaviour: str) -> bytes:
        text = self.wrong(asked) if behaviour == "wrong" else self.answer(asked)
        message: dict[str, Any] = {"role": "assistant", "content": text}
        finish_reason = "stop"
        if behaviour == "malformed-json":
            message["content"] = malformed(text)
        elif behaviour == "half-json":
            message["content"], finish_reason = text[: len(text) // 2], "length"
        elif behaviour == "white-space":
            message["content"], finish_reason = " \n\t" * asked.body["max_tokens"], "length"
        elif behaviour == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        tokens: dict[str, Any] = {
            "prompt_tokens": 10 * len(asked.images) + len(asked.text.split()),
            "completion_tokens": max(1, len(str(message["content"]).split())),
        }
        if self.counts_images:
            tokens["prompt_tokens_details"] = {"image_tokens": 10 * len(asked.images)}
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": tokens}).encode()

    async def _trouble(self, behaviour: str, asked: Asked, request: web.Request) -> web.StreamResponse:
        whole = self._response(asked, "right")
        if behaviour == "hang":
            await asyncio.sleep(3600)
        if behaviour in ("cut", "junk", "half-body"):
            if behaviour == "half-body":
                response = web.StreamResponse(headers={"Content-Length": str(len(whole))})
                await response.prepare(request)
                await response.write(whole[: len(whole) // 2])
            if request.transport:
                request.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n" if behaviour == "junk" else b"")
                request.transport.close()
            await asyncio.sleep(3600)  # until the closed connection cancels this
        if behaviour == "broken-body":
            return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
        if behaviour in ("endless-body", "drip"):
            endless = web.StreamResponse()
            await endless.prepare(request)
            while True:
                await endless.write(b" " * (1 if behaviour == "drip" else 2**16))
                await asyncio.sleep(0.02 if behaviour == "drip" else 0)
        if behaviour == "429":
            return _error(429, "rate_limit_exceeded", "too many requests", {"Retry-After": self.retry_after})
        if behaviour == "401":
            return _error(401, "invalid_api_key", f"Incorrect API key: {request.headers.get('Authorization')}")
        if behaviour == "404":
            return _error(404, "model_not_found", f"The model `{asked.model}` does not exist.")
        if behaviour == "context-length":
            said = "This model's maximum context length is 2048 tokens. However, your request has 9000 input tokens."
            return _error(400, "", said)
        return _error(int(behaviour), "trouble", f"injected {behaviour}")


def _image(url: str) -> bytes:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path)).read_bytes()
    head, _, data = url.partition(";base64,")
    assert head.startswith("data:image/"), head[:40]
    return base64.b64decode(data, validate=True)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status, headers=headers)
