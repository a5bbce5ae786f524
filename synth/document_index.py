"""What a document contains that a question can name: tables, headings, captions and numbered lists.

A question is read beside 50-160 pages, so a name is admitted only if it leads to one place: a caption,
heading or lead-in sentence that occurs once in the document, else "page N" plus whatever makes the table
the only one there. The trade-off: a third of the tables can only be named by their page, and those need
page labels or a window that begins at page 1. Only pages with a sound text layer are used; nothing built on
OCR text was right by construction.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from corpus.blocks import flatten
from corpus.layout import center, contains
from corpus.records import Block, Evidence, Page, Section, Segment, Table, TableRow
from corpus.table_words import PARENT

CAPTION = re.compile(r"(Figure|Fig\.|Table) ([A-Z]?\d+(?:[-.]\d+)*)([:.]?)(?= ) (.+)")
CAPTION_MARK = re.compile(r"(?:Caption:? )?(Figure|Fig\.|Table) ([A-Z]?\d+(?:[-.]\d+)*)(?:[:.|](?!\w)|$)")
LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl"}
ITEM = re.compile(r"\(?(\d{1,2})[.)] (.+)")
BROKEN = re.compile(r"\w [b-z]\b(?![).])|\w a\W*$")  # "Statement of Incom e": letters set apart by kerning
STRAY_ACCENT = re.compile("[\u00a8\u00b4\u00b8\u02c6\u02c7\u02dc]")  # "Aky\u00a8urek": the text layer lost a letter
NUMBERING = re.compile(
    r"^(?:(?i:item|note|part|section|chapter|exhibit|appendix|annex) [A-Z]?\d*[A-Z]?(?:\.\d+)*[.:]?"
    r"|[A-Z]?\d+(?:\.\d+)*\.?|[A-Z]\.|[IVX]+\.)\s+"
)
CAPTION_WORDS = 6  # enough to tell captions apart
CONTENTS_LINE = re.compile(r"(?:\. ?){4,}\s*\d+$|\D\s\d{1,3}$")
NUMERIC = re.compile(r"[^\d.]")
# A row in which a percent sign is no surprise; elsewhere it may be meant for the rows below it as well.
RATE = re.compile(r"%|percent|\brates?\b|margin|ratio|yield|conversion|volatility|return on", re.IGNORECASE)


def key_of(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return re.sub(r"[\W_]+", "", text.translate(LIGATURES)).casefold()


def verbatim(text: str) -> str:
    """The text as the page has it, on one line."""
    return " ".join(text.split())


def readable(text: str) -> str:
    """A block's text on one line, words joined and ligatures spelt out: fit for a question or an answer."""
    return flatten(text).translate(LIGATURES)


def quoted(name: str) -> str:
    """A row or column name for a question: `"Basic" (under "Earnings per share")`."""
    *groups, own = name.split(PARENT)
    under = " and ".join(f'"{g}"' for g in groups)
    return f'"{own}" (under {under})' if groups else f'"{own}"'


def number_of(text: str) -> Decimal | None:
    """The value of a printed number, negative in parentheses; None for a dash or an empty cell."""
    digits = NUMERIC.sub("", text)
    if not re.search(r"\d", digits) or digits.count(".") > 1:
        return None
    value = Decimal(digits)
    return -value if "(" in text or re.match(r"\W*[-\u2013\u2212]", text) else value


def _decimals(text: str) -> int:
    return len(NUMERIC.sub("", text).partition(".")[2])


def _thousands_in_doubt(table: Table) -> bool:
    """Whether every "." may be a thousands separator: "1.234", "56.789"."""
    dotted = [c.text for row in table.rows for c in row.cells if "." in c.text]
    return bool(dotted) and all(re.search(r"(?<!\d)[1-9]\d{0,2}\.\d{3}(?!\d)", t) for t in dotted)


def plain(value: Decimal) -> str:
    """Plain digits: no exponent, no "-0"."""
    return f"{value if value else abs(value):f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTable:
    """A table with the words that lead to it."""

    page: Page
    table: Table
    name: str
    anchor: str
    names_page: bool
    rows: tuple[int, ...]  # those that the row's label alone identifies in the table

    def cell(self, row: int, column: int) -> str:
        """The printed text of a cell."""
        return self.table.rows[row].cells[column].text

    def usable(self, row: int, column: int) -> bool:
        """A number of certain kind: with a sign of its own, or in a column without unexplained percent signs."""
        text = self.cell(row, column)
        if number_of(text) is None:
            return False
        beside = [c.text for i, c in enumerate(self.table.rows[row].cells) if i != column]
        above = [r.cells[column].text for i, r in enumerate(self.table.rows) if i != row]
        if _decimals(text) > max(1, *map(_decimals, beside + above)):
            return False  # the last digit may be a footnote mark
        if "%" in text or "$" in text:
            return True
        return all(RATE.search(r.label) for r in self.table.rows if "%" in r.cells[column].text)

    def evidence(self, row: int, column: int) -> Evidence:
        """The cell and its row's label, with the page's own line as the quote."""
        record, cell = self.table.rows[row], self.table.rows[row].cells[column]
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = record.box, cell.box
        box = (min(ax0, bx0), min(ay0, by0), max(ax1, bx1), max(ay1, by1))
        return Evidence(page=self.page.index, kind="Table", quote=_line_of(self.page, record, cell.text), box=box)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A heading or caption that occurs once in the document."""

    page: int
    block: Block
    title: str  # of a caption: its text after the label
    label: str = ""  # of a caption: "Figure 3"

    def evidence(self) -> Evidence:
        kind = "Layout" if not self.label else "Table" if self.label.startswith("Table") else "Figure"
        return Evidence(page=self.page, kind=kind, quote=verbatim(self.block.text), box=self.block.box)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedList:
    """A list whose items run 1..N directly under a heading, on one page."""

    page: int
    heading: str  # quoted, with the page where the heading alone is not unique
    anchor: str
    names_page: bool
    items: tuple[Block, ...]
    complete: bool  # what follows the last item is certainly not an item


class DocumentIndex:
    """Everything nameable in one document, by page."""

    def __init__(self, pages: Sequence[Page], sections: Sequence[Section]) -> None:
        self.pages = {p.index: p for p in pages}
        self.sections = tuple(sections)
        self._sound = [p for p in pages if p.has_sound_layer]
        self._text = "\n".join(key_of(p.text) for p in pages)
        self._contents = _contents_pages(self._sound)
        self._lines = _line_counts(pages, key_of)
        self._bare_lines = _line_counts(pages, lambda text: key_of(NUMBERING.sub("", text)))
        self._titles = {key_of(flatten(b.text)) for p in pages for b in p.blocks if b.kind in ("title", "heading")}
        self.headings = self._find_headings()
        self.captions = self._find_captions()
        self.lists = [found for p in self._sound for found in self._find_lists(p)]
        self.tables, self.unnamed_tables = self._name_tables()

    @property
    def sound_pages(self) -> list[int]:
        """Indices of the pages whose text layer can be trusted."""
        return [p.index for p in self._sound]

    def within(self, segment: Segment, page: int) -> bool:
        """Whether the page lies in the segment."""
        return segment.first_page <= page < segment.first_page + segment.num_pages

    def _stands_once(self, title: str) -> bool:
        """No other line is this title, with or without a number, and no other heading contains it."""
        key, bare = key_of(title), key_of(NUMBERING.sub("", title))
        if self._lines[key] != 1 or (key == bare and self._bare_lines[bare] != 1):
            return False
        return not any(key in other for other in self._titles if other != key)

    def _find_headings(self) -> list[Place]:
        found = []
        for page in self._sound:
            if page.index in self._contents:
                continue
            for block in page.blocks:
                title = readable(block.text)
                looks = block.kind in ("title", "heading") and block.emphasised and _is_title(title)
                apart = looks and _set_apart(block, page) and not _names_a_picture(block, page)
                if apart and self._stands_once(title):
                    found.append(Place(page=page.index, block=block, title=title))
        return found

    def _find_captions(self) -> list[Place]:
        found = []
        for page in self._sound:
            if page.index in self._contents:
                continue
            for block in page.blocks:
                match = CAPTION.fullmatch(readable(block.text))
                if match and (block.kind == "caption" or (block.kind == "text" and match[3])):
                    kind = match[1].replace("Fig.", "Figure")
                    found.append(Place(page=page.index, block=block, title=match[4], label=f"{kind} {match[2]}"))
        counts = Counter(c.label for c in found)
        marked = self._marked_captions()
        return [c for c in found if counts[c.label] == 1 and marked[c.label] <= 1]

    def _marked_captions(self) -> Counter[str]:
        """Lines that begin with "Figure 3:" or are "Figure 3" alone: captions, whatever the layout calls them."""
        lines = [verbatim(line) for p in self.pages.values() for b in p.blocks for line in b.text.split("\n")]
        marks = [m for line in lines if (m := CAPTION_MARK.match(line))]
        return Counter(f"{m[1].replace('Fig.', 'Figure')} {m[2]}" for m in marks)

    def caption_name(self, caption: Place) -> str:
        """The label and how the caption begins: other captions may stand inside pictures, under the same number."""
        words = caption.title.replace('"', "'").split()
        beginning = " ".join(words[:CAPTION_WORDS])
        return f'{caption.label} ("{beginning}{" ..." if len(words) > CAPTION_WORDS else ""}")'

    def caption_is_whole(self, caption: Place) -> bool:
        """A short caption that ends here: with a full stop, or with no text close beneath it."""
        broken = BROKEN.search(caption.title) or STRAY_ACCENT.search(caption.title)
        if len(caption.title) > 200 or broken or not caption.title[0].isalnum():
            return False
        if caption.title.endswith("."):
            return True
        x0, y0, x1, y1 = caption.block.box
        height = (y1 - y0) / (caption.block.text.count("\n") + 1)
        for other in self.pages[caption.page].blocks:
            ox0, oy0, ox1, _ = other.box
            beneath = -2 < oy0 - y1 < 0.9 * height and min(x1, ox1) > max(x0, ox0)
            if other is not caption.block and other.text and beneath and oy0 > y0:
                return False
        return True

    def _find_lists(self, page: Page) -> list[NumberedList]:
        numbers = [int(m[1]) if (m := ITEM.match(verbatim(b.text))) else 0 for b in page.blocks]
        if numbers.count(1) != 1:
            return []
        start = numbers.index(1)
        length = 1
        while start + length < len(numbers) and numbers[start + length] == length + 1:
            length += 1
        items = page.blocks[start : start + length]
        head = start - 1
        if head > 0 and page.blocks[head].kind == "text" and page.blocks[head].text.rstrip().endswith(":"):
            head -= 1
        if length < 3 or head < 0 or page.blocks[head].kind not in ("title", "heading"):
            return []
        if any(re.search(r"\n\(?\d{1,2}[.)] ", b.text) for b in items):
            return []
        title = readable(page.blocks[head].text).rstrip(" :")
        on_page = sum(key_of(b.text) == key_of(title) for b in page.blocks)
        if not _is_title(title) or on_page != 1 or re.search(r"references|bibliography", title, re.IGNORECASE):
            return []
        unique = self._stands_once(title)
        after = page.blocks[start + length] if start + length < len(page.blocks) else None
        following = self.pages.get(page.index + 1)
        continued = length + 1 in numbers or (
            following is not None and any(_starts_with(b.text, length + 1) for b in following.blocks)
        )
        return [
            NumberedList(
                page=page.index,
                heading=f'"{title}"' if unique else f'"{title}" on {page_name(page.index)}',
                anchor=title if unique else f"page {page.index + 1}",
                names_page=not unique,
                items=tuple(items),
                complete=after is not None and after.kind in ("title", "heading") and not continued,
            )
        ]

    def _name_tables(self) -> tuple[list[NamedTable], int]:
        found, unnamed = [], 0
        for page in self._sound:
            on_page = sum(b.kind == "table" for b in page.blocks)
            anchors = Counter(key_of(t.anchor) for t in page.tables)
            for table in page.tables:
                named = self._name(page, table, on_page, anchors)
                if named is None or not named.rows:
                    unnamed += 1
                else:
                    found.append(named)
        return found, unnamed

    def _name(self, page: Page, table: Table, on_page: int, anchors: Counter[str]) -> NamedTable | None:
        anchor = key_of(table.anchor)
        text = key_of(page.text)
        if _thousands_in_doubt(table):
            return None
        rows = tuple(i for i, row in enumerate(table.rows) if _own_name_is_unique(row, table))
        sole_on_page = len(anchor) >= 8 and anchors[anchor] == 1 and text.count(anchor) == 1
        if sole_on_page and self._text.count(anchor) == 1:
            return NamedTable(
                page=page,
                table=table,
                name=_named_by(table.anchor),
                anchor=table.anchor,
                names_page=False,
                rows=rows,
            )
        number = page_name(page.index)
        if sole_on_page:
            name = f"{_named_by(table.anchor)} on {number}"
        elif on_page == 1:
            name = f"the table on {number}"
        else:  # several tables on the page: a row that only this one has must tell which
            own_names = (row.label.split(PARENT)[-1] for row in table.rows)
            landmark = next((n for n in own_names if len(n) >= 5 and text.count(key_of(n)) == 1), None)
            if landmark is None:
                return None
            name = f'the table with the row "{landmark}" on {number}'
        anchor_text = f"page {page.index + 1}"
        return NamedTable(page=page, table=table, name=name, anchor=anchor_text, names_page=True, rows=rows)


def page_name(index: int) -> str:
    """How a question names a page."""
    return f"page {index + 1} of the document (counting the first page of the document as page 1)"


def _named_by(anchor: str) -> str:
    if re.match(r"table\s+[A-Z]?\d", anchor, re.IGNORECASE):
        label, _, rest = anchor.partition(": ")
        return f'{label} ("{rest}")' if rest else label
    if anchor.endswith(":"):
        return f'the table introduced by the words "{anchor}"'
    return f'the table directly below the heading "{anchor}"'


def _own_name_is_unique(row: TableRow, table: Table) -> bool:
    """A row named without its group must not be mistaken for a row inside a group."""
    own = key_of(row.label.split(PARENT)[-1])
    same = sum(key_of(r.label.split(PARENT)[-1]) == own for r in table.rows)
    return PARENT in row.label or same == 1


def _line_of(page: Page, row: TableRow, cell: str) -> str:
    """The line of the page that holds the row's label and the cell, else the digits of the cell."""
    label, digits = key_of(row.label.split(PARENT)[-1]), re.sub(r"[^\d.,]", "", cell)
    own = (b for b in page.blocks if b.kind == "table" and contains(b.box, center(row.box)))
    for line in (line for block in own for line in block.text.split("\n")):
        if key_of(line).startswith(label) and digits in line:
            return verbatim(line)
    return digits


def _line_counts(pages: Sequence[Page], key: Callable[[str], str]) -> Counter[str]:
    """How often a text stands alone, as a line or as a block, in the document."""
    counts: Counter[str] = Counter()
    for page in pages:
        for block in page.blocks:
            lines = block.text.split("\n")
            counts.update(key(line) for line in lines)
            if len(lines) > 1:
                counts[key(flatten(block.text))] += 1
    return counts


def _contents_pages(pages: Sequence[Page]) -> set[int]:
    """Pages that list what stands elsewhere: lines that end in page numbers or repeat headings of other pages."""
    headings: dict[str, set[int]] = {}
    for page in pages:
        for block in page.blocks:
            if block.kind in ("title", "heading"):
                headings.setdefault(key_of(flatten(block.text)), set()).add(page.index)
    found = set()
    for page in pages:
        lines = [verbatim(line) for b in page.blocks for line in b.text.split("\n")]
        numbered = sum(bool(CONTENTS_LINE.search(line)) for line in lines)
        repeated = sum(bool(headings.get(key_of(line), set()) - {page.index}) for line in lines)
        if max(numbered, repeated) >= max(6, 0.3 * len(lines)):
            found.add(page.index)
    return found


def _is_title(title: str) -> bool:
    letters = sum(c.isalpha() for c in title)
    return (
        6 <= len(title) <= 100
        and 2 <= len(title.split()) <= 14
        and letters >= 0.6 * len(title.replace(" ", ""))
        and (title[0].isupper() or title[0].isdigit())
        and not title.endswith((".", ",", ";", "-", ":"))  # a colon ends a label in a form or a lead-in
        and '"' not in title
        and not BROKEN.search(title)
        and not STRAY_ACCENT.search(title)
        and not re.search(r"[A-Z]{4} [A-Z]$", title)  # "SIGNATURE S"
        and not re.search(r"[.!?] \d+$|[a-z]\. [A-Z]", title)  # a step with its number, two sentences
        and not re.search(r"^[A-Z]: |\b[A-Z][a-z]+ \d{1,2}, \d{4}", title)  # a label in a figure, a date
        and not re.search(r"[*\u2217\u2020\u2021\u00a7]|[a-z]\d", title)  # footnote marks: "Xinyuan Lu\u22171,2"
        and not re.match(r"(?:table|figure|fig\.?|chart) \S*\d", title, re.IGNORECASE)
        and not re.fullmatch(r"(?:chapter|part|section|appendix|annex) [\w.-]+", title, re.IGNORECASE)  # a bare number
    )


def _set_apart(block: Block, page: Page) -> bool:
    """A heading begins where columns of text begin, or is centred, right-aligned or larger than the text.

    The layout model also calls "Type dict", deep in a list of arguments, a heading.
    """
    body = [b for b in page.blocks if b.text and b.kind not in ("header", "footer", "table", "picture", "caption")]
    x0, _, x1, _ = block.box
    margins = Counter(round(b.box[0]) for b in body if b.kind == "text")
    columns = [x for x, count in margins.items() if count > 1]
    begins = any(abs(x0 - x) <= 3 for x in (min(b.box[0] for b in body), *columns))
    centred = abs((x0 + x1) - page.width) <= 12
    right = abs(x1 - max(b.box[2] for b in body)) <= 3
    return begins or centred or right or _line_height(block) > 1.15 * statistics.median(map(_line_height, body))


def _names_a_picture(block: Block, page: Page) -> bool:
    """Whether the heading is the title of a chart: inside a picture, or close above one with nothing between."""
    x0, _, x1, y1 = block.box
    reach = 3 * _line_height(block)
    for other in page.blocks:
        ox0, oy0, ox1, oy1 = other.box
        beneath = -2 <= oy0 - y1 <= reach and min(x1, ox1) > max(x0, ox0)
        if other.kind == "picture" and (beneath or contains((ox0, oy0, ox1, oy1), center(block.box))):
            return True
    return False


def _line_height(block: Block) -> float:
    return (block.box[3] - block.box[1]) / (block.text.count("\n") + 1)


def _starts_with(text: str, number: int) -> bool:
    match = ITEM.match(verbatim(text))
    return bool(match) and match is not None and int(match[1]) == number
