"""The small markup of ``examples/content/*.txt``, and the arithmetic of its tables.

A file is a list of blocks with an empty line between them:

    # Title            heading (``##`` and ``###`` for the levels below it)
    - item             bulleted list, one item per line
    1. step            numbered procedure, one step per line
    ! NOTE: text       boxed warning
    > a | b | c        a record, given to the reader of the file as it is
    @kind key ...      table, chart or diagram; the lines under it are its data
    anything else      a paragraph

``@table key style Caption`` takes ``|``-separated rows, the first of them the header. A row ``= Label`` is
computed: the sum of all data rows above it. A row ``+ Label`` is the sum of those since the last ``+``. So
totals cannot be wrong. In running text ``{key}`` becomes "Table 3" or "Figure 2" and ``**word**`` is bold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CONTENT = Path(__file__).parent / "content"
FIGURES = ("bar", "line", "diagram")


@dataclass(frozen=True)
class Block:
    """One block: ``text`` is the title, paragraph or caption; ``lines`` are the items, steps or data."""

    kind: str
    text: str = ""
    lines: tuple[str, ...] = ()
    level: int = 0
    style: str = ""


@dataclass(frozen=True)
class Row:
    """One table row; ``kind`` is "head", "data", "subtotal" or "total"."""

    kind: str
    cells: tuple[str, ...]


def read_blocks(name: str) -> list[Block]:
    """The blocks of ``content/<name>.txt``, with headings and captions numbered and references resolved."""
    chunks = re.split(r"\n\s*\n", (CONTENT / f"{name}.txt").read_text(encoding="utf-8").strip())
    numbers: dict[str, str] = {}
    tables = figures = 0
    for chunk in chunks:
        if chunk.startswith("@"):
            kind, key = chunk[1:].split(None, 2)[:2]
            tables, figures = (tables, figures + 1) if kind in FIGURES else (tables + 1, figures)
            numbers[key] = f"Figure {figures}" if kind in FIGURES else f"Table {tables}"
    return [_parse(re.sub(r"\{(\w+)\}", lambda m: numbers[m[1]], chunk), numbers) for chunk in chunks]


def _parse(chunk: str, numbers: dict[str, str]) -> Block:
    first, *rest = chunk.splitlines()
    mark, _, text = first.partition(" ")
    if mark in ("#", "##", "###"):
        return Block("heading", text, level=len(mark))
    if mark == "-":
        return Block("bullets", lines=tuple(line[2:] for line in (first, *rest)))
    if mark == "1.":
        return Block("steps", lines=tuple(line.partition(". ")[2] for line in (first, *rest)))
    if mark == "!":
        return Block("box", text)
    if mark == ">":
        return Block("record", lines=tuple(field.strip() for field in text.split("|")))
    if first.startswith("@"):
        kind, (key, _, text) = mark[1:], text.partition(" ")
        style = ""
        if kind == "table":
            style, _, text = text.partition(" ")
        return Block(kind, f"{numbers[key]}: {text}", tuple(rest), style=style)
    return Block("paragraph", " ".join((first, *rest)))


def number_headings(blocks: list[Block]) -> list[Block]:
    """The same blocks with "2", "2.1", "2.1.3" before the titles of their headings."""
    counts = [0, 0, 0]
    out = []
    for block in blocks:
        if block.kind == "heading":
            counts[block.level - 1] += 1
            counts[block.level :] = [0] * (3 - block.level)
            number = ".".join(str(count) for count in counts[: block.level])
            block = Block("heading", f"{number} {block.text}", level=block.level)
        out.append(block)
    return out


def cells(line: str) -> tuple[str, ...]:
    """The cells of one data line."""
    return tuple(cell.strip() for cell in line.split("|"))


def number(cell: str) -> float | None:
    """The value of a cell, "(1,234.5)" being negative and "–" zero; None where it is no number."""
    plain = cell.replace(",", "")
    if plain == "–":
        return 0.0
    if plain.startswith("("):
        plain = "-" + plain[1:-1]
    return float(plain) if re.fullmatch(r"-?\d+(\.\d+)?", plain) else None


def money(value: float, decimals: int) -> str:
    """A number as a financial table prints it: thousands separated, negatives in parentheses."""
    text = f"{abs(value):,.{decimals}f}"
    return f"({text})" if round(value, decimals) < 0 else text


def solve_table(lines: tuple[str, ...]) -> list[Row]:
    """The rows of a table, with its totals and subtotals worked out."""
    rows = [Row("head", cells(lines[0]))]
    width = len(rows[0].cells) - 1
    numbers = [cell.rstrip(")") for line in lines[1:] for cell in cells(line)[1:]]
    decimals = max((len(cell.partition(".")[2]) for cell in numbers), default=0)
    overall, section = [0.0] * width, [0.0] * width
    for line in lines[1:]:
        if line[:2] in ("= ", "+ "):
            sums = overall if line[0] == "=" else section
            kind = "total" if line[0] == "=" else "subtotal"
            rows.append(Row(kind, (line[2:], *(money(value, decimals) for value in sums))))
            if line[0] == "+":
                section = [0.0] * width
            continue
        row = cells(line)
        rows.append(Row("data", row))
        values = [number(cell) or 0.0 for cell in row[1:]]
        overall = [a + b for a, b in zip(overall, values, strict=True)]
        section = [a + b for a, b in zip(section, values, strict=True)]
    return rows
