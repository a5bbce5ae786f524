"""Processes of a gloo group on loopback, for tests of what is distributed.

`Processes(4)` starts four and keeps them, so that a file of tests pays for their start once; `run(function, ...)` calls
a function of a test module in each, at the same time. Exceptions come back with their traceback; what takes too long,
or waits for a process that failed, is ended. Each process computes on one thread.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

# Forked from a server that has imported what is slow to import, and has never computed.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "tiny_models", "trainer_plugin.attention", "trainer_plugin.loss"])


class ProcessFailed(AssertionError):
    """One process raised, died, or took too long; the message holds its traceback."""


class Processes:
    """A gloo world of `number` processes. Use it as a context; after a failure it is closed."""

    def __init__(self, number: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="gloo-")
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(number):
            ours, theirs = CONTEXT.Pipe()
            arguments = (rank, number, f"file://{self.folder.name}/store", theirs)
            process = CONTEXT.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any, timeout_s: float = 60, **options: Any) -> list[Any]:
        """`function(*arguments, **options)` in every process; its results by rank. All must be picklable.

        Raises:
            ProcessFailed: one process raised, died or exceeded the time.
        """
        for pipe in self.pipes:
            pipe.send((functools.partial(function, **options), arguments))
        results: dict[int, Any] = {}
        end = time.monotonic() + timeout_s
        while len(results) < len(self.pipes):
            waiting = {pipe: rank for rank, pipe in enumerate(self.pipes) if rank not in results}
            ready = wait(list(waiting), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                self._fail(f"ranks {sorted(waiting.values())} took more than {timeout_s} s")
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting[pipe]
                try:
                    good, value = pipe.recv()
                except EOFError:
                    self._fail(f"rank {rank} died")
                if not good:
                    self._fail(f"rank {rank} raised:\n{value}")
                results[rank] = value
        return [results[rank] for rank in range(len(self.pipes))]

    def _fail(self, reason: str) -> None:
        self.close()
        raise ProcessFailed(reason)

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self.folder.cleanup()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _serve(rank: int, number: int, store: str, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank), "WORLD_SIZE": str(number), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1"}  # for accelerate
    patience = timedelta(minutes=2)  # so that nobody waits for ever should the test itself be killed
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=number, timeout=patience)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send(answer)


def shard_on_cpu(trainer: Any) -> None:
    """Let a Trainer whose arguments ask for FSDP2 shard on the CPU too, where accelerate silently leaves it out."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
    del os.environ["ACCELERATE_USE_FSDP"]  # set by accelerate; the next test may train without
    state = trainer.accelerator.state
    # Every new object of accelerate copies the type from the partial state; the next TrainingArguments reset both.
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    state.fsdp_plugin = plugin
    if trainer.args.bf16:
        plugin.set_mixed_precision("bf16")
    trainer.is_fsdp_enabled = True
