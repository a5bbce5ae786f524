"""What a person sees while a build runs: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from corpus.blocks import clean

PLAIN_EVERY_S = 10.0


class BuildProgress:
    """Progress of one stage after another. A context manager."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._live: Progress | None = None
        self._also: Callable[[], str] | None = None
        self._stage = ""
        self._unit = ""
        self._done = self._total = self._pages = self._questions = self._documents = self._all_documents = 0
        self._started = self._spoke = time.monotonic()

    def __enter__(self) -> BuildProgress:
        if self._console.is_terminal and not self._quiet:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description:<11}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def stage(
        self, name: str, total: int, unit: str, documents: int = 0, also: Callable[[], str] | None = None
    ) -> None:
        """Begin a stage of `total` units.

        Args:
            documents: how many it goes through, where the unit is another.
            also: what else there is to tell at a moment; '' = nothing.
        """
        self._also = also
        self._stage, self._unit, self._done, self._total = name, unit, 0, total
        self._pages = self._questions = self._documents = 0
        self._all_documents = documents
        self._started = self._spoke = time.monotonic()
        if self._live:
            for task in self._live.task_ids:
                self._live.remove_task(task)
            self._live.add_task(name, total=total, note="")

    def advance(self, units: int = 0, pages: int = 0, questions: int = 0, documents: int = 0) -> None:
        """Count units that are done; `pages`: those that were worked on now, for the speed."""
        self._done += units
        self._documents += documents
        self._pages += pages
        self._questions += questions
        now = time.monotonic()
        if self._live:
            self._live.update(self._live.task_ids[-1], advance=units, note=self._note(now))
        elif not self._quiet and now - self._spoke >= PLAIN_EVERY_S:
            self._spoke = now
            line = f"{self._stage}: {self._done}/{self._total} {self._unit}, {self._note(now)}"
            self._console.print(line, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Say in one line what takes a while."""
        if not self._quiet:
            self._console.print(clean(text), markup=False, soft_wrap=True)

    def show(self, text: str) -> None:
        """Show lines that stand under each other; what they quote of documents is harmless already."""
        if not self._quiet:
            self._console.print(text, markup=False, soft_wrap=True)

    def end(self, note: str) -> None:
        """Say in one line what a stage came to; the note may quote a document or a question file."""
        if not self._quiet:
            seconds = time.monotonic() - self._started
            self._console.print(f"{self._stage:<11} {clean(note)} ({seconds:.1f} s)", markup=False, soft_wrap=True)

    def _note(self, now: float) -> str:
        seconds = max(1e-6, now - self._started)
        parts = []
        if self._all_documents:
            parts.append(f"{self._documents}/{self._all_documents} documents")
        if self._pages:
            parts.append(f"{self._pages / seconds:.1f} pages/s")
        if self._questions:
            parts.append(f"{self._questions} questions")
        if self._also and (told := self._also()):
            parts.append(told)
        worked = self._pages or self._done
        if worked and not self._live and self._done < self._total:
            parts.append(f"about {(self._total - self._done) * seconds / worked:.0f} s left")
        return ", ".join(parts)
