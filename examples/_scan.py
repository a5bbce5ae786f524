"""The scanned example: pages of council minutes typeset with Pillow and aged into one-bit "scans"."""

from __future__ import annotations

import random
import time
from pathlib import Path

import reportlab
from _markup import Block, money, read_blocks
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

DPI = 150
PAGE = (1275, 1650)  # Letter
LEFT, RIGHT, TOP, BOTTOM = 165, 1125, 150, 1500
LEADING = 36
FONTS = Path(reportlab.__file__).parent / "fonts"
FACES = {"roman": "_er_____.pfb", "bold": "_eb_____.pfb", "italic": "_ei_____.pfb", "script": "callig15.pfb"}

MEMBERS = ("Samuel Ortega", "Judith Kessel", "Martin Boyle", "Priya Raman", "Douglas Finch", "Alma Tucker")
OPENINGS = (
    "Mayor Eleanor Whitcombe called the meeting to order at {time} in the council room of the Town Hall, "
    "12 Mill Street, and declared a quorum to be present.",
    "The meeting was called to order at {time} by Mayor Whitcombe. The Clerk called the roll and found that "
    "{count} of seven voting members were present.",
    "Mayor Whitcombe opened the meeting at {time} and welcomed {visitors} visitors.",
)
APPROVALS = (
    "On motion of Member {a}, seconded by Member {b}, the minutes of the previous meeting were approved as written.",
    "The minutes of the previous meeting were read. Member {a} asked for a date to be corrected, and with "
    "that change they were approved on motion of Member {b}.",
    "Members had received the minutes of the previous meeting by mail. There were no objections and, moved "
    "by Member {a} and seconded by Member {b}, they were approved.",
)
ACCOUNTS = (
    "The Treasurer presented the following bills, which had been examined by Member {a} and were found in "
    "order. They were approved for payment by voice vote.",
    "Upon the report of the Treasurer, and on motion of Member {a}, payment of the bills below was authorized.",
    "Member {a} asked about the second of the bills listed here and was satisfied with the answer of the "
    "Treasurer. All of them were approved for payment.",
)
CLOSINGS = (
    "There being no further business, the meeting was adjourned at {time} on motion of Member {a}.",
    "Member {a} moved to adjourn. The motion carried and the meeting ended at {time}.",
    "The Mayor thanked those present and adjourned the meeting at {time}.",
)
BILLS = (
    ("Harmon Fuel", "heating oil and diesel", 900, 4200),
    ("River Light & Power", "electricity", 1400, 3900),
    ("Norcross Hardware", "tools and fittings", 60, 480),
    ("County Sanitation", "refuse collection", 2100, 3300),
    ("T. Lunt, Attorney", "retainer and filings", 850, 2400),
    ("Valley Telephone", "lines and alarms", 310, 520),
    ("Danforth & Sons", "building repairs", 240, 2900),
    ("Ferry Press", "printing and notices", 85, 390),
    ("Harlow Motor Works", "vehicle service", 190, 1850),
    ("Elm Veterinary Clinic", "animal control", 70, 260),
    ("Keystone Mutual", "insurance premium", 1200, 2600),
    ("Tri-County Laboratory", "water tests", 140, 420),
)


class Typesetter:
    """Puts lines of text on white pages, opening a new page when one is full."""

    def __init__(self) -> None:
        self.pages: list[Image.Image] = []
        self.fonts: dict[tuple[str, int], ImageFont.FreeTypeFont] = {}
        self.y = 0
        self.header = ""

    def font(self, face: str, size: int) -> ImageFont.FreeTypeFont:
        if (face, size) not in self.fonts:
            self.fonts[face, size] = ImageFont.truetype(str(FONTS / FACES[face]), size)
        return self.fonts[face, size]

    def new_page(self) -> None:
        self.pages.append(Image.new("L", PAGE, 255))
        self.y = TOP
        self.put(str(len(self.pages)), "roman", 24, PAGE[0] // 2, BOTTOM + 50, "ma")
        if self.header:
            self.put(self.header, "italic", 24, LEFT, TOP - 60)

    def put(self, text: str, face: str, size: int, x: float, y: float, anchor: str = "la") -> None:
        ImageDraw.Draw(self.pages[-1]).text((x, y), text, font=self.font(face, size), fill=0, anchor=anchor)

    def need(self, lines: float) -> None:
        if self.y + lines * LEADING > BOTTOM:
            self.new_page()

    def line(self, text: str, face: str = "roman", size: int = 28, x: float = LEFT, anchor: str = "la") -> None:
        self.need(1)
        self.put(text, face, size, x, self.y, anchor)
        self.y += LEADING + max(0, size - 30)

    def rule(self) -> None:
        ImageDraw.Draw(self.pages[-1]).line((LEFT, self.y, RIGHT, self.y), fill=0, width=2)

    def paragraph(self, text: str, indent: int = 0, face: str = "roman") -> None:
        font, line = self.font(face, 28), ""
        self.need(2)
        for word in text.split():
            trial = f"{line} {word}".strip()
            if font.getlength(trial) > RIGHT - LEFT - indent:
                self.line(line, face, x=LEFT + indent)
                trial = word
            line = trial
        self.line(line, face, x=LEFT + indent)
        self.y += 14

    def title(self, text: str) -> None:
        self.need(4)
        self.y += 8
        self.line(text, "bold")
        self.y += 4


def scanned_minutes(path: Path) -> None:
    """Write the minutes as a PDF of one-bit images, with no text in it."""
    rng = random.Random(340)
    setter = Typesetter()
    meetings: list[list[Block]] = []
    for block in read_blocks("minutes"):
        if block.kind == "heading" and block.level == 1:
            meetings.append([])
        meetings[-1].append(block)
    resolution = 0
    for index, meeting in enumerate(meetings):
        resolution = _meeting(setter, meeting, index, resolution, rng)
    scans = [_scan(page, rng) for page in setter.pages]
    stamp = time.struct_time((2025, 1, 6, 9, 0, 0, 0, 6, 0))
    scans[0].save(
        path,
        "PDF",
        save_all=True,
        append_images=scans[1:],
        resolution=DPI,
        title="Scanned minutes",
        producer="longdoc examples",
        creationDate=stamp,
        modDate=stamp,
    )


def _meeting(setter: Typesetter, blocks: list[Block], index: int, resolution: int, rng: random.Random) -> int:
    """Typeset one meeting; returns the number of the last resolution in it."""
    date, kind, absent = (field.strip() for field in blocks[0].text.split("|"))
    present = [name for name in MEMBERS if name.split()[-1] not in absent]
    surnames = [name.split()[-1] for name in present]
    setter.header = ""
    setter.new_page()
    setter.header = f"Town Council of Harlow Ferry, {date}"
    setter.line("TOWN COUNCIL OF HARLOW FERRY", "bold", 36, PAGE[0] / 2, "ma")
    setter.line(f"Minutes of the {kind} Meeting of {date}", "bold", 30, PAGE[0] / 2, "ma")
    setter.y += 10
    setter.rule()
    setter.y += 16
    setter.paragraph(
        f"PRESENT: Mayor Eleanor Whitcombe; Members {', '.join(present)}; Town Clerk Rosalind "
        "Peake; Town Attorney Theodore Lunt; Treasurer Howard Amsel."
    )
    if absent:
        names = [name for name in MEMBERS if name not in present]
        setter.paragraph(f"ABSENT WITH EXCUSE: {' and '.join('Member ' + name for name in names)}.")
    fields = {
        "time": f"7:{rng.randrange(0, 6):02d} p.m.",
        "count": str(len(present) + 1),
        "visitors": str(rng.randrange(9, 31)),
    }
    item = 1

    def heading(text: str) -> None:
        nonlocal item
        setter.title(f"{item}. {text}")
        item += 1

    heading("Call to Order")
    setter.paragraph(OPENINGS[index % 3].format(**fields))
    heading("Approval of Minutes")
    a, b = rng.sample(surnames, 2)
    setter.paragraph(APPROVALS[(index + 1) % 3].format(a=a, b=b))
    for block in blocks[1:]:
        if block.kind == "heading":
            if block.text != "Public Comment" and item == 4:
                heading("Bills")
                setter.paragraph(ACCOUNTS[(index + 2) % 3].format(a=rng.choice(surnames)))
                _bills(setter, rng)
            heading(block.text)
        elif block.kind == "record":
            resolution += 1
            setter.paragraph(_motion(block.lines, len(present) + 1, resolution), indent=40)
        else:
            setter.paragraph(block.text)
    heading("Adjournment")
    ended = f"{rng.choice((8, 9))}:{rng.randrange(10, 59)} p.m."
    setter.paragraph(CLOSINGS[index % 3].format(time=ended, a=rng.choice(surnames)))
    setter.need(2.5)
    setter.put("Rosalind Peake", "script", 44, LEFT + 20 + rng.randrange(20), setter.y + rng.randrange(8))
    setter.y += 56
    setter.line("Rosalind Peake, Town Clerk", "italic")
    return resolution


def _motion(fields: tuple[str, ...], voting: int, resolution: int) -> str:
    mover, seconder, nays, text = fields
    against = int(nays)
    return (
        f"RESOLUTION 2024-{resolution:02d}. Moved by Member {mover} and seconded by Member {seconder}: "
        f"{text}. The motion carried, {voting - against} in favor and {against or 'none'} opposed."
    )


def _bills(setter: Typesetter, rng: random.Random) -> None:
    """A table of bills with its total."""
    chosen = sorted(rng.sample(BILLS, 6))
    amounts = [rng.randrange(low * 100, high * 100) for _, _, low, high in chosen]
    setter.need(8)
    for (payee, purpose, _, _), cents in zip(chosen, amounts, strict=True):
        setter.put(payee, "roman", 28, LEFT + 40, setter.y)
        setter.put(purpose, "roman", 28, LEFT + 400, setter.y)
        setter.line(f"${money(cents / 100, 2)}", x=RIGHT - 40, anchor="ra")
    setter.y += 2
    setter.rule()
    setter.y += 6
    setter.put("Total", "bold", 28, LEFT + 40, setter.y)
    setter.line(f"${money(sum(amounts) / 100, 2)}", "bold", x=RIGHT - 40, anchor="ra")
    setter.y += 14


def _scan(page: Image.Image, rng: random.Random) -> Image.Image:
    """The page as an old scanner saw it: turned a little, blurred, grainy, specked, in black and white."""
    draw = ImageDraw.Draw(page)
    edge = rng.randrange(4, 14)
    draw.polygon([(0, 0), (edge, 0), (rng.randrange(1, 6), PAGE[1]), (0, PAGE[1])], fill=40)
    for y in (410, 1240):  # punch holes
        draw.ellipse((44, y, 78, y + 34), outline=90, width=3)
    for _ in range(rng.randrange(14, 30)):
        x, y, r = rng.randrange(PAGE[0]), rng.randrange(PAGE[1]), rng.choice((1, 1, 1, 2))
        draw.ellipse((x, y, x + r, y + r), fill=0)
    angle = rng.uniform(-0.55, 0.55)
    page = page.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255)
    page = page.filter(ImageFilter.GaussianBlur(0.55))
    grain = Image.frombytes("L", PAGE, rng.randbytes(PAGE[0] * PAGE[1])).point([v // 5 for v in range(256)])
    return ImageChops.subtract(page, grain).point([0 if v < 150 else 255 for v in range(256)]).convert("1")
