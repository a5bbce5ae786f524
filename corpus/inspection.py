"""What stands in a run, a shard or a plan, as plain facts; `corpus.display` shows them to a person."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.errors import ConfigError
from corpus.records import CHECKS, SHORT_TASK, SOUND_REPLIES, LedgerEntry, Page, Question, Sample, ShortFile
from corpus.shards import ShardReader
from corpus.store import parquet_source, plain, read_records, read_table

TOKEN_EDGES = (32_768, 49_152, 65_536, 81_920, 98_304, 114_688)
MATCH_REASONS = ("contaminated", "near-duplicate", "benchmark-question", "benchmark-unreadable")
MAX_MATCHES = 100
SCHEMA_CHECK = "schema"  # whether a reply is a question at all; those that are none have no other verdicts
THIRDS = ("beginning", "middle", "end")  # of a document
PAGE_EDGES = (8, 16, 24, 32, 40, 48, 64)


class BrokenPromise(Exception):
    """A run that is not what its files say it is."""


def describe(path: Path) -> dict[str, Any]:
    """Facts about a run directory, a shard or a plan, ready for JSON.

    Raises:
        ConfigError: the path is none of these.
    """
    if path.is_dir():
        return describe_run(path)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; name a run directory, a shard (.tar) or a plan (.parquet)")
    if path.suffix == ".tar":
        return _describe_shard(path)
    if path.suffix == ".parquet":
        return _describe_plan(path)
    raise ConfigError(f"{path} is neither a run directory, nor a shard (.tar), nor a plan (.parquet)")


def read_run_json(run: Path) -> dict[str, Any]:
    """The run's own account of itself.

    Raises:
        ConfigError: not a run directory.
    """
    file = run / "run.json"
    if not file.is_file():
        raise ConfigError(f"{run} is not a run directory: it has no run.json; make one with `corpus build`")
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"complete": bool(facts["complete"]), **facts}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file} is damaged; run the same `corpus build` again to restore it") from None


def describe_run(run: Path) -> dict[str, Any]:
    """Counts, histograms, rejections and the plan's figures of a run."""
    about = read_run_json(run)
    ledger = read_records(run / "ledger.parquet", LedgerEntry) if (run / "ledger.parquet").is_file() else []
    kept = [e for e in ledger if e.status == "kept"]
    left_out: Counter[str] = Counter()
    for e in ledger:
        for x in e.left_out:
            left_out[x.reason.partition(":")[0]] += x.num_pages
    samples = _sample_columns(run / "samples.parquet")
    rows = zip(samples["doc_id"], samples["window"], samples["num_pages"], samples["task"], strict=True)
    windows = {(d, w): n for d, w, n, task in rows if task != SHORT_TASK}
    return {
        "kind": "run",
        "complete": about["complete"],
        "until": about.get("until", ""),
        "model": about.get("config", {}).get("model", "an unknown model"),
        "documents": {
            "inputs": len(ledger),
            "kept": len(kept),
            "rejected": dict(Counter(f"{e.stage}: {e.reason}" for e in ledger if e.status == "rejected").most_common()),
        },
        "pages": {
            "in": sum(e.num_pages for e in ledger),
            "in_windows": sum(e.window_pages for e in ledger),
            "left_out": dict(left_out.most_common()),
            "ocr": sum(e.ocr_pages for e in ledger),
            "low_confidence": _low_confidence_pages(run, low_confidence(about)),
            "text": _text_counts(run),
        },
        "windows": {"count": len(windows), "pages": histogram(windows.values(), PAGE_EDGES)},
        "samples": {
            "count": len(samples["task"]),
            "by_task": dict(sorted(Counter(samples["task"]).items())),
            "by_split": dict(sorted(Counter(samples["split"]).items())),
            "tokens": sum(samples["num_tokens"]),
            "tokens_exact": all(samples["tokens_exact"]),
            "token_histogram": histogram(samples["num_tokens"], TOKEN_EDGES),
        },
        "short": _short_facts(run),
        "questions": question_facts(run, about.get("questions", {}).get("replies", {})),
        "spent": about.get("spent", {}),
        "rejected": rejections(run),
        "matched": matches(run, {e.doc_id: Path(e.uri).name for e in reversed(ledger)}),  # of equal files the first
        "shards": _shard_facts(run),
        "mixture": mixture_report(run),
        "plan": _plan_report(run),
    }


def _short_facts(run: Path) -> list[dict[str, Any]]:
    """What became of every chat file."""
    file = run / "short.parquet"
    return [plain(f) for f in read_records(file, ShortFile)] if file.is_file() else []


def question_facts(run: Path, replies: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """How many questions passed each check, and where in their documents the accepted ones were asked, in thirds.

    Args:
        run: whose questions are read.
        replies: of a task or a check, how many replies of a model could be read, and how many not, by reason.
    """
    num_pages = {}
    if (run / "ledger.parquet").is_file():
        table = read_table(run / "ledger.parquet", columns=["doc_id", "num_pages"])
        num_pages = dict(zip(table["doc_id"].to_pylist(), table["num_pages"].to_pylist(), strict=True))
    checks: dict[str, Counter[str]] = {}
    places = Counter(dict.fromkeys(THIRDS, 0))
    relabelled = 0
    columns = ["doc_id", "task", "segment_first", "segment_pages", "reason", "verdicts"]
    for file in sorted(run.glob("questions/p*.parquet")):
        if "verdicts" not in pq.read_schema(parquet_source(file)).names:  # a run of an earlier version
            continue
        for q in read_table(file, columns=columns).to_pylist():
            for verdict in q["verdicts"]:
                checks.setdefault(verdict["check"], Counter())["passed" if verdict["passed"] else "failed"] += 1
            relabelled += q["task"] == "extract-single" and any(v["check"] == "leakage" for v in q["verdicts"])
            if not q["reason"]:
                middle = (q["segment_first"] + q["segment_pages"] / 2) / max(1, num_pages.get(q["doc_id"], 1))
                places[THIRDS[min(2, int(3 * middle))]] += 1
    for task, reasons in replies.items():
        if task not in CHECKS:  # replies that are to be questions
            sound = sum(n for reason, n in reasons.items() if reason in SOUND_REPLIES)
            schema = checks.setdefault(SCHEMA_CHECK, Counter())
            schema["passed"] += sound
            schema["failed"] += sum(reasons.values()) - sound
    order = (SCHEMA_CHECK, *CHECKS)
    ordered = sorted(checks, key=lambda name: order.index(name) if name in order else len(order))
    return {
        "checks": {n: {"passed": checks[n]["passed"], "failed": checks[n]["failed"]} for n in ordered},
        "replies": {purpose: dict(reasons) for purpose, reasons in replies.items()},
        "relabelled": relabelled,  # asked for several pages, answered by one
        "places": dict(places),
    }


def low_confidence(about: dict[str, Any]) -> float:
    """The confidence below which a page read by OCR is named, from what `read_run_json` gave."""
    return float(about.get("config", {}).get("ocr", {}).get("low_confidence", 0.0))


def _low_confidence_pages(run: Path, limit: float) -> int:
    count = 0
    for file in run.glob("pages/p*.parquet"):
        if "ocr_confidence" in pq.read_schema(parquet_source(file)).names:  # a run of an earlier version has none
            doubtful = [("text_source", "=", "ocr"), ("ocr_confidence", "<", limit)]
            count += read_table(file, columns=["index"], filters=doubtful).num_rows
    return count


def _text_counts(run: Path) -> dict[str, int]:
    """Pages by the source of their text and the kind of reason for it, most frequent first."""
    counts: Counter[str] = Counter()
    for file in run.glob("pages/p*.parquet"):
        for p in read_table(file, columns=["text_source", "text_reason"]).to_pylist():
            kind = re.split(r"[:,]|-of-\d+-characters", p["text_reason"])[0]
            counts[f"{p['text_source']}: {kind}" if kind else p["text_source"]] += 1
    return dict(counts.most_common())


def _sample_columns(file: Path) -> dict[str, list[Any]]:
    names = ["doc_id", "window", "num_pages", "task", "split", "num_tokens", "tokens_exact"]
    if not file.is_file():
        return {name: [] for name in names}
    table = read_table(file, columns=names)
    return {name: table[name].to_pylist() for name in names}


def rejections(run: Path) -> dict[str, int]:
    """Everything that was refused, by stage and reason, most frequent first."""
    file = run / "rejected.parquet"
    if not file.is_file():
        return {}
    table = read_table(file, columns=["stage", "reason"])
    pairs = zip(table["stage"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return dict(Counter(f"{stage}: {reason}" for stage, reason in pairs).most_common())


def matches(run: Path, names: dict[str, str]) -> list[dict[str, str]]:
    """What was refused because of another document or a benchmark, and what it matched; the first hundred.

    Args:
        names: of documents by id; a question or a benchmark's file has its id for a name.
    """
    file = run / "rejected.parquet"
    if not file.is_file():
        return []
    of_clean = [("reason", "in", MATCH_REASONS)]
    rows = read_table(file, filters=of_clean).slice(0, MAX_MATCHES).to_pylist()
    return [{"name": names.get(r["id"], r["id"]), **r} for r in rows]


def _shard_facts(run: Path) -> dict[str, int]:
    file = run / "shards" / "index.parquet"
    if not file.is_file():
        return {"count": 0, "bytes": 0}
    table = read_table(file, columns=["shard", "shard_bytes"])
    sizes = table.group_by(table.column_names).aggregate([])["shard_bytes"].to_pylist()
    return {"count": len(sizes), "bytes": sum(sizes)}


def plan_file(run: Path) -> Path | None:
    """The run's plan, None where it has none."""
    found = sorted(p for p in run.glob("plan/plan-*.parquet") if not p.name.endswith(".left_out.parquet"))
    return found[0] if found else None


def _plan_report(run: Path) -> dict[str, Any]:
    file = plan_file(run)
    return json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) if file else {}


def mixture_report(run: Path) -> dict[str, Any]:
    """The run's account of its mixture; empty where it has none."""
    file = run / "mixture.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _describe_shard(path: Path) -> dict[str, Any]:
    try:
        # "r:" is plain: else the error is a line for every compression tried
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [(m.name, m.size) for m in tar]
    except (tarfile.TarError, OSError) as e:
        raise ConfigError(f"{path} is not a readable tar: {e}") from None
    samples: dict[str, dict[str, int]] = {}
    for name, size in members:
        sample = samples.setdefault(name.partition(".")[0], {"members": 0, "pages": 0, "bytes": 0})
        sample["members"] += 1
        sample["pages"] += name.endswith((".jpg", ".jpeg", ".png", ".webp"))
        sample["bytes"] += size
    return {
        "kind": "shard",
        "bytes": path.stat().st_size,
        "samples": samples,
        "pages": histogram([s["pages"] for s in samples.values()], PAGE_EDGES),
    }


def _describe_plan(path: Path) -> dict[str, Any]:
    columns = ["step", "row", "sample_id", "num_tokens"]
    try:
        schema = pq.read_schema(parquet_source(path))
    except pa.ArrowInvalid as e:
        raise ConfigError(f"{path} is not a readable Parquet file: {str(e).splitlines()[0]}") from None
    missing = [c for c in columns if c not in schema.names]
    if missing:
        raise ConfigError(f"{path} is not a plan: it has no column {missing[0]!r}")
    table = read_table(path)
    rows: Counter[tuple[int, int]] = Counter()
    for step, row, tokens in zip(*(table[c].to_pylist() for c in ("step", "row", "num_tokens")), strict=True):
        rows[step, row] += tokens
    report = path.with_suffix(".json")
    tasks = table["task"].to_pylist() if "task" in schema.names else []
    return {
        "kind": "plan",
        "samples": table.num_rows,
        "rows": len(rows),
        "steps": len({step for step, _ in rows}),
        "tokens": sum(rows.values()),
        "by_task": dict(sorted(Counter(tasks).items())),
        "row_tokens": histogram(rows.values(), TOKEN_EDGES),
        "token_histogram": histogram(table["num_tokens"].to_pylist(), TOKEN_EDGES),
        "report": json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {},
    }


def describe_sample(path: Path, sample_id: str) -> dict[str, Any]:
    """One sample whole: its window, pages, questions, answers, evidence, and its place in the plan.

    Raises:
        ConfigError: not a run, or no sample (or more than one) begins like that.
    """
    about = read_run_json(path)
    if not (path / "samples.parquet").is_file():
        raise ConfigError(f"{path} has no samples yet; build it past the shard stage")
    file_of = {}
    for file in (path / "samples.parquet", path / "mixture.parquet"):  # samples of several questions are there alone
        if file.is_file():
            ids = read_table(file, columns=["sample_id"])["sample_id"].to_pylist()
            file_of.update(dict.fromkeys(ids, file))
    matches = [i for i in file_of if i.startswith(sample_id)]
    if len(matches) != 1:
        shown = ", ".join(matches[:3] or list(file_of)[:3])
        what = f"{len(matches)} samples begin with" if matches else "no sample begins with"
        raise ConfigError(f"{what} {sample_id!r}; for example: {shown}")
    only = [("sample_id", "=", matches[0])]
    sample = read_records(file_of[matches[0]], Sample, filters=only)[0]
    facts = plain(sample)
    del facts["grids"]
    found = {"kind": "sample", **facts, "plan": _place(path, sample)}
    return found | (_conversation(path, sample) if sample.is_short else _window(path, about, sample))


def _conversation(run: Path, sample: Sample) -> dict[str, Any]:
    """Where a conversation of the user's came from, and what is said in it."""
    with ShardReader(run) as shards:
        about, messages = shards.read_json(sample.key, "json"), shards.read_json(sample.key, "messages.json")
    return {
        "file": about["file"],
        "line": about["line"],
        "license": about["license"],
        "source": about["source"],
        "turns": [{"role": m["role"], "said": "".join(map(_said, m["content"]))} for m in messages],
        "images": [{"height": g.height, "width": g.width} for g in sample.grids],
    }


def _said(part: dict[str, Any]) -> str:
    return str(part["text"]) if part["type"] == "text" else f"[image {part['image'] + 1}]"


def _window(path: Path, about: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """The window of a sample of a document: its questions and pages."""
    of_document = [("doc_id", "=", sample.doc_id)]
    entry = next(e for e in read_records(path / "ledger.parquet", LedgerEntry) if e.doc_id == sample.doc_id)
    asked = {
        q.question_id: plain(q)
        for file in sorted(path.glob("questions/p*.parquet"))
        for q in read_records(file, Question, filters=of_document)
    }
    pages = [
        {
            "page": p.index + 1,
            "text_source": p.text_source,
            "text_reason": p.text_reason,
            "ocr_confidence": p.ocr_confidence,
            "low_confidence": p.text_source == "ocr" and p.ocr_confidence < low_confidence(about),
            "height": g.height,
            "width": g.width,
        }
        for file in sorted(path.glob("pages/p*.parquet"))
        for p in read_records(file, Page, filters=of_document)
        if 0 <= p.index - sample.first_page < sample.num_pages
        for g in (sample.grids[p.index - sample.first_page],)
    ]
    questions = [asked[i] for i in sample.question_ids if i in asked]
    return {"uri": entry.uri, "questions": questions, "pages": pages}


def _place(run: Path, sample: Sample) -> dict[str, int] | None:
    file = plan_file(run)
    if file is None:
        return None
    columns = ["step", "row", "position"]
    found = read_table(file, columns=columns, filters=[("sample_id", "=", sample.sample_id)]).to_pylist()
    return found[0] if found else None


def histogram(values: Iterable[int], edges: Sequence[int]) -> dict[str, int]:
    """Counts between edges, for example {'<8': 1, '8-15': 4, '>=16': 2}; empty ends are left out."""
    labels = [
        f"<{edges[0]:,}",
        *(f"{a:,}-{b - 1:,}" for a, b in zip(edges, edges[1:], strict=False)),
        f">={edges[-1]:,}",
    ]
    counts = [0] * len(labels)
    for value in values:
        counts[sum(value >= edge for edge in edges)] += 1
    full = [i for i, n in enumerate(counts) if n]
    return {labels[i]: counts[i] for i in range(full[0], full[-1] + 1)} if full else {}
