"""A table of samples in, the mixture on disk out: the only part of it that touches files.

The pool is any table with the columns of `corpus.records.Sample`, or of `packing.table.COLUMNS` alone. What is written
has the same columns and `epoch`: the samples to train on, epoch by epoch and else in the order of the pool, then those
for validation. Rows are moved as Arrow columns; only samples of several questions are put together one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.config import MixtureSettings
from corpus.errors import ConfigError
from corpus.records import Rejected, content_id
from corpus.store import schema_of, write_json, write_table
from packing.ids import hash_ids
from packing.mixture import MIXED, IntArray, Mixture, Pool, mix
from packing.mixture_report import REASONS
from packing.table import read_samples

TABLE = "mixture.parquet"
REPORT = "mixture.json"
LEFT_OUT = "mixture.left_out.parquet"  # of the questions of the pool that are not used, as `corpus.records.Rejected`


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedTable:
    """A pool and what was chosen of it."""

    pool: pa.Table
    train: IntArray  # rows of the pool, which `mixture` counts
    validation: IntArray
    mixture: Mixture


def mix_table(pool: pa.Table, settings: MixtureSettings, *, seed: int, max_tokens: int) -> MixedTable:
    """Choose from a pool; nothing is written yet.

    Raises:
        ConfigError: the settings cannot hold, or ask for turns and windows of a table that says nothing of these.
    """
    whole = {"doc_id", "window", "question_ids", "turn_tokens"} <= set(pool.column_names)
    if not whole and (settings.questions_per_window > 1 or settings.samples_per_window is not None):
        raise ConfigError(
            "mixture.questions_per_window and mixture.samples_per_window need the windows of a corpus; a table of "
            "lengths has none: leave them out, or set them in `corpus build`"
        )
    is_train = pc.equal(pool["split"], "train").to_numpy()
    train, validation = np.flatnonzero(is_train), np.flatnonzero(~is_train)
    columns = ["sample_id", "task", "num_tokens", *(["doc_id", "window", "turn_tokens"] if whole else [])]
    rows = pool.select(columns).take(pa.array(train))
    task, names = _codes(rows["task"])
    in_order = sorted(range(len(names)), key=names.__getitem__)  # not that of the table
    code = np.empty(len(names), dtype=np.int64)
    code[in_order] = np.arange(len(names))
    columns_of = Pool(
        key=hash_ids(rows["sample_id"], seed),
        task=code[task],
        task_names=tuple(names[i] for i in in_order),
        window=_windows(rows) if whole else np.arange(len(train)),
        num_tokens=rows["num_tokens"].to_numpy(),
        turn_tokens=rows["turn_tokens"].to_numpy() if whole else np.zeros(len(train), dtype=np.int64),
    )
    mixture = mix(columns_of, settings, max_tokens=max_tokens, num_validation=len(validation))
    return MixedTable(pool=pool, train=train, validation=validation, mixture=mixture)


def mix_file(path: Path, out: Path, settings: MixtureSettings, *, seed: int) -> MixedTable:
    """Choose from a table that may come from anywhere; nothing is written yet.

    Raises:
        ConfigError: the table or `out` is at fault, the settings cannot hold, or nothing is chosen.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder for the plan")
    samples = read_samples(path)
    if samples.epoch.any():
        raise ConfigError(f"{path} is a mixture already: it has epochs; give the samples that it was made of")
    columns = {name: column for name, column in samples.columns().items() if name != "epoch"}
    mixed = mix_table(pa.table(columns), settings, seed=seed, max_tokens=0)
    if not mixed.mixture.report.num_samples:
        why = "; ".join(mixed.mixture.report.shortfalls) or "it has no training samples"
        raise ConfigError(f"{path}: nothing is chosen for the mixture: {why}")
    return mixed


def _windows(rows: pa.Table) -> IntArray:
    """A number for each window, in the order of the pool."""
    documents, windows = _codes(rows["doc_id"])[0], rows["window"].to_numpy()
    numbers: IntArray = documents * (int(windows.max(initial=0)) + 1) + windows
    return numbers


def _codes(texts: pa.ChunkedArray) -> tuple[IntArray, list[str]]:
    """Texts as indices into the different ones, which are in the order of their first appearance."""
    encoded = texts.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def write_mixture(folder: Path, mixed: MixedTable) -> list[Path]:
    """Write the mixture, its report and what was left out; returns the files, the mixture itself last."""
    files = [folder / REPORT, folder / LEFT_OUT, folder / TABLE]
    write_json(files[0], mixed.mixture.report.as_dict())
    write_table(files[1], left_out_table(mixed))
    write_table(files[2], mixture_table(mixed))
    return files


def left_out_table(mixed: MixedTable) -> pa.Table:
    """The samples of the pool that are not trained on, as `Rejected`."""
    rows = pa.array(mixed.train[mixed.mixture.left_out])
    codes = pa.array(mixed.mixture.reason)
    columns = {
        "id": mixed.pool["sample_id"].take(rows),
        "stage": pa.repeat("mixture", len(rows)),
        "reason": pa.array(list(REASONS)).take(codes),
        "detail": pa.array(list(REASONS.values())).take(codes),
    }
    schema = schema_of(Rejected)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def mixture_table(mixed: MixedTable) -> pa.Table:
    """The samples to train on and those for validation."""
    mixture = mixed.mixture
    first = np.flatnonzero(np.diff(mixture.sample, prepend=-1))
    train = mixed.pool.take(pa.array(mixed.train[mixture.question[first]]))
    if len(first) < len(mixture.sample):
        train = _joined(train, mixed, first)
    validation = mixed.pool.take(pa.array(mixed.validation))
    epoch = np.concatenate([mixture.epoch[first], np.zeros(len(validation), dtype=np.int64)])
    return pa.concat_tables([train, validation]).append_column("epoch", pa.array(epoch))


def _joined(table: pa.Table, mixed: MixedTable, first: IntArray) -> pa.Table:
    """`table` holds the sample of every first question; those of several get what the others add."""
    mixture = mixed.mixture
    names = ["sample_id", "question_ids", "task", "num_supervised", "turn_tokens"]
    uses = mixed.pool.select(names).take(pa.array(mixed.train[mixture.question]))
    ends = np.append(first[1:], len(mixture.sample))
    several = np.flatnonzero(ends - first > 1)
    turn = uses["turn_tokens"].to_numpy()
    added = np.add.reduceat(turn, first) - turn[first]
    supervised = np.add.reduceat(uses["num_supervised"].to_numpy(), first)
    questions = uses["question_ids"].combine_chunks()
    counts = np.add.reduceat(pc.list_value_length(questions).to_numpy(), first)
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    ids, tasks = table["sample_id"].to_pylist(), table["task"].to_pylist()
    all_ids, all_tasks = uses["sample_id"].to_pylist(), uses["task"].to_pylist()
    for i in several.tolist():
        turns = slice(first[i], ends[i])
        ids[i] = "s" + content_id(all_ids[turns], length=15)
        tasks[i] = tasks[i] if len(set(all_tasks[turns])) == 1 else MIXED
    turn_of_one = turn[first].copy()
    turn_of_one[several] = 0
    changed = {
        "sample_id": pa.array(ids, pa.string()),
        "question_ids": pa.ListArray.from_arrays(offsets, questions.flatten()),
        "task": pa.array(tasks, pa.string()),
        "num_tokens": pa.array(table["num_tokens"].to_numpy() + added),
        "num_supervised": pa.array(supervised),
        "turn_tokens": pa.array(turn_of_one),
    }
    for name, column in changed.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column.cast(table.schema.field(at).type))
    return table
