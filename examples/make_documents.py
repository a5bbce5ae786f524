"""Make the example documents of longdoc: three PDFs of the kinds that a long-document corpus is full of.

What:   ``annual-report.pdf`` (born digital, no bookmarks), ``pump-manual.pdf`` (born digital, bookmarked) and
        ``scanned-minutes.pdf`` (page images without text). ``examples/README.md`` describes each of them.
Why:    the tutorials and tests need real-looking documents that may be given away and that are small enough
        to be committed. The same versions of reportlab and Pillow make the same bytes on every run.
Source: all companies, products, towns, persons, figures and texts are invented for this project; the words
        are in ``examples/content/``. Nothing was copied from an existing document.

Usage:  python examples/make_documents.py [--out DIR]      (needs reportlab and Pillow)
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from _draw import figure
from _markup import Block, Row, cells, number_headings, read_blocks, solve_table
from _scan import scanned_minutes
from reportlab.lib.colors import HexColor, white
from reportlab.lib.pagesizes import A4, letter
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    NextPageTemplate,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
)

GREY, RULE, LIGHT = HexColor("#6b7178"), HexColor("#b8bec4"), HexColor("#eef1f4")
BOXES = {"WARNING": ("#b3261e", "#fbeceb"), "CAUTION": ("#b26a00", "#fdf3e3"), "NOTE": ("#1f4e79", "#e9f1f8")}


@dataclass(frozen=True)
class Design:
    """What tells the two born-digital documents apart."""

    name: str
    title: str
    author: str
    header: str
    size: tuple[float, float]
    margin: float
    body: str
    points: float
    leading: float
    accent: str
    bookmarks: bool
    cover: Callable[[Canvas, Design], None]

    @property
    def width(self) -> float:
        return self.size[0] - 2 * self.margin

    def style(self, name: str) -> ParagraphStyle:
        """A paragraph style of this document, by name."""
        base: dict[str, object] = {"fontName": self.body, "fontSize": self.points, "leading": self.leading}
        head: dict[str, object] = {"fontName": "Helvetica-Bold", "textColor": HexColor(self.accent)}
        small: dict[str, object] = {"fontName": "Helvetica", "fontSize": 9, "leading": 12}
        bold = small | {"fontName": "Helvetica-Bold", "fontSize": 9.5, "leading": 12.5}
        bullet = {"leftIndent": 22, "bulletFontName": self.body, "bulletFontSize": self.points}
        head["keepWithNext"] = 1
        options: dict[str, dict[str, object]] = {
            "h1": head | {"fontSize": 22, "leading": 27, "spaceAfter": 16},
            "h2": head | {"fontSize": 14.5, "leading": 19, "spaceBefore": 14, "spaceAfter": 7},
            "h3": head | {"fontSize": 11.5, "leading": 15, "spaceBefore": 8, "spaceAfter": 4},
            "body": base | {"spaceAfter": self.leading * 0.6, "allowWidows": 0, "allowOrphans": 0},
            "item": base | bullet | {"spaceAfter": 4},
            "last": base | bullet | {"spaceAfter": 11},
            "box": base,
            "caption": bold | {"spaceBefore": 4, "spaceAfter": 5},
            "below": bold | {"spaceBefore": 5, "spaceAfter": 14},
            "cell": small,
            "cellhead": bold | {"fontSize": 9, "leading": 12},
            "toctitle": head | {"fontSize": 22, "leading": 30, "spaceAfter": 8},
        }
        return ParagraphStyle(name, **options[name])


class LongDocument(BaseDocTemplate):
    """A document with a cover, running headers and footers, and headings that reach the table of contents."""

    def __init__(self, path: Path, design: Design) -> None:
        super().__init__(
            str(path),
            pagesize=design.size,
            title=design.title,
            author=design.author,
            creator="longdoc examples",
            subject="Invented example document",
            invariant=1,
            pageCompression=1,
        )
        self.design, self.section = design, "Contents"
        self.entries: list[tuple[int, str, int]] = []
        margin, (width, height) = design.margin, design.size
        frame = Frame(margin, margin, design.width, height - 2 * margin, 0, 0, 0, 0)
        whole = Frame(0, 0, width, height)
        self.addPageTemplates(
            [
                PageTemplate("cover", [whole], onPage=lambda canvas, _: design.cover(canvas, design)),
                PageTemplate("body", [frame], onPageEnd=lambda canvas, _: self._furniture(canvas)),
            ]
        )

    def afterFlowable(self, flowable: Flowable) -> None:
        """Note headings for the table of contents and, where the document has them, as bookmarks."""
        name = getattr(getattr(flowable, "style", None), "name", "")
        if not isinstance(flowable, Paragraph) or name not in ("h1", "h2"):
            return
        title, level = flowable.getPlainText(), int(name[1]) - 1
        if level == 0:
            self.section = re.sub(r"^\d+ ", "", title)
        self.entries.append((level, title, self.page))
        if self.design.bookmarks:
            key = f"heading-{title}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(title, key, level, closed=False)

    def _furniture(self, canvas: Canvas) -> None:
        design, right = self.design, self.design.size[0] - self.design.margin
        top, bottom = design.size[1] - design.margin + 22, design.margin - 32
        canvas.setFont("Helvetica", 8.5)
        canvas.setFillColor(GREY)
        canvas.setStrokeColor(RULE)
        canvas.setLineWidth(0.5)
        canvas.drawString(design.margin, top, design.header)
        canvas.drawRightString(right, top, self.section)
        canvas.line(design.margin, top - 6, right, top - 6)
        canvas.drawCentredString(design.size[0] / 2, bottom, str(canvas.getPageNumber()))


def rich(text: str) -> str:
    """Text of the markup as reportlab's paragraph markup."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))


def story(blocks: list[Block], design: Design, entries: list[tuple[int, str, int]]) -> list[Flowable]:
    """The flowables of a whole document. A table or figure stays with the line that leads up to it."""
    out: list[Flowable] = [NextPageTemplate("body"), PageBreak()]
    out += [Paragraph("Contents", design.style("toctitle")), table_of_contents(entries, design)]
    waiting: list[Flowable] = []
    for block, following in zip(blocks, [*blocks[1:], Block("end")], strict=True):
        if block.kind == "heading":
            if block.level == 1:
                out.append(PageBreak())
            waiting.append(Paragraph(rich(block.text), design.style(f"h{block.level}")))
        elif block.kind == "paragraph":
            waiting.append(Paragraph(rich(block.text), design.style("body")))
            if not (following.kind == "table" and (block.text.endswith(":") or len(block.text) < 250)):
                out, waiting = out + waiting, []
        elif block.kind in ("bullets", "steps"):
            out, waiting = [*out, *waiting, *listing(block, design)], []
        else:
            make = tabular if block.kind == "table" else boxed if block.kind == "box" else illustration
            out, waiting = [*out, KeepTogether([*waiting, *make(block, design)])], []
    return out


def table_of_contents(entries: list[tuple[int, str, int]], design: Design) -> Flowable:
    """The titles of two levels with their page numbers; nothing before the first pass has found any."""
    if not entries:
        return Spacer(1, 1)
    commands: list[tuple[object, ...]] = [
        ("FONT", (0, 0), (-1, -1), "Helvetica", 9.5, 12),
        ("ALIGN", (1, 0), (1, -1), "RIGHT"),
        ("RIGHTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 1),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
    for i, (level, _, _) in enumerate(entries):
        commands.append(("LEFTPADDING", (0, i), (0, i), 16 * level))
        if level == 0:
            commands += [
                ("FONT", (0, i), (-1, i), "Helvetica-Bold", 10, 13),
                ("NOSPLIT", (0, i), (0, i + 1)),
                ("TOPPADDING", (0, i), (-1, i), 6),
            ]
    rows = [(title, str(page)) for _, title, page in entries]
    return Table(rows, colWidths=[design.width - 40, 40], style=commands)


def listing(block: Block, design: Design) -> list[Flowable]:
    """A bulleted list or a numbered procedure."""
    marks = ["•" if block.kind == "bullets" else f"{i}." for i in range(1, len(block.lines) + 1)]
    styles = [design.style("item")] * (len(marks) - 1) + [design.style("last")]
    return [
        Paragraph(rich(line), style, bulletText=mark)
        for line, style, mark in zip(block.lines, styles, marks, strict=True)
    ]


def boxed(block: Block, design: Design) -> list[Flowable]:
    """A warning, caution or note with a coloured bar at its left."""
    word, _, text = block.text.partition(": ")
    dark, pale = (HexColor(code) for code in BOXES[word])
    body = Paragraph(
        f'<font name="Helvetica-Bold" color="{BOXES[word][0]}">{word}</font><br/>{rich(text)}', design.style("box")
    )
    commands = [
        ("BACKGROUND", (0, 0), (-1, -1), pale),
        ("LINEBEFORE", (0, 0), (0, -1), 4, dark),
        ("LEFTPADDING", (0, 0), (-1, -1), 12),
        ("TOPPADDING", (0, 0), (-1, -1), 7),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 8),
    ]
    return [Table([[body]], colWidths=[design.width], style=commands, spaceBefore=4, spaceAfter=12)]


def illustration(block: Block, design: Design) -> list[Flowable]:
    """A figure with its caption below."""
    return [Spacer(1, 6), figure(block, design.width), Paragraph(escape(block.text), design.style("below"))]


def tabular(block: Block, design: Design) -> list[Flowable]:
    """A table with its caption above."""
    style, _, weights = block.style.partition(":")
    if style == "text":
        table = text_table(block, [float(weight) for weight in weights.split(",")], design)
    else:
        table = number_table(solve_table(block.lines), style, design)
    caption = Paragraph(escape(block.text), design.style("caption"))
    table.spaceAfter = 14
    return [caption, table]


def text_table(block: Block, weights: list[float], design: Design) -> Table:
    """A table of words: cells wrap, and a thin line separates the rows."""
    widths = [design.width * weight / sum(weights) for weight in weights]
    rows = [
        [Paragraph(rich(cell), design.style("cell" if i else "cellhead")) for cell in cells(line)]
        for i, line in enumerate(block.lines)
    ]
    commands = [
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("BACKGROUND", (0, 0), (-1, 0), LIGHT),
        ("TOPPADDING", (0, 0), (-1, -1), 4),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
    ]
    return Table(rows, colWidths=widths, style=commands, repeatRows=1)


def number_table(rows: list[Row], style: str, design: Design) -> Table:
    """A table of numbers: the first column at the left, the others aligned at the right."""
    accent = HexColor(design.accent)
    widths = [
        max(62.0, *(stringWidth(row.cells[i], "Helvetica-Bold", 9.5) + 14 for row in rows))
        for i in range(1, len(rows[0].cells))
    ]
    commands: list[tuple[object, ...]] = [
        ("FONT", (0, 0), (-1, -1), "Helvetica", 9.5),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
        ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 9.5),
    ]
    for i, row in enumerate(rows):
        if row.kind in ("total", "subtotal"):
            commands.append(("FONT", (0, i), (-1, i), "Helvetica-Bold", 9.5))
            if style == "rules":
                commands.append(("LINEABOVE", (1, i), (-1, i), 0.5, accent))
    if style == "rules":
        commands += [("LINEBELOW", (0, i), (-1, i), 0.9, accent) for i in (0, -1)]
    elif style == "grid":
        commands += [("GRID", (0, 0), (-1, -1), 0.4, GREY), ("BACKGROUND", (0, 0), (-1, 0), LIGHT)]
    return Table([row.cells for row in rows], colWidths=[design.width - sum(widths), *widths], style=commands)


def report_cover(canvas: Canvas, design: Design) -> None:
    """A dark page with waves."""
    width, height = design.size
    canvas.setFillColor(HexColor(design.accent))
    canvas.rect(0, 0, width, height, stroke=0, fill=1)
    for i, colour in enumerate(("#22577f", "#2f6d99", "#4487b3", "#6ba5c9")):
        path, level = canvas.beginPath(), 300 - 72 * i
        path.moveTo(0, level)
        path.curveTo(width * 0.3, level + 90 - 30 * i, width * 0.6, level - 80 + 10 * i, width, level + 40)
        path.lineTo(width, 0)
        path.lineTo(0, 0)
        canvas.setFillColor(HexColor(colour))
        canvas.drawPath(path, stroke=0, fill=1)
    canvas.setFillColor(white)
    canvas.setFont("Helvetica-Bold", 44)
    canvas.drawString(design.margin, height - 220, "Annual Report")
    canvas.setFont("Helvetica", 44)
    canvas.drawString(design.margin, height - 272, "2025")
    canvas.setFont("Helvetica", 16)
    canvas.drawString(design.margin, height - 110, "Ostermere Group N.V.")
    canvas.drawString(design.margin, height - 330, "Clean water, cold food, working harbours")


def manual_cover(canvas: Canvas, design: Design) -> None:
    """A white page with a coloured band and an outline of the pump."""
    width, height = design.size
    accent = HexColor(design.accent)
    canvas.setFillColor(accent)
    canvas.rect(0, height - 250, width, 250, stroke=0, fill=1)
    canvas.setFillColor(white)
    canvas.setFont("Helvetica-Bold", 40)
    canvas.drawString(design.margin, height - 140, "TB-340")
    canvas.setFont("Helvetica", 18)
    canvas.drawString(design.margin, height - 172, "Multistage booster pump with speed controller")
    canvas.drawString(design.margin, height - 214, "Installation and operating manual")
    canvas.setStrokeColor(accent)
    canvas.setFillColor(HexColor("#e6eef0"))
    canvas.setLineWidth(2)
    for x, y, w, h in (
        (215, 130, 160, 22),
        (235, 152, 120, 150),
        (165, 165, 70, 22),
        (355, 165, 70, 22),
        (222, 302, 146, 24),
        (242, 326, 106, 120),
        (262, 446, 66, 18),
        (348, 350, 74, 70),
    ):
        canvas.roundRect(x, y, w, h, 5, stroke=1, fill=1)
    for y in (186, 218, 250, 280):
        canvas.line(235, y, 355, y)
    canvas.setFillColor(GREY)
    canvas.setFont("Helvetica", 10)
    canvas.drawString(design.margin, 60, "Tarnbeck Pumps. Original instructions, edition 6.")


REPORT = Design(
    name="annual-report",
    title="Ostermere Group N.V. Annual Report 2025",
    author="Ostermere Group N.V.",
    header="Ostermere Group N.V.  Annual Report 2025",
    size=letter,
    margin=74,
    body="Times-Roman",
    points=11.5,
    leading=16,
    accent="#163a59",
    bookmarks=False,
    cover=report_cover,
)
MANUAL = Design(
    name="pump-manual",
    title="TB-340 Installation and operating manual",
    author="Tarnbeck Pumps",
    header="TB-340  Installation and operating manual",
    size=A4,
    margin=76,
    body="Helvetica",
    points=10,
    leading=14.2,
    accent="#0f5257",
    bookmarks=True,
    cover=manual_cover,
)


def born_digital(path: Path, design: Design) -> None:
    """Write the report or the manual, again and again until its table of contents is right."""
    blocks = number_headings(read_blocks(design.name))
    entries: list[tuple[int, str, int]] = []
    while True:
        document = LongDocument(path, design)
        document.build(story(blocks, design, entries))
        if document.entries == entries:
            return
        entries = document.entries


def main() -> None:
    """Write the three documents."""
    parser = argparse.ArgumentParser(description="Make the example documents of longdoc.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "documents", metavar="DIR")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    born_digital(out / "annual-report.pdf", REPORT)
    born_digital(out / "pump-manual.pdf", MANUAL)
    scanned_minutes(out / "scanned-minutes.pdf")
    for path in sorted(out.glob("*.pdf")):
        print(f"{path}  {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
