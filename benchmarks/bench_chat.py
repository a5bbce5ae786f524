"""Does the client keep a server busy, in memory that does not grow? Share of the ideal rate, and the client's peak.

    python benchmarks/bench_chat.py [--requests 1280] [--delay-s 0.5] [--in-flight 64]

A server of our own, in a process of its own, answers every request after a fixed delay, however many there are. The
ideal rate is what is in flight, divided by the delay. Each request carries other pages, cut from random bytes when they
are asked for: rendering is not measured here. Twice as many requests as fit wait at any time, as the documents of a
build do. The rate is that between the first and the last tenth; beside it stands that of the whole run, which begins
and ends with fewer requests in flight. Measured with and without the answer cache, for N and for 10 N requests, each by
a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus.rundir import available_cores
from synth.cache import AnswerCache, CachedChat
from synth.chat import ChatRequest, PromptPage, Sampling
from synth.openai_chat import OpenAiChat
from synth.usage import Usage

PAGES, PAGE_BYTES = 3, 30_000
NOISE = random.Random(0).randbytes(2 * PAGE_BYTES)
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": '{"answer": "12"}'}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3000, "completion_tokens": 9},
}


async def serve(delay_s: float) -> None:
    """Answer after the delay; prints the port first, and ends with its standard input."""
    body = json.dumps(ANSWER).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", asked, re.IGNORECASE)
                if length:  # else it is the question whether there is a server
                    await reader.readexactly(int(length[1]))
                    await asyncio.sleep(delay_s)
                writer.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512, limit=2**20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def load(pages: Sequence[PromptPage]) -> Sequence[bytes]:
    offsets = (int(page.doc_id, 16) * 7 + page.page * 11 for page in pages)
    return [b"\xff\xd8\xff" + NOISE[(o := offset % PAGE_BYTES) : o + PAGE_BYTES - 3] for offset in offsets]


def requests(number: int) -> Iterator[ChatRequest]:
    for i in range(number):
        pages = (PromptPage(doc_id=f"{i:016x}", page=p, height=392, width=280, render="random") for p in range(PAGES))
        yield ChatRequest(
            purpose="bench",
            system="",
            pages=tuple(pages),
            text=f"Question {i}?",
            schema='{"type":"object"}',
            sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=100, seed=i),
        )


async def ask_all(port: int, number: int, in_flight: int, cache: Path | None) -> dict[str, Any]:
    """Seconds, CPU seconds and peak memory of asking everything, and the rate without the first and the last tenth."""
    asked = requests(number)
    async with OpenAiChat(base_url=f"http://127.0.0.1:{port}/v1", model="bench", max_in_flight=in_flight) as model:
        await model.check()  # as a build does before it begins
        chat = CachedChat(model, AnswerCache(cache), Usage()) if cache else model

        answered: list[float] = []

        async def work() -> None:
            for request in asked:
                await chat.ask(request, load)
                answered.append(time.perf_counter())

        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(2 * in_flight):
                group.create_task(work())
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        if isinstance(chat, CachedChat):
            chat.close()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    tenth = number // 10
    steady = (number - 2 * tenth) / (answered[-tenth - 1] - answered[tenth - 1])
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": int(peak[1]) // 1024, "steady_requests_per_s": steady}


def measure(number: int, in_flight: int, delay_s: float, cached: bool) -> dict[str, Any]:
    """One server, one client."""
    command = [sys.executable, __file__, "--delay-s", str(delay_s)]
    server = subprocess.Popen([*command, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin and server.stdout
    with server, tempfile.TemporaryDirectory() as folder:
        port = server.stdout.readline().strip()
        cache = ["--cache", f"{folder}/answers.sqlite"] if cached else []
        client = [*command, "--ask", port, "--requests", str(number), "--in-flight", str(in_flight), *cache]
        found = json.loads(subprocess.run(client, check=True, capture_output=True, text=True).stdout)
        server.stdin.close()
    ideal_per_s = in_flight / delay_s
    return {
        "requests": number,
        "cache": cached,
        "of_ideal_rate": round(found["steady_requests_per_s"] / ideal_per_s, 3),
        "of_ideal_rate_from_first_to_last": round(number / found["seconds"] / ideal_per_s, 3),
        "client_cpu_ms_a_request": round(found["cpu_seconds"] / number * 1000, 2),
        "client_peak_mb": found["peak_mb"],
        "load_average": round(os.getloadavg()[0], 1),  # of the machine, this included
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1280)
    parser.add_argument("--delay-s", type=float, default=0.5)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ask", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.delay_s))
        return
    if args.ask:
        print(json.dumps(asyncio.run(ask_all(args.ask, args.requests, args.in_flight, args.cache))))
        return
    runs = [
        measure(number, args.in_flight, args.delay_s, cached)
        for cached in (False, True)
        for number in (args.requests, 10 * args.requests)
    ]
    result = {
        "in_flight": args.in_flight,
        "delay_s": args.delay_s,
        "pages": f"{PAGES} of {PAGE_BYTES} bytes",
        "runs": runs,
        "versions": {name: importlib.metadata.version(name) for name in ("openai", "httpx2", "aiohttp")},
        "machine": f"{platform.machine()}, {available_cores()} cores, CPython {platform.python_version()}",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
