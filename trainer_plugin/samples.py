"""The samples of a finished run, as columns, and what the shards hold of each.

A run of a million samples must open in a second in every worker of a loader, so nothing here is an object a sample:
numbers stay arrays and texts stay in Arrow, which forked workers share. Page sizes are not read from the table, where
they would be most of it, but from the head of a sample in its shard, which is read anyway. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpus.config import MessageSettings
from corpus.errors import ConfigError, EngineError
from corpus.messages import Message, build_messages, short_messages
from corpus.records import PageGrid, Question, Sample, Window
from corpus.shards import ShardReader
from corpus.storage import path_of
from corpus.store import read_table, record_from, schema_of

IntArray = npt.NDArray[np.int64]

_NUMBERS = ("window", "first_page", "num_pages", "num_tokens", "num_patches", "num_supervised", "turn_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan as columns: `entries[starts[i]:starts[i + 1]]` are the samples of row i, by their number in the run."""

    file: Path
    report: dict[str, Any]  # of its JSON file
    entries: IntArray  # by step, row and position
    starts: IntArray  # [rows + 1]
    step: IntArray  # of each row; rises
    row: IntArray  # of each row, 0-based in its step

    def entries_of(self, index: int) -> list[int]:
        """The samples of a row, in their order."""
        numbers: list[int] = self.entries[self.starts[index] : self.starts[index + 1]].tolist()
        return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSample:
    """The head of a sample in its shard, and perhaps the rest of it."""

    key: str
    messages: list[Message]  # an image part holds its page in the document, or its index in the conversation
    grids: tuple[PageGrid, ...]  # of its images, in order
    names: tuple[str, ...]  # members of its images, in order
    members: dict[str, memoryview] = field(default_factory=dict)  # those that are read already

    def images(self, shards: ShardReader, wanted: Sequence[int]) -> list[memoryview]:
        """The files of some images, by their place in `names`; what is not there yet is read now.

        Raises:
            ConfigError, EngineError: as `ShardReader.read`.
        """
        names = [self.names[i] for i in wanted]
        missing = [name for name in names if name not in self.members]
        read = dict(zip(missing, shards.read_members(self.key, missing), strict=True)) if missing else {}
        return [read[name] if name in read else self.members[name] for name in names]


class RunSamples:
    """The samples of a run by number, in the order of `mixture.parquet`. Picklable."""

    def __init__(self, run: str | Path) -> None:
        """Open a finished run, by path or URL.

        Raises:
            ConfigError: there is no finished run.
            EngineError: its files are damaged.
        """
        self.run = path_of(run)
        about = self.run / "run.json"
        if not about.is_file() or not (facts := json.loads(about.read_text(encoding="utf-8")))["complete"]:
            raise ConfigError(f"{run} is not a finished run; finish it with `corpus build`")
        self.config: dict[str, Any] = facts["config"]
        self.settings = MessageSettings(**self.config["messages"])
        names = [name for name in schema_of(Sample).names if name != "grids"]
        table = read_table(
            self.run / "mixture.parquet", columns=names, read_dictionary=["doc_id", "task", "split"]
        ).unify_dictionaries()
        texts = ("sample_id", "doc_id", "question_ids", "task", "split")
        self._texts: dict[str, Any] = {name: table[name].combine_chunks() for name in texts}
        self._numbers = {name: table[name].to_numpy().astype(np.int32) for name in _NUMBERS}
        self._patch_pairs: IntArray = table["patch_pairs"].to_numpy()
        self._exact = table["tokens_exact"].to_numpy()
        self.shards = ShardReader(self.run)

    def __len__(self) -> int:
        return len(self._exact)

    def read_plan(self, plan: str | Path | None = None) -> Plan:
        """A plan of these samples, by default the run's own.

        Raises:
            ConfigError: there is no plan, or it names samples that the run does not have.
        """
        file = path_of(plan) if plan is not None else self._own_plan()
        if not file.is_file() or not file.with_suffix(".json").is_file():
            raise ConfigError(f"there is no plan {file}; name a plan-*.parquet that stands beside its JSON file")
        table = read_table(file, columns=["step", "row", "position", "sample_id"])
        if not table.num_rows:
            raise ConfigError(f"{file} is empty; plan the run again")
        found = pc.index_in(table["sample_id"], value_set=self._texts["sample_id"])
        if found.null_count:
            first = table["sample_id"][pc.index(pc.is_null(found), True).as_py()]
            raise ConfigError(f"{file} names {first}, which {self.run} does not have; plan the run again")
        step, row, position = (table[name].to_numpy() for name in ("step", "row", "position"))
        order = np.lexsort((position, row, step))
        entries, step, row = found.to_numpy().astype(np.int64)[order], step[order], row[order]
        begins = np.flatnonzero((np.diff(step, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0))
        step, row = step[begins], row[begins]
        first = np.flatnonzero(np.diff(step, prepend=-1))  # rows that begin a step
        if not np.array_equal(step[first], np.arange(len(first))) or (row != np.arange(len(row)) - first[step]).any():
            raise ConfigError(f"{file} skips a step or a row; plan the run again")
        report = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        starts = np.append(begins, len(entries))
        return Plan(file=file, report=report, entries=entries, starts=starts, step=step, row=row)

    def _own_plan(self) -> Path:
        plans = [p for p in sorted(self.run.glob("plan/plan-*.parquet")) if not p.name.endswith(".left_out.parquet")]
        if not plans:
            raise ConfigError(f"{self.run} has no plan; it has no training sample")
        return plans[0]

    def of_split(self, split: str) -> IntArray:
        """The samples of a split, in their order."""
        is_of = pc.equal(self._texts["split"], pa.scalar(split)).to_numpy(zero_copy_only=False)
        numbers: IntArray = np.flatnonzero(is_of)
        return numbers

    def find(self, sample_id: str) -> int:
        """The number of a sample, by looking through all of them.

        Raises:
            ConfigError: the run does not have it.
        """
        number: int = pc.index(self._texts["sample_id"], sample_id).as_py()
        if number < 0:
            raise ConfigError(f"{self.run} has no sample {sample_id!r} in its mixture")
        return number

    def columns(self, numbers: IntArray) -> dict[str, IntArray]:
        """`num_tokens`, `num_patches`, `num_supervised` and `patch_pairs` of some samples."""
        counts = ("num_tokens", "num_patches", "num_supervised")
        found = {name: self._numbers[name][numbers].astype(np.int64) for name in counts}
        return found | {"patch_pairs": self._patch_pairs[numbers]}

    def sample(self, number: int, grids: tuple[PageGrid, ...] = ()) -> Sample:
        """One record; its `grids` are those given."""
        fields: dict[str, Any] = {name: column[number].as_py() for name, column in self._texts.items()}
        fields |= {name: int(column[number]) for name, column in self._numbers.items()}
        fields["question_ids"] = tuple(fields["question_ids"])
        exact, pairs = bool(self._exact[number]), int(self._patch_pairs[number])
        return Sample(**fields, patch_pairs=pairs, tokens_exact=exact, grids=grids)

    def stored(self, number: int, whole: bool) -> StoredSample:
        """What the shard holds of a sample: by one read, all of it or its head alone.

        Raises:
            ConfigError: it does not have it.
            EngineError: the shard is damaged, or of another build than the table.
        """
        sample = self.sample(number)
        head = ("json", "messages.json" if sample.is_short else "questions.json")
        if whole:
            members = self.shards.read_window(sample.key)
        else:
            members = dict(zip(head, self.shards.read_members(sample.key, head), strict=True))
        try:
            about, told = (json.loads(bytes(members.pop(name))) for name in head)
            images = about["images" if sample.is_short else "pages"]
            grids = tuple(PageGrid(height=int(i["height"]), width=int(i["width"])) for i in images)
            names = tuple(str(i["name"]) for i in images)
            messages = short_messages(told) if sample.is_short else self._asked(sample, told)
        except (KeyError, TypeError, ValueError) as e:
            raise EngineError(
                f"{self.run}: {sample.key} cannot be read ({type(e).__name__}: {e}); run the same `corpus build` again"
            ) from None
        if len(names) != sample.num_pages:
            raise EngineError(
                f"{self.run}: {sample.key} has {len(names)} images in its shard, {sample.num_pages} in "
                "mixture.parquet; run the same `corpus build` again"
            )
        return StoredSample(key=sample.key, messages=messages, grids=grids, names=names, members=members)

    def _asked(self, sample: Sample, told: list[dict[str, Any]]) -> list[Message]:
        window = Window(
            doc_id=sample.doc_id, index=sample.window, first_page=sample.first_page, num_pages=sample.num_pages
        )
        asked = {q["question_id"]: q for q in told}
        return build_messages(window, [record_from(Question, asked[i]) for i in sample.question_ids], self.settings)
