"""Facts about builds, runs, shards, plans and samples on a terminal.

Text of documents is data: control characters and console markup are taken out before anything is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corpus.blocks import clean
from corpus.records import READ

if TYPE_CHECKING:  # importing it would load PyMuPDF
    from corpus.pipeline import BuildResult

BAR_WIDTH = 32
MAX_MATCHES = 10
SEVERAL_LINES = ("question", "answer", "quote", "said")
MAX_QUOTE_CHARS = 300


def print_build(result: BuildResult) -> None:
    """The closing table of a build."""
    kept = [e for e in result.ledger if e.status == "kept"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("documents", f"{len(kept)} kept, {len(result.ledger) - len(kept)} rejected")
    for reason, n in Counter(f"{e.stage}: {e.reason}" for e in result.ledger if e.status == "rejected").most_common(8):
        table.add_row("", f"  {n} {escape(clean(reason))}", style="yellow")
    pages = sum(e.num_pages for e in result.ledger)
    table.add_row("pages", f"{pages} in, {sum(e.window_pages for e in result.ledger)} in windows")
    if result.num_samples:
        table.add_row("samples", f"{result.num_samples}, {result.num_tokens:,} tokens")
    if result.mixture:
        table.add_row("mixture", escape(clean(result.mixture)))
    if result.fill is not None:
        table.add_row("plan", f"{result.plan}, fill {result.fill:.3f}")
    if result.projected:
        table.add_row("projected", result.projected)
    if not any(result.work.values()):
        table.add_row("work", "everything was done already")
    report = result.run / "report.html"
    if result.until == "report":
        table.add_row("report", escape(clean(str(report))))
    Console(highlight=False, soft_wrap=True, emoji=False).print(table)


def print_description(found: Mapping[str, Any]) -> None:
    """What `describe` found, readable."""
    out, found = Console(highlight=False, soft_wrap=True, emoji=False), _harmless(found)
    if found["kind"] == "run":
        _print_run(out, found)
    elif found["kind"] == "shard":
        out.print(f"shard of {_size(found['bytes'])}, {len(found['samples'])} windows")
        for key, s in found["samples"].items():
            out.print(f"  {key}: {s['pages']} pages, {s['members']} members, {_size(s['bytes'])}")
    else:
        _print_plan(out, found)


def _print_run(out: Console, found: Mapping[str, Any]) -> None:
    documents, pages, samples = found["documents"], found["pages"], found["samples"]
    stopped = found["until"] not in ("", "report")
    way_out = "built with --until; build without it to finish" if stopped else "run the same `corpus build` again"
    state = "complete" if found["complete"] else f"NOT complete: {way_out}"
    out.print(f"[bold]run[/] for {found['model']}, {state}")
    out.print(f"documents  {documents['inputs']} in, {documents['kept']} kept")
    _print_counts(out, documents["rejected"], "rejected")
    doubtful = f" ({pages['low_confidence']:,} of them with low confidence)" if pages["low_confidence"] else ""
    out.print(
        f"pages      {pages['in']:,} in, {pages['in_windows']:,} in windows, {pages['ocr']:,} read by OCR{doubtful}"
    )
    _print_counts(out, pages["text"], "text from")
    _print_counts(out, pages["left_out"], "left out")
    for f in found["short"]:
        kept = f"{f['num_kept']:,} of {f['num_lines']:,} lines kept, {f['num_images']:,} images"
        out.print(f"short data {f['file']}: {kept}, {f['num_tokens']:,} tokens")
    out.print(f"shards     {found['shards']['count']}, {_size(found['shards']['bytes'])}")
    kind = "exact" if samples["tokens_exact"] else "upper bound: no tokenizer given"
    out.print(f"samples    {samples['count']:,}, {samples['tokens']:,} tokens ({kind})")
    _print_counts(out, samples["by_task"], "")
    _print_counts(out, samples["by_split"], "")
    if found["mixture"]:
        _print_mixture(out, found["mixture"])
    out.print("\n[bold]tokens a sample[/]")
    _print_bars(out, samples["token_histogram"])
    out.print("\n[bold]pages a window[/]")
    _print_bars(out, found["windows"]["pages"])
    out.print("\n[bold]questions, by place in the document[/]")
    _print_bars(out, found["questions"]["places"])
    if found["questions"]["checks"]:
        out.print("\n[bold]checks of a model's questions[/]")
        for name, n in found["questions"]["checks"].items():
            tried = n["passed"] + n["failed"]
            out.print(f"  {name:<20} {n['passed']:>8,} of {tried:,} passed ({n['passed'] / tried:.0%})")
    for purpose, reasons in found["questions"]["replies"].items():
        if faults := ", ".join(f"{n:,} {reason}" for reason, n in reasons.items() if reason != READ):
            out.print(f"  replies to {purpose} that are none: {faults}, of {sum(reasons.values()):,}")
    if found["questions"]["relabelled"]:
        out.print(f"  {found['questions']['relabelled']:,} of extract-multi need one page only: now extract-single")
    if found["spent"]:
        total = found["spent"]["total"]
        price = f", price {total['money']:,.2f}" if "money" in total else ""
        estimated = " (some of them estimated)" if total.get("estimated_image_tokens") else ""
        images = f", {total['image_tokens']:,} of them of images{estimated}" if total["image_tokens"] else ""
        out.print(
            f"\n[bold]spent[/] {total['requests']:,} requests, {total['prompt_tokens']:,} + "
            f"{total['completion_tokens']:,} tokens{images}{price}; by task and check in run.json"
        )
    if found["rejected"]:
        out.print("\n[bold]refused, by stage and reason[/] (rejected.parquet)")
        _print_counts(out, found["rejected"], "")
    if found["matched"]:
        out.print("\n[bold]kept out for what they match[/] (the first of rejected.parquet)")
        for r in found["matched"][:MAX_MATCHES]:
            out.print(f"  {r['name']} ({r['reason']}): {r['detail']}")
    if found["plan"]:
        plan = found["plan"]
        out.print(
            f"\n[bold]plan[/] {plan['num_samples']} samples in {plan['num_rows']} rows, {plan['num_steps']} steps, "
            f"fill {plan['fill']:.3f}"
        )


def _print_mixture(out: Console, mixture: Mapping[str, Any]) -> None:
    out.print(
        f"\n[bold]mixture[/] {mixture['num_questions']:,} questions in {mixture['num_samples']:,} samples, "
        f"{mixture['num_tokens']:,} tokens, epochs {mixture['num_epochs']}"
    )
    for p in (*mixture["tasks"], *mixture["lengths"]):
        share = f"{p['got']:.1%} of the questions" + ("" if p["asked"] is None else f", {p['asked']:.1%} asked")
        out.print(f"  {p['chosen']:>8,} {p['name']:<20} {share}, {p['pool']:,} in the pool")
    short = mixture["short"]
    if short["pool"] or short["asked"]:
        share = f"{short['got']:.1%} of the tokens, {short['asked']:.1%} asked"
        out.print(f"  {short['chosen']:>8,} {'short data':<20} {share}, {short['pool']:,} in the pool")
    if mixture["token_budget"]:
        out.print(f"  budget {mixture['token_budget']:,} tokens")
    _print_counts(out, mixture["left_out"], "left out:")
    for shortfall in mixture["shortfalls"]:
        out.print(f"  ! {shortfall}", style="yellow")


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
    out, found = Console(highlight=False, soft_wrap=True, emoji=False), _harmless(found)
    out.print(f"[bold]sample[/] {found['sample_id']}  {found['task']}, {found['split']}")
    if "turns" in found:
        out.print(f"chat       {found['doc_id']}  {found['file']}, line {found['line']}")
    else:
        last = found["first_page"] + found["num_pages"]
        out.print(f"document   {found['doc_id']}  {found['uri']}")
        out.print(f"window     pages {found['first_page'] + 1}-{last}")
    out.print(f"tokens     {found['num_tokens']:,}, {found['num_supervised']} supervised")
    place = found["plan"]
    if place:
        out.print(f"plan       step {place['step']}, row {place['row']}, position {place['position']}")
    if "turns" in found:
        _print_turns(out, found)
        return
    for q in found["questions"]:
        out.print(f"\n[bold]Q[/] {q['question']}")
        out.print(f"[bold]A[/] {q['answer']}  [dim]({q['answer_format']}, {q['generator']})[/]")
        for e in q["evidence"]:
            box = f" at {tuple(e['box'])}" if e["box"] else ""
            out.print(f"   Page {e['page'] + 1}, {e['kind']}{box}: {e['quote']}")
    sizes = Counter(f"{p['width']} x {p['height']} px, text from {p['text_source']}" for p in found["pages"])
    out.print("\n[bold]pages[/]")
    _print_counts(out, dict(sizes.most_common()), "")
    for p in found["pages"]:
        if p["text_source"] != "layer" or p["text_reason"] not in ("", "sound"):
            out.print(f"  page {p['page']}: text from {p['text_source']}, {p['text_reason']}")
        if p["low_confidence"]:
            out.print(f"  page {p['page']} was read with low confidence: {p['ocr_confidence']:.2f}")


def _print_turns(out: Console, found: Mapping[str, Any]) -> None:
    for turn in found["turns"]:
        out.print(f"\n[bold]{turn['role']}[/] {turn['said']}")
    if found["images"]:
        out.print("\n[bold]images[/]")
        _print_counts(out, Counter(f"{i['width']} x {i['height']} px" for i in found["images"]), "")


def _harmless(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, without control characters and console markup: a run may come from anywhere."""

    def shown(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {shown("", k): shown(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [shown(name, v) for v in value]
        if not isinstance(value, str):
            return value
        lines = value[:MAX_QUOTE_CHARS].splitlines() if name == "quote" else value.splitlines()
        return escape("\n".join(map(clean, lines)) if name in SEVERAL_LINES else clean(value))

    return {name: shown(name, value) for name, value in found.items()}


def _print_counts(out: Console, counts: Mapping[str, int], what: str) -> None:
    for name, n in counts.items():
        out.print(f"  {n:>8,} {what + ' ' if what else ''}{name}")


def _print_bars(out: Console, counts: Mapping[str, int]) -> None:
    most = max((1, *counts.values()))
    for label, n in counts.items():
        out.print(f"  {label:>16} {'█' * max(bool(n), round(n / most * BAR_WIDTH))} {n}")


def _size(num_bytes: int) -> str:
    size = float(num_bytes)
    for unit in ("B", "KB", "MB"):
        if size < 1_000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1_000
    return f"{size:,.1f} GB"
