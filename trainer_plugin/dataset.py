"""The plan and the shards of a run as a map-style dataset: item i is row i of the plan, in the order of training.

Rows are found by their number alone, so a resumed run skips to any step at no cost. A window is one `pread`, its
pages are decoded when the row is asked for. Nothing here needs torch: any loader that indexes a sequence can use it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from corpus.config import MessageSettings
from corpus.errors import ConfigError
from corpus.messages import Message, build_messages, short_messages
from corpus.records import PlanEntry, Question, Sample, Window
from corpus.shards import ShardReader, find_page
from corpus.storage import path_of
from corpus.store import read_records, record_from


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSample:
    """One conversation of a row. Every image part of `messages` holds an RGB image of `[H, W]` as in `sample.grids`."""

    sample: Sample
    messages: list[Message]

    @property
    def images(self) -> list[Image.Image]:
        """The page images, or those of a conversation of the user's, in the order of the conversation."""
        parts = [part for message in self.messages for part in message["content"]]
        return [part["image"] for part in parts if part["type"] == "image"]


class PlanDataset:
    """Rows of a run's plan. Picklable; forked processes share the index of the shards."""

    def __init__(self, run: str | Path) -> None:
        """Open a finished run, by path or URL.

        Raises:
            ConfigError: no finished run, no plan, or a plan that names samples which the run does not have.
        """
        self.run = path_of(run)
        about = self.run / "run.json"
        if not about.is_file() or not json.loads(about.read_text(encoding="utf-8"))["complete"]:
            raise ConfigError(f"{run} is not a finished run; finish it with `corpus build`")
        plans = [p for p in sorted(self.run.glob("plan/plan-*.parquet")) if not p.name.endswith(".left_out.parquet")]
        if not plans:
            raise ConfigError(f"{run} has no plan; it has no training sample")
        self.settings = MessageSettings(**json.loads(about.read_text(encoding="utf-8"))["config"]["messages"])
        self.samples = {s.sample_id: s for s in read_records(self.run / "mixture.parquet", Sample)}
        rows: dict[tuple[int, int], list[PlanEntry]] = {}
        for entry in read_records(plans[0], PlanEntry):
            if entry.sample_id not in self.samples:
                raise ConfigError(f"{plans[0]} names {entry.sample_id}, which {run} does not have; plan the run again")
            rows.setdefault((entry.step, entry.row), []).append(entry)
        self.rows = [rows[place] for place in sorted(rows)]
        self.shards = ShardReader(self.run)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[LoadedSample]:
        """The samples of row `index`, in their order in the row."""
        return [self.load(entry.sample_id) for entry in sorted(self.rows[index], key=lambda e: e.position)]

    def __iter__(self) -> Iterator[list[LoadedSample]]:
        return (self[i] for i in range(len(self)))

    def load(self, sample_id: str) -> LoadedSample:
        """One sample with its pages decoded."""
        sample = self.samples[sample_id]
        if sample.is_short:
            return self._load_short(sample)
        window = Window(
            doc_id=sample.doc_id, index=sample.window, first_page=sample.first_page, num_pages=sample.num_pages
        )
        members = self.shards.read_window(window.key)
        asked = {q["question_id"]: q for q in json.loads(bytes(members["questions.json"]))}
        questions = [record_from(Question, asked[i]) for i in sample.question_ids]
        pages = range(sample.first_page, sample.first_page + sample.num_pages)
        images = [_decoded(members[find_page(members, page)]) for page in pages]
        return LoadedSample(sample=sample, messages=build_messages(window, questions, self.settings, images))

    def _load_short(self, sample: Sample) -> LoadedSample:
        stored = self.shards.read_json(sample.key, "messages.json")
        images = [_decoded(self.shards.read_image(sample.key, i)) for i in range(sample.num_pages)]
        return LoadedSample(sample=sample, messages=short_messages(stored, images))


def _decoded(data: bytes | memoryview) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")
