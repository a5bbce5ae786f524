"""Does a run keep every promise it makes? Checksums, offsets, counts, and the plan against the shards.

Each check reads what is on disk, not what the build remembered, and stops at the first broken promise.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from corpus.inspection import BrokenPromise, plan_file, read_run_json
from corpus.ledger import assert_conserved
from corpus.messages import short_messages
from corpus.records import LedgerEntry, Question, Rejected, Sample, ShortFile
from corpus.shard_index import ShardIndex
from corpus.shards import ShardReader
from corpus.store import file_xxh128, has_digest, read_records, read_table


def lint_run(run: Path) -> dict[str, str]:
    """Run every check; returns what each one saw.

    Raises:
        BrokenPromise: the first one that fails.
        ConfigError: not a run directory.
    """
    if not read_run_json(run)["complete"]:
        raise BrokenPromise("run.json says the build is not complete; run the same `corpus build` again")
    checks: dict[str, Callable[[Path], str]] = {
        "markers": _check_markers,
        "ledger": _check_ledger,
        "shards": _check_shards,
        "index": _check_index,
        "samples": _check_samples,
        "short": _check_short,
        "mixture": _check_mixture,
        "plan": _check_plan,
    }
    seen = {}
    for name, check in checks.items():
        try:
            seen[name] = check(run)
        except (OSError, KeyError, ValueError, pa.ArrowException, tarfile.TarError) as e:
            raise BrokenPromise(f"{name}: {type(e).__name__}: {e}") from e
        except AssertionError as e:
            raise BrokenPromise(f"{name}: {e}") from e
    return seen


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BrokenPromise(message)


def _check_markers(run: Path) -> str:
    """Every file that a partition promises has the content it had when it was finished."""
    files = {}
    for marker in sorted(run.glob(".state/markers/*.json")):
        files.update(json.loads(marker.read_text(encoding="utf-8"))["files"])
    for name, digest in files.items():
        _require((run / name).is_file(), f"{name} is missing")
        _require(has_digest(run / name, digest), f"{name} does not have the checksum that was recorded")
    return f"{len(files)} files have the recorded checksum"


def _check_ledger(run: Path) -> str:
    entries = read_records(run / "ledger.parquet", LedgerEntry)
    twice = [uri for uri, n in Counter(e.uri for e in entries).items() if n > 1]
    _require(not twice, f"ledger: {twice[:1]} stands there more than once")
    for entry in entries:
        assert_conserved(entry)
        _require((entry.status == "kept") == (entry.num_windows > 0), f"ledger: {entry.uri}: kept without a window")
        _require(entry.status == "kept" or bool(entry.reason), f"ledger: {entry.uri}: rejected without a reason")
    return f"{len(entries)} inputs, {sum(e.num_pages for e in entries)} pages accounted for"


def _check_shards(run: Path) -> str:
    """The archives on disk are those of the index, with its sizes and checksums."""
    table = read_table(run / "shards" / "index.parquet", columns=["shard", "shard_bytes", "shard_xxh128"])
    shards = table.group_by(table.column_names).aggregate([]).to_pylist()
    promised = {r["shard"]: (r["shard_bytes"], r["shard_xxh128"]) for r in shards}
    present = {p.name for p in (run / "shards").glob("*.tar")}
    _require(present == set(promised), f"shards on disk and in the index differ: {sorted(present ^ set(promised))[:3]}")
    for shard, (num_bytes, digest) in promised.items():
        path = run / "shards" / shard
        _require(path.stat().st_size == num_bytes, f"{shard} has {path.stat().st_size} bytes, not {num_bytes}")
        _require(file_xxh128(path) == digest, f"{shard} does not have the XXH3-128 of the index")
    return f"{len(promised)} archives, {sum(n for n, _ in promised.values()):,} bytes"


def _check_index(run: Path) -> str:
    """Every member of every archive stands where the index says, as the standard library reads it."""
    index = ShardIndex(run / "shards" / "index.parquet")
    keys: dict[str, list[str]] = defaultdict(list)
    for key in index:
        keys[index.shard(index.sample(key)).name].append(key)
    count = 0
    for shard, held in keys.items():
        promised = {
            f"{k}.{name}": (offset, size) for k in held for name, offset, size in index.members(index.sample(k))
        }
        with (run / "shards" / shard).open("rb") as file, tarfile.open(fileobj=file) as tar:
            found = {m.name: (m.offset_data, m.size) for m in tar}
        for name in promised.keys() | found.keys():
            where, promise = found.get(name), promised.get(name)
            _require(where == promise, f"{shard}: {name} stands at {where}, the index says {promise}")
        count += len(promised)
    return f"{count} members at their offsets"


def _check_samples(run: Path) -> str:
    """Every sample's window is in the shards, with its pages in their sizes and its questions; so is a conversation."""
    samples = read_records(run / "samples.parquet", Sample)
    twice = [i for i, n in Counter(s.sample_id for s in samples).items() if n > 1]
    _require(not twice, f"samples: {twice[:1]} stands there more than once")
    accepted: dict[str, Question] = {}
    for file in sorted(run.glob("questions/p*.parquet")):
        accepted.update({q.question_id: q for q in read_records(file, Question) if q.accepted})
    seen: set[tuple[str, int]] = set()
    with ShardReader(run) as shards:
        keys = set(shards)
        for sample in samples:
            key = sample.key
            _require(key in keys, f"sample {sample.sample_id}: no window {key} in the shards")
            if sample.is_short:
                seen.add((sample.doc_id, sample.window))
                _check_conversation(shards, key, sample)
                continue
            asked = {q["question_id"] for q in shards.read_json(key, "questions.json")}
            missing = [i for i in sample.question_ids if i not in asked or i not in accepted]
            _require(not missing, f"sample {sample.sample_id}: question {missing[:1]} is not in its window")
            if (sample.doc_id, sample.window) not in seen:
                seen.add((sample.doc_id, sample.window))
                _check_window(shards, key, sample)
        unused = keys - {f"{d}-w{w:02d}" for d, w in seen}
        _require(not unused, f"window {sorted(unused)[:1]} of the shards has no sample")
    num_short = sum(s.is_short for s in samples)
    conversations = f", {num_short} conversations" if num_short else ""
    return f"{len(samples) - num_short} samples in {len(seen) - num_short} windows{conversations}"


def _check_window(shards: ShardReader, key: str, sample: Sample) -> None:
    about: dict[str, Any] = shards.read_json(key, "json")
    place = (about["first_page"], about["num_pages"])
    _require(place == (sample.first_page, sample.num_pages), f"window {key}: pages {place} differ from its samples'")
    for i, grid in enumerate(sample.grids):
        page = sample.first_page + i
        size = Image.open(io.BytesIO(shards.read_page(key, page))).size
        _require(
            size == (grid.width, grid.height), f"{key}: the image of page {page + 1} is {size}, samples say {grid}"
        )


def _check_mixture(run: Path) -> str:
    """Every question of the pool is used or left out, no more often than allowed, in samples of the right length."""
    pool = read_records(run / "samples.parquet", Sample)
    mixed = read_table(run / "mixture.parquet", columns=["split", "epoch"]).to_pylist()
    samples = read_records(run / "mixture.parquet", Sample)
    of_training = {(s.doc_id, s.window, s.question_ids): s for s in pool if s.split == "train"}
    used: Counter[str] = Counter()
    in_epoch: Counter[tuple[str, int]] = Counter()
    for sample, row in zip(samples, mixed, strict=True):
        if sample.split != "train":
            continue
        whole = of_training.get((sample.doc_id, sample.window, sample.question_ids))
        turns = (
            [whole] if whole else [of_training.get((sample.doc_id, sample.window, (i,))) for i in sample.question_ids]
        )
        made_of = [t for t in turns if t]
        _require(len(made_of) == len(turns), f"mixture: {sample.sample_id} asks what the pool does not")
        length = made_of[0].num_tokens + sum(t.turn_tokens for t in made_of[1:])
        _require(
            sample.num_tokens == length, f"mixture: {sample.sample_id} has {sample.num_tokens} tokens, not {length}"
        )
        used.update(t.sample_id for t in made_of)
        in_epoch.update((t.sample_id, row["epoch"]) for t in made_of)
    epochs = json.loads((run / "mixture.json").read_text(encoding="utf-8"))["epochs"]
    _require(max(in_epoch.values(), default=0) <= 1, "mixture: a question is asked twice in an epoch")
    _require(max(used.values(), default=0) <= epochs, f"mixture: a question is used more than {epochs} times")
    left_out = set(read_table(run / "mixture.left_out.parquet")["id"].to_pylist())
    train = {s.sample_id for s in pool if s.split == "train"}
    _require(train == used.keys() | left_out, "mixture: some question is neither used nor left out")
    _require(not used.keys() & left_out, "mixture: some question is used and left out")
    held_out = {s.sample_id for s in pool if s.split != "train"}
    _require(
        held_out == {s.sample_id for s in samples if s.split != "train"}, "mixture: it lacks samples for validation"
    )
    return f"{sum(used.values())} questions in {len(samples) - len(held_out)} samples, {len(left_out)} left out"


def _check_conversation(shards: ShardReader, key: str, sample: Sample) -> None:
    stored = shards.read_json(key, "messages.json")
    _require(short_messages(stored) == stored, f"conversation {key} is not stored as it is read")
    shown = [p["image"] for m in stored for p in m["content"] if p["type"] == "image"]
    _require(shown == list(range(sample.num_pages)), f"conversation {key} shows images {shown[:5]}, not each one once")
    for i, grid in enumerate(sample.grids):
        size = Image.open(io.BytesIO(shards.read_image(key, i))).size
        _require(size == (grid.width, grid.height), f"{key}: image {i + 1} is {size}, samples say {grid}")


def _check_short(run: Path) -> str:
    """Every line of a chat file was kept or refused, and both stand where they should."""
    file = run / "short.parquet"
    files = read_records(file, ShortFile) if file.is_file() else []
    for f in files:
        _require(
            f.num_lines == f.num_kept + f.num_rejected, f"short: {f.file}: {f.num_lines} lines, not all accounted for"
        )
    kept = [s for s in read_records(run / "samples.parquet", Sample) if s.is_short]
    refused = read_records(run / "rejected.parquet", Rejected, filters=[("stage", "=", "short")])
    for what, rows, said in (
        ("samples", len(kept), sum(f.num_kept for f in files)),
        ("rejections", len(refused), sum(f.num_rejected for f in files)),
        ("images", sum(s.num_pages for s in kept), sum(f.num_images for f in files)),
        ("tokens", sum(s.num_tokens for s in kept), sum(f.num_tokens for f in files)),
    ):
        _require(rows == said, f"short: {rows} {what}, short.parquet says {said}")
    return f"{sum(f.num_lines for f in files)} lines of {len(files)} chat files accounted for" if files else "none"


def _check_plan(run: Path) -> str:
    """Every training sample of the mixture is planned, with its length, and no row exceeds its capacity."""
    file = plan_file(run)
    samples = [s for s in read_records(run / "mixture.parquet", Sample) if s.split == "train"]
    train, times = {s.sample_id: s.num_tokens for s in samples}, Counter(s.sample_id for s in samples)
    if file is None:
        _require(not train, "there are training samples but no plan")
        return "none, and no training sample"
    entries = read_table(file, columns=["step", "row", "position", "sample_id", "num_tokens"]).to_pylist()
    left_out = file.with_name(f"{file.stem}.left_out.parquet")
    refused = set(read_table(left_out)["id"].to_pylist()) if left_out.is_file() else set()
    planned = Counter(e["sample_id"] for e in entries)
    more = [i for i, n in planned.items() if n != times[i] and i in train]
    _require(not more, f"sample {more[:1]} does not stand in the plan as often as in the mixture")
    lost = train.keys() - planned.keys() - refused
    _require(not lost, f"sample {sorted(lost)[:1]} is neither planned nor left out")
    strangers = planned.keys() - train.keys()
    _require(not strangers, f"planned sample {sorted(strangers)[:1]} is not a training sample of this run")
    capacity = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["capacity"]
    rows: Counter[tuple[int, int]] = Counter()
    for e in entries:
        length = train[e["sample_id"]]
        _require(e["num_tokens"] == length, f"plan: {e['sample_id']} has {length} tokens, not {e['num_tokens']}")
        rows[e["step"], e["row"]] += e["num_tokens"]
    fullest = max(rows.values(), default=0)
    _require(fullest <= capacity, f"plan: a row holds {fullest} tokens, its capacity is {capacity}")
    return f"{len(entries)} samples in {len(rows)} rows"
