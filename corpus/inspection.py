"""What stands in a run, a shard or a plan: facts for programs (`describe`) and the same facts for a person.

Text of documents is data: control characters are removed before anything is shown.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corpus.blocks import clean
from corpus.errors import ConfigError
from corpus.records import LedgerEntry, Page, Question, Sample
from corpus.store import plain, read_records

if TYPE_CHECKING:
    from corpus.pipeline import BuildResult

TOKEN_EDGES = (32_768, 49_152, 65_536, 81_920, 98_304, 114_688)
PAGE_EDGES = (8, 16, 24, 32, 40, 48, 64)
BAR_WIDTH = 32


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
    facts: dict[str, Any] = json.loads(file.read_text())
    return facts


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
    windows = {(d, w): n for d, w, n in zip(samples["doc_id"], samples["window"], samples["num_pages"], strict=True)}
    return {
        "kind": "run",
        "complete": about["complete"],
        "model": about["config"]["model"],
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
        "rejected": rejections(run),
        "shards": _shard_facts(run),
        "plan": _plan_report(run),
    }


def _sample_columns(file: Path) -> dict[str, list[Any]]:
    names = ["doc_id", "window", "num_pages", "task", "split", "num_tokens", "tokens_exact"]
    if not file.is_file():
        return {name: [] for name in names}
    table = pq.read_table(file, columns=names)
    return {name: table[name].to_pylist() for name in names}


def rejections(run: Path) -> dict[str, int]:
    """Everything that was refused, by stage and reason, most frequent first."""
    file = run / "rejected.parquet"
    if not file.is_file():
        return {}
    table = pq.read_table(file, columns=["stage", "reason"])
    pairs = zip(table["stage"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return dict(Counter(f"{stage}: {reason}" for stage, reason in pairs).most_common())


def _shard_facts(run: Path) -> dict[str, int]:
    file = run / "shards" / "index.parquet"
    if not file.is_file():
        return {"count": 0, "bytes": 0}
    table = pq.read_table(file, columns=["shard", "shard_bytes"])
    sizes = dict(zip(table["shard"].to_pylist(), table["shard_bytes"].to_pylist(), strict=True))
    return {"count": len(sizes), "bytes": sum(sizes.values())}


def plan_file(run: Path) -> Path | None:
    """The run's plan, None where it has none."""
    found = sorted(p for p in run.glob("plan/plan-*.parquet") if not p.name.endswith(".left_out.parquet"))
    return found[0] if found else None


def _plan_report(run: Path) -> dict[str, Any]:
    file = plan_file(run)
    return json.loads(file.with_suffix(".json").read_text()) if file else {}


def _describe_shard(path: Path) -> dict[str, Any]:
    try:
        with tarfile.open(path, "r:") as tar:  # plain: else the error is a line for every compression tried
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
    schema = pq.read_schema(path)
    missing = [c for c in columns if c not in schema.names]
    if missing:
        raise ConfigError(f"{path} is not a plan: it has no column {missing[0]!r}")
    table = pq.read_table(path)
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
        "report": json.loads(report.read_text()) if report.is_file() else {},
    }


def describe_sample(path: Path, sample_id: str) -> dict[str, Any]:
    """One sample whole: its window, pages, questions, answers, evidence, and its place in the plan.

    Raises:
        ConfigError: not a run, or no sample (or more than one) begins like that.
    """
    read_run_json(path)
    if not (path / "samples.parquet").is_file():
        raise ConfigError(f"{path} has no samples yet; build it past the shard stage")
    ids = pq.read_table(path / "samples.parquet", columns=["sample_id"])["sample_id"].to_pylist()
    matches = [i for i in ids if i.startswith(sample_id)]
    if len(matches) != 1:
        shown = ", ".join(matches[:3] or ids[:3])
        what = f"{len(matches)} samples begin with" if matches else "no sample begins with"
        raise ConfigError(f"{what} {sample_id!r}; for example: {shown}")
    only = [("sample_id", "=", matches[0])]
    sample = read_records(path / "samples.parquet", Sample, filters=only)[0]
    of_document = [("doc_id", "=", sample.doc_id)]
    entry = next(e for e in read_records(path / "ledger.parquet", LedgerEntry) if e.doc_id == sample.doc_id)
    questions = [
        plain(q)
        for file in sorted(path.glob("questions/p*.parquet"))
        for q in read_records(file, Question, filters=of_document)
        if q.question_id in sample.question_ids
    ]
    pages = [
        {"page": p.index + 1, "text_source": p.text_source, "height": g.height, "width": g.width}
        for file in sorted(path.glob("pages/p*.parquet"))
        for p in read_records(file, Page, filters=of_document)
        if 0 <= p.index - sample.first_page < sample.num_pages
        for g in (sample.grids[p.index - sample.first_page],)
    ]
    facts = plain(sample)
    del facts["grids"]
    return {
        "kind": "sample",
        **facts,
        "uri": entry.uri,
        "questions": questions,
        "pages": pages,
        "plan": _place(path, sample),
    }


def _place(run: Path, sample: Sample) -> dict[str, int] | None:
    file = plan_file(run)
    if file is None:
        return None
    columns = ["step", "row", "position"]
    found = pq.read_table(file, columns=columns, filters=[("sample_id", "=", sample.sample_id)]).to_pylist()
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


# ------------------------------------------------------------------------------------------------ for a person


def print_build(result: BuildResult) -> None:
    """The closing table of a build."""
    kept = [e for e in result.ledger if e.status == "kept"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("documents", f"{len(kept)} kept, {len(result.ledger) - len(kept)} rejected")
    for reason, n in Counter(f"{e.stage}: {e.reason}" for e in result.ledger if e.status == "rejected").most_common(8):
        table.add_row("", f"  {n} {reason}", style="yellow")
    pages = sum(e.num_pages for e in result.ledger)
    table.add_row("pages", f"{pages} in, {sum(e.window_pages for e in result.ledger)} in windows")
    if result.num_samples:
        table.add_row("samples", f"{result.num_samples}, {result.num_tokens:,} tokens")
    if result.fill is not None:
        table.add_row("plan", f"{result.plan}, fill {result.fill:.3f}")
    if not any(result.work.values()):
        table.add_row("work", "everything was done already")
    report = result.run / "report.html"
    if result.until == "report":
        table.add_row("report", escape(str(report)))
    Console(highlight=False, soft_wrap=True).print(table)


def print_description(found: Mapping[str, Any]) -> None:
    """What `describe` found, readable."""
    out = Console(highlight=False, soft_wrap=True)
    if found["kind"] == "run":
        _print_run(out, found)
    elif found["kind"] == "shard":
        out.print(f"shard of {_size(found['bytes'])}, {len(found['samples'])} windows")
        for key, s in found["samples"].items():
            out.print(f"  {escape(clean(key))}: {s['pages']} pages, {s['members']} members, {_size(s['bytes'])}")
    else:
        _print_plan(out, found)


def _print_run(out: Console, found: Mapping[str, Any]) -> None:
    documents, pages, samples = found["documents"], found["pages"], found["samples"]
    state = "complete" if found["complete"] else "NOT complete: run the same `corpus build` again"
    out.print(f"[bold]run[/] for {found['model']}, {state}")
    out.print(f"documents  {documents['inputs']} in, {documents['kept']} kept")
    _print_counts(out, documents["rejected"], "rejected")
    out.print(f"pages      {pages['in']:,} in, {pages['in_windows']:,} in windows, {pages['ocr']:,} read by OCR")
    _print_counts(out, pages["left_out"], "left out")
    out.print(f"shards     {found['shards']['count']}, {_size(found['shards']['bytes'])}")
    kind = "exact" if samples["tokens_exact"] else "upper bound: no tokenizer given"
    out.print(f"samples    {samples['count']:,}, {samples['tokens']:,} tokens ({kind})")
    _print_counts(out, samples["by_task"], "")
    _print_counts(out, samples["by_split"], "")
    out.print("\n[bold]tokens a sample[/]")
    _print_bars(out, samples["token_histogram"])
    out.print("\n[bold]pages a window[/]")
    _print_bars(out, found["windows"]["pages"])
    if found["rejected"]:
        out.print("\n[bold]refused, by stage and reason[/] (rejected.parquet)")
        _print_counts(out, found["rejected"], "")
    if found["plan"]:
        plan = found["plan"]
        out.print(
            f"\n[bold]plan[/] {plan['num_samples']} samples in {plan['num_rows']} rows, {plan['num_steps']} steps, "
            f"fill {plan['fill']:.3f}"
        )


def _print_plan(out: Console, found: Mapping[str, Any]) -> None:
    fill = found["report"].get("fill")
    out.print(
        f"[bold]plan[/] {found['samples']} samples in {found['rows']} rows, {found['steps']} steps, "
        f"{found['tokens']:,} tokens" + (f", fill {fill:.3f}" if fill is not None else "")
    )
    _print_counts(out, found["by_task"], "")
    out.print("\n[bold]tokens a row[/]")
    _print_bars(out, found["row_tokens"])
    out.print("\n[bold]tokens a sample[/]")
    _print_bars(out, found["token_histogram"])


def print_sample(found: Mapping[str, Any]) -> None:
    """One sample, readable."""
    out = Console(highlight=False, soft_wrap=True)
    last = found["first_page"] + found["num_pages"]
    out.print(f"[bold]sample[/] {found['sample_id']}  {found['task']}, {found['split']}")
    out.print(f"document   {found['doc_id']}  {escape(clean(found['uri']))}")
    out.print(f"window     pages {found['first_page'] + 1}-{last}")
    out.print(f"tokens     {found['num_tokens']:,}, {found['num_supervised']} supervised")
    place = found["plan"]
    if place:
        out.print(f"plan       step {place['step']}, row {place['row']}, position {place['position']}")
    for q in found["questions"]:
        out.print(f"\n[bold]Q[/] {_shown(q['question'])}")
        out.print(f"[bold]A[/] {_shown(q['answer'])}  [dim]({q['answer_format']}, {escape(q['generator'])})[/]")
        for e in q["evidence"]:
            box = f" at {tuple(e['box'])}" if e["box"] else ""
            out.print(f"   Page {e['page'] + 1}, {e['kind']}{box}: {_shown(e['quote'][:300])}")
    sizes = Counter(f"{p['width']} x {p['height']} px, text from {p['text_source']}" for p in found["pages"])
    out.print("\n[bold]pages[/]")
    _print_counts(out, dict(sizes.most_common()), "")


def _shown(text: str) -> str:
    """Text of a document, line by line without control characters, and without console markup."""
    return escape("\n".join(clean(line) for line in text.splitlines()))


def _print_counts(out: Console, counts: Mapping[str, int], what: str) -> None:
    for name, n in counts.items():
        out.print(f"  {n:>8,} {what + ' ' if what else ''}{escape(clean(name))}")


def _print_bars(out: Console, counts: Mapping[str, int]) -> None:
    most = max(counts.values(), default=1)
    for label, n in counts.items():
        out.print(f"  {label:>16} {'█' * max(bool(n), round(n / most * BAR_WIDTH))} {n}")


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "KB", "MB"):
        if size < 1_000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1_000
    return f"{size:,.1f} GB"
