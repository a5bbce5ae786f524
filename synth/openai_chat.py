"""A model behind any server that speaks OpenAI's protocol, asked until it answers, refuses, or is gone.

Who is at fault decides what happens. A request that the server refuses fails alone, at once. What may pass (a timeout,
a cut connection, 408, 409, 429, 5xx) is tried again after a pause that doubles and is drawn at random up to its full
length, so that those who failed together do not return together. A server that cannot be reached says nothing about
the request: it is asked again without being counted, until the server has been away for `gone_after_s`; then the run
stops, and so do all who wait. A refused key or an unknown model stops it at once. The official client's own retries
are off, because it cannot tell these apart. A server that takes requests and says nothing to any of them, not even an
error, for the same `gone_after_s` is gone too, whatever the time and the attempts of one request may be.

Requests that are with the server when the run stops are left to end: their answers may have been paid for. Those of a
silent server are cut off.

Page images are loaded when a request has its place and let go when it is answered. Until they are loaded their size is
a guess: pixels times the largest number of bytes a pixel seen so far; a guess that was too small is corrected at once,
so the bound may be exceeded by the first few requests of an unusual format. What a request holds while it waits for an
answer is its body, in which images are base64: 4/3 of their size.

Requests are sent a few milliseconds apart. Python needs 2 ms for each; sent as one burst, they would also be answered
as one, and each would wait for all the others, time after time. For the same reason the client is used on aiohttp, and
below its typed methods, which convert the parameters at a greater cost than that of sending them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import importlib.util
import json
import os
import random
import re
import secrets
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from corpus.blocks import clean
from corpus.errors import ConfigError, EngineError
from corpus.messages import page_label
from synth.chat import ChatAnswer, ChatRequest, LoadImages, PromptPage, RequestFailed
from synth.gate import Gate
from synth.usage import Usage

if TYPE_CHECKING:
    import httpx2

LONGEST_PAUSE_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0  # a server that asks for more is asked again after this
LONGEST_SPACING_S = 0.003  # between two requests; less where answers come so fast that it would slow them down
CONNECT_S = 15.0
MAX_RESPONSE_BYTES = 16 * 2**20
MAX_DETAIL = 300  # characters of what a server said
PASSING_REASONS = ("timeout", "connection-cut", "unreadable-response", "rate-limited", "server-busy", "server-error")
PASSING_STATUS = (408, 409, 425, 429)  # and every 5xx
MAY_HAVE_DIED = ("unreachable", "connection-cut", "server-error")
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
TOO_LONG = re.compile(r"context[ _-]?(length|window)|maximum model length|max_model_len|too many (input )?tokens", re.I)
KEPT = "; answers so far are kept, and the same command goes on from here"
SIGNATURES = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"RIFF", "webp"))

T = TypeVar("T")

FaultKind = Literal["unreachable", "passing", "refused", "fatal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why an attempt brought no answer. `reason` is a slug to count by.

    `unreachable`: no connection; `passing`: another attempt may do; `refused`: this request has no answer here;
    `fatal`: no request has.
    """

    kind: FaultKind
    reason: str
    detail: str
    retry_after_s: float = 0.0


def checked_base_url(url: str, setting: str = "synth.base_url") -> str:
    """The address of a server, such as `http://127.0.0.1:8000/v1`, without a slash at its end.

    Raises:
        ConfigError: not a web address, or one that carries a credential: addresses are recorded and shown.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urllib.parse.urlsplit(""), None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"{setting} carries a user name, a key or a query; give the address alone, such as "
            "http://127.0.0.1:8000/v1, and the key in an environment variable"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{setting} = {url!r} is no web address; write one such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def api_key_of(variable: str, setting: str = "synth.client.api_key_env") -> str:
    """The key in an environment variable, '' when none is named.

    Raises:
        ConfigError: it is not set, or holds what cannot be a key. The value is never shown.
    """
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} ({setting}) is not set; put the key into it")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"the environment variable {variable} ({setting}) holds characters that no key has")
    return key


def pause_s(attempt: int, backoff_s: float, retry_after_s: float, draw: float) -> float:
    """Seconds to wait after failed attempt 1, 2, ...; `draw` in [0, 1). Never less than the server asked for."""
    longest = min(LONGEST_PAUSE_S, backoff_s * 2.0 ** min(attempt - 1, 16))
    return min(retry_after_s, LONGEST_RETRY_AFTER_S) + longest * draw


def retry_after_s(value: str, now: float) -> float:
    """Seconds that a `Retry-After` header asks to wait, given as a number or an HTTP date; 0 for anything else.

    Args:
        now: seconds since 1970.
    """
    try:
        seconds = float(value) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()) else _date(value) - now
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, seconds)


def _date(value: str) -> float:
    return email.utils.parsedate_to_datetime(value[:100]).timestamp()


def fault_of_status(status: int, headers: Mapping[str, str], body: bytes, secret: str, now: float) -> Fault:
    """What an error response means."""
    code, said = _said(body, secret)
    shown = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status in (401, 403):  # what the server says may repeat the key
        return Fault(kind="fatal", reason="key-refused", detail=f"the server refuses the key (HTTP {status})")
    if status == 402 or code in NO_MONEY:
        return Fault(kind="fatal", reason="no-money", detail=f"the account has no money left ({shown})")
    if status == 404:
        return Fault(
            kind="fatal", reason="unknown-model", detail=f"the server knows no such model or address ({shown})"
        )
    if status in PASSING_STATUS or status >= 500:
        reason = "rate-limited" if status == 429 else "server-error" if status >= 500 else "server-busy"
        asked = retry_after_s(headers.get("retry-after", ""), now)
        return Fault(kind="passing", reason=reason, detail=shown, retry_after_s=asked)
    if code == "context_length_exceeded" or TOO_LONG.search(said):
        return Fault(kind="refused", reason="context-length", detail=shown)
    return Fault(kind="refused", reason="request-refused", detail=shown)


def fault_of_error(error: BaseException, timeout_s: float) -> Fault:
    """What it means that no response came, by the first cause: the layers above it call a cut connection a timeout."""
    import aiohttp

    while isinstance(error.__cause__, Exception) and not isinstance(error, aiohttp.ClientError):
        error = error.__cause__
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Fault(kind="unreachable", reason="unreachable", detail=_shown(error))
    if isinstance(error, TimeoutError):
        return Fault(kind="passing", reason="timeout", detail=f"no answer within {timeout_s:g} s")
    return Fault(kind="passing", reason="connection-cut", detail=_shown(error))


def _shown(error: BaseException) -> str:
    return clean(f"{type(error).__name__}: {error}"[: 2 * MAX_DETAIL])[:MAX_DETAIL].rstrip(": ")


def _said(body: bytes, secret: str) -> tuple[str, str]:
    """Code and message of an error response, made safe to show."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = body.decode("utf-8", "replace")
    error = found.get("error", found) if isinstance(found, dict) else found
    if isinstance(error, dict):
        code, message = str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
    else:
        code, message = "", str(error)
    if secret:
        message = message.replace(secret, "***")
    return code, clean(message[: 4 * MAX_DETAIL])[:MAX_DETAIL]


def read_answer(body: bytes) -> ChatAnswer:
    """The answer in a response of `/chat/completions`. A refusal is an answer too: it was paid for.

    Raises:
        ValueError: it is not such a response.
    """
    try:
        response = json.loads(body)
        choice = response["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as e:
        raise ValueError(f"{type(e).__name__} in {len(body):,} bytes") from None
    finish_reason = str(choice.get("finish_reason") or "unknown")[:40]
    if text is None and isinstance(refusal, str):
        text, finish_reason = refusal, "refusal"
    if not isinstance(text, str | None):
        raise ValueError(f"the answer is a {type(text).__name__}, not a text")
    usage = _mapping(response.get("usage"))
    return ChatAnswer(
        text=(text or "").encode("utf-8", "replace").decode(),  # half a character cannot be stored
        finish_reason=finish_reason,
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        image_tokens=_count(_mapping(usage.get("prompt_tokens_details")), "image_tokens"),
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(values: dict[str, Any], name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def body_of(
    request: ChatRequest, model: str, urls: Sequence[str], structured: Literal["response_format", "vllm"]
) -> dict[str, Any]:
    """What is posted to `/chat/completions`."""
    content: list[dict[str, Any]] = []
    for page, url in zip(request.pages, urls, strict=True):
        content.append({"type": "text", "text": page_label(page.page, first=not content)})
        content.append({"type": "image_url", "image_url": {"url": url}})
    content.append({"type": "text", "text": f"\n{request.text}" if content else request.text})
    system = [{"role": "system", "content": request.system}] if request.system else []
    body: dict[str, Any] = {
        "model": model,
        "messages": [*system, {"role": "user", "content": content}],
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "max_tokens": request.sampling.max_tokens,
        "seed": request.sampling.seed,
    }
    if request.schema:
        schema = json.loads(request.schema)
        if structured == "vllm":
            body["structured_outputs"] = {"json": schema}
        else:
            described = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": described}
    return body


def encoded_body(
    request: ChatRequest, model: str, urls: Sequence[bytes], structured: Literal["response_format", "vllm"]
) -> bytes:
    """The same as JSON. URLs are put in at last: base64 needs no escaping, and looking for what does costs as much as
    sending it.
    """
    mark = secrets.token_hex(16)
    first, *rest = json.dumps(body_of(request, model, [mark] * len(urls), structured)).encode().split(mark.encode())
    return b"".join((first, *(part for pair in zip(urls, rest, strict=True) for part in pair)))


def media_type(image: bytes) -> str:
    """The media type of an encoded image, by its first bytes."""
    return f"image/{next((name for start, name in SIGNATURES if image.startswith(start)), 'jpeg')}"


def data_url(image: bytes) -> bytes:
    """An image as the text of a URL."""
    return b"data:%b;base64,%b" % (media_type(image).encode(), base64.b64encode(image))


def bounded_client(**options: Any) -> httpx2.AsyncClient:
    """The official client's HTTP client, which stops reading a response after `MAX_RESPONSE_BYTES`.

    Without it, a server that never stops sending fills the memory before any time limit is reached.
    """
    import httpx2
    import openai

    class Bounded(openai.DefaultAioHttpClient):
        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            response = await super().send(request, **{**options, "stream": True})
            body = bytearray()
            try:
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_RESPONSE_BYTES:
                        break
            finally:
                await response.aclose()
            decoded = [
                (k, v) for k, v in response.headers.multi_items() if k not in ("content-encoding", "content-length")
            ]
            return httpx2.Response(response.status_code, headers=decoded, content=bytes(body), request=request)

    return Bounded(**options)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingNames:
    """What the user calls the address, the model and the key of a server, for messages."""

    base_url: str = "synth.base_url"
    model: str = "synth.model"
    api_key_env: str = "synth.client.api_key_env"


class Silence:
    """For how long requests have been with a server that said nothing to any of them; pauses do not count."""

    def __init__(self) -> None:
        self._waiting = 0
        self._since = 0.0  # when the present silence began or went on after a pause; time.monotonic()
        self._before = 0.0  # seconds of it before that

    def begin(self, now: float) -> None:
        """A request goes to the server."""
        self._since = self._since if self._waiting else now
        self._waiting += 1

    def end(self, now: float, heard: bool) -> None:
        """A request is back, with any sign of life or without."""
        self._before = 0.0 if heard else self.seconds(now)
        self._since = now
        self._waiting -= 1

    def seconds(self, now: float) -> float:
        """How long it has lasted."""
        return self._before + (now - self._since if self._waiting else 0.0)

    def __bool__(self) -> bool:
        """Whether any request is with the server."""
        return self._waiting > 0


class OpenAiChat:
    """A chat model behind `base_url`. For one event loop; close it with `aclose`, or use it with `async with`.

    Once it has raised `EngineError` it stays closed to new requests.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_env: str = "",
        api_key: str = "",
        revive: Callable[[], int] | None = None,
        on_answer: Callable[[], None] | None = None,
        timeout_s: float = 600.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
        max_in_flight: int = 64,
        max_image_bytes: int = 512 * 2**20,
        images: Literal["inline", "file"] = "inline",
        image_folder: Path | None = None,
        structured: Literal["response_format", "vllm"] = "response_format",
        gone_after_s: float = 120.0,
        gone_after_failures: int = 10,
        usage: Usage | None = None,
        rng: random.Random | None = None,
        names: SettingNames | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            base_url: of the server, with its `/v1`.
            model: its name there.
            api_key_env: name of the environment variable that holds the key; '' sends none.
            api_key: the key itself, for a server of ours.
            revive: for a server of ours; called in a thread when it seems to have died. Returns when it is there again,
                and how often it was started again in all, or raises `EngineError`.
            on_answer: called when an answer has come.
            timeout_s: for one attempt, from connecting to the last byte.
            attempts: of one request, in all. Attempts that find no server, or during which ours died, are not counted.
            backoff_s: longest pause after the first failure; it doubles, up to 30 s.
            max_in_flight: requests at once.
            max_image_bytes: of all requests at once. One that needs more goes alone.
            images: `inline` as data URLs, or as `file` URLs for a server on this machine that may read
                `image_folder` (vLLM: `--allowed-local-media-path`).
            image_folder: existing folder in which a private one is made; null = the system's temporary folder.
            structured: how a schema is sent; `vllm` is that server's own field.
            gone_after_s: seconds without a connection, or of silence while it has requests, after which the server is
                gone.
            gone_after_failures: requests in a row that ran out of attempts after which it is gone.
            usage: where retries are counted.
            rng: draws the pauses.
            names: of the user's settings that led here, for messages.

        Raises:
            ConfigError: a wrong address, no key, or no package `openai`.
        """
        if importlib.util.find_spec("openai") is None or importlib.util.find_spec("aiohttp") is None:
            raise ConfigError("synth.backend: openai needs openai and aiohttp: pip install 'longdoc[openai]'")
        import httpx2
        import openai

        self._names = names or SettingNames()
        self.base_url = checked_base_url(base_url, self._names.base_url)
        self._model = model
        self._key = api_key or api_key_of(api_key_env, self._names.api_key_env)
        self._revive, self._on_answer = revive, on_answer
        self._restarts = 0  # of the server, as far as known
        self._key_env = api_key_env
        self._timeout_s, self._attempts, self._backoff_s = timeout_s, attempts, backoff_s
        self._images, self._image_folder, self._structured = images, image_folder, structured
        self._gone_after_s, self._gone_after_failures = gone_after_s, gone_after_failures
        self._usage = usage or Usage()
        self._rng = rng or random.Random()
        self._gate = Gate(max_in_flight, max_image_bytes)
        self._bytes_per_pixel = 0.5
        self._away_since: float | None = None  # time.monotonic() of the first attempt that found no server
        self._failed_in_a_row = 0
        self._silence = Silence()
        self._limits: set[asyncio.Timeout] = set()  # of the requests that are with the server
        self._watch: asyncio.TimerHandle | None = None
        self._max_in_flight = max_in_flight
        self._spacing_s = LONGEST_SPACING_S
        self._next_turn = 0.0  # time.monotonic()
        self._gone = ""  # why the run must stop
        self._stopped = asyncio.Event()
        self._folder: Path | None = None
        self._headers: dict[str, str | openai.Omit] = {
            "Content-Type": "application/json",
            **({} if self._key else {"Authorization": openai.Omit()}),
        }
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=0,
            http_client=bounded_client(
                limits=httpx2.Limits(max_connections=max_in_flight + 1, max_keepalive_connections=max_in_flight + 1),
                timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
            ),
        )

    @property
    def name(self) -> str:
        """The model's; which server it runs on does not matter to an answer that is kept."""
        return self._model

    @property
    def image_bytes(self) -> int:
        """What the images of requests in flight hold, or are expected to hold until they are loaded."""
        return self._gate.held_bytes

    async def __aenter__(self) -> OpenAiChat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections and remove temporary files."""
        if self._watch:
            self._watch.cancel()
        await self._client.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def check(self) -> None:
        """Find out at once whether there is a server that takes the key, instead of after `gone_after_s`.

        Raises:
            EngineError: there is none.
        """
        found = await self._attempt(self._models())
        if isinstance(found, Fault) and (found.kind == "unreachable" or found.reason == "key-refused"):
            raise EngineError(self._explain(found))

    async def ask(self, request: ChatRequest, load: LoadImages) -> ChatAnswer:
        """Answer a request: wait for a place, load its images, send it until there is an answer.

        Raises:
            RequestFailed: refused (`request-refused`, `context-length`), or out of attempts (`timeout`,
                `connection-cut`, `unreadable-response`, `rate-limited`, `server-busy`, `server-error`).
            EngineError: the server is gone, refuses the key, or knows no such model.
        """
        held = self._expected_bytes(request.pages)
        await self._gate.enter(held)
        try:
            images = await load(request.pages) if request.pages else ()
            size = sum(map(len, images))
            self._gate.resize(held, size)
            held = size
            self._learn_size(request.pages, size)
            with contextlib.ExitStack() as files:
                if self._images == "inline":
                    urls = [data_url(image) for image in images]
                else:
                    urls = [self._write(image, files) for image in images]
                body = encoded_body(request, self._model, urls, self._structured)
                del images, urls  # while the server thinks, the body is enough
                return await self._answer(request.purpose, body)
        finally:
            self._gate.leave(held)

    async def _answer(self, purpose: str, body: bytes) -> ChatAnswer:
        counted = tries = 0
        while True:
            await self._turn()
            if self._gone:
                raise EngineError(self._gone)
            began, restarts = time.monotonic(), self._restarts
            found = await self._attempt(self._chat(body))
            if isinstance(found, ChatAnswer):
                self._spacing_s = min(LONGEST_SPACING_S, (time.monotonic() - began) / (2 * self._max_in_flight))
                self._away_since, self._failed_in_a_row = None, 0
                if self._on_answer:
                    self._on_answer()
                return found
            if self._gone:
                raise EngineError(self._gone)
            tries += 1
            if self._revive and found.reason in MAY_HAVE_DIED:
                await self._revived(self._revive)
            elif found.kind == "unreachable":
                now = time.monotonic()
                self._away_since = now if self._away_since is None else self._away_since
                if now - self._away_since >= self._gone_after_s:
                    self._give_up(self._explain(found))
            else:
                self._away_since = None
            if found.kind == "fatal":
                self._give_up(self._explain(found))
            if found.kind == "refused":
                raise RequestFailed(found.reason, found.detail)
            counted += found.kind == "passing" and restarts == self._restarts
            if counted == self._attempts:
                self._failed_in_a_row += 1
                if self._failed_in_a_row >= self._gone_after_failures:
                    self._give_up(self._explain(found))
                raise RequestFailed(found.reason, f"after {counted} attempts: {found.detail}")
            if not self._gone:
                self._usage.retried(purpose)
                await self._pause(pause_s(tries, self._backoff_s, found.retry_after_s, self._rng.random()))

    async def _revived(self, revive: Callable[[], int]) -> None:
        try:
            self._restarts = max(self._restarts, await asyncio.to_thread(revive))
        except EngineError as e:
            self._give_up(str(e))

    async def _turn(self) -> None:
        """Wait until the request before this one is on its way."""
        now = time.monotonic()
        turn = max(self._next_turn, now)
        self._next_turn = turn + self._spacing_s
        if turn > now:
            await self._pause(turn - now)

    async def _chat(self, body: bytes) -> ChatAnswer | Fault:
        import httpx2

        response = await self._client.post(
            "/chat/completions", cast_to=httpx2.Response, content=body, options={"headers": self._headers}
        )
        try:
            return read_answer(response.content)
        except ValueError as e:
            return Fault(kind="passing", reason="unreadable-response", detail=str(e))

    async def _models(self) -> None:
        import httpx2

        await self._client.get("/models", cast_to=httpx2.Response, options={"headers": self._headers})

    async def _attempt(self, asking: Coroutine[Any, Any, T]) -> T | Fault:
        """What a request over the network brought, or what went wrong with it."""
        import aiohttp
        import openai

        heard = False
        limit = asyncio.timeout(self._timeout_s)
        self._silence.begin(time.monotonic())
        self._limits.add(limit)
        self._watch_silence()
        try:
            async with limit:
                found = await asking
            heard = True
            return found
        except openai.APIStatusError as e:
            heard = True
            return fault_of_status(e.status_code, e.response.headers, e.response.content, self._key, time.time())
        except (openai.APIConnectionError, aiohttp.ClientError, OSError) as e:
            fault = fault_of_error(e, self._timeout_s)
            heard = fault.reason != "timeout"
            return fault
        finally:
            self._limits.discard(limit)
            self._silence.end(time.monotonic(), heard)

    def _silence_left_s(self) -> float:
        return max(0.0, self._gone_after_s - self._silence.seconds(time.monotonic()))

    def _watch_silence(self) -> None:
        """See to it that somebody looks when the silence may have lasted too long."""
        if self._watch is None and self._silence and not self._gone:
            self._watch = asyncio.get_running_loop().call_later(self._silence_left_s(), self._look)

    def _look(self) -> None:
        """Give up a server that has been silent for too long."""
        self._watch = None
        if not self._silence or self._silence_left_s():
            self._watch_silence()
            return
        self._shut(
            f"{self._where()}: no answer to any of {len(self._limits)} requests for {self._gone_after_s:g} s "
            f"(synth.client.give_up_s); look after the server, or raise that setting{KEPT}"
        )
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def _pause(self, seconds: float) -> None:
        """Wait, or until the server is given up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def _give_up(self, why: str) -> None:
        self._shut(why)
        raise EngineError(self._gone)

    def _shut(self, why: str) -> None:
        self._gone = self._gone or why
        self._stopped.set()
        self._gate.shut(self._gone)

    def _where(self) -> str:
        return f"{self.base_url} (model {self._model})"

    def _explain(self, fault: Fault) -> str:
        names, where = self._names, self._where()
        if fault.reason == "key-refused":
            variable = self._key_env or f"none is named in {names.api_key_env}"
            return f"{where}: {fault.detail}; check the environment variable of the key ({variable}){KEPT}"
        if fault.reason == "unknown-model":
            return f"{where}: {fault.detail}; check {names.model} and {names.base_url}, which mostly ends in /v1{KEPT}"
        if fault.reason == "no-money":
            return f"{where}: {fault.detail}{KEPT}"
        if fault.kind == "unreachable":
            return f"{where}: no connection to the server ({fault.detail}); start it or correct {names.base_url}{KEPT}"
        return (
            f"{where}: {self._failed_in_a_row} requests in a row failed after {self._attempts} attempts each, the last "
            f"one with {fault.reason} ({fault.detail}); look after the server, or raise synth.client.attempts{KEPT}"
        )

    def _expected_bytes(self, pages: Sequence[PromptPage]) -> int:
        return int(sum(page.height * page.width for page in pages) * self._bytes_per_pixel)

    def _learn_size(self, pages: Sequence[PromptPage], size: int) -> None:
        pixels = sum(page.height * page.width for page in pages)
        self._bytes_per_pixel = max(self._bytes_per_pixel, size / pixels if pixels else 0.0)

    def _write(self, image: bytes, files: contextlib.ExitStack) -> bytes:
        """The URL of a file that holds an image until `files` is left."""
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="longdoc-images-", dir=self._image_folder)).resolve()
            number, name = tempfile.mkstemp(dir=self._folder, suffix=f".{media_type(image).removeprefix('image/')}")
            files.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(number, "wb") as file:
                file.write(image)
        except OSError as e:
            raise EngineError(f"cannot write page images to {self._folder or self._image_folder}: {e.strerror}") from e
        return Path(name).as_uri().encode()
