"""Sound text passes in every language; each way in which a layer lies is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from corpus.layout import Line, PageLayout, PaintedImage, Painting, Word
from corpus.parse import PageView, read_layout
from corpus.records import Box, PageGrid
from corpus.render import encode, open_pdf, pymupdf, render
from corpus.text_layer import SOUND, Verdict, examine, garbled

TEXTS = {
    "English": "The council of the harbour reads its annual report on copper, and asks for 1,234 new pumps (page 7).",
    "German": "Der Stadtrat prüft die Jahresabschlüsse; größere Ausgaben für Brücken müssen genehmigt werden.",
    "Polish": "Rada miasta przegląda sprawozdanie roczne i zatwierdza wydatki na mosty, żródła oraz światła.",
    "Vietnamese": "Hội đồng thành phố xem xét báo cáo hằng năm và phê duyệt những khoản chi cho các cây cầu.",
    "Turkish": "Belediye meclisi yıllık raporu inceliyor ve köprüler için yapılan harcamaları onaylıyor.",
    "Greek": "Το δημοτικό συμβούλιο εξετάζει την ετήσια έκθεση και εγκρίνει τις δαπάνες για τις γέφυρες.",
    "Russian": "Городской совет рассматривает годовой отчёт и утверждает расходы на мосты и освещение.",
    "Chinese": "市议会审议年度报告，并批准用于桥梁和照明的支出。报告第7页列出了2023年的数据。",
    "Japanese": "市議会は年次報告書を審議し、橋と照明のためのグラフAの支出を承認した。",
    "Arabic": "يراجع المجلس البلدي التقرير السنوي ويوافق على نفقات الجسور والإنارة",
    "Persian": "تمام افراد بشر آزاد به دنیا می آیند و از لحاظ حیثیت و حقوق با هم برابرند",
    "Ukrainian": "Міська рада розглядає річний звіт і затверджує видатки на мости та освітлення.",
    "Traditional Chinese": "市議會審議年度報告，並批准用於橋樑和照明的支出。報告第7頁列出了2023年的數據。",
    "Korean": "시의회는 연차 보고서를 심의하고 다리와 조명에 쓰이는 지출을 승인하였다.",
    "Hindi": "नगर परिषद वार्षिक प्रतिवेदन की समीक्षा करती है और पुलों के व्यय को स्वीकृति देती है",
    "numbers": "1,234 5,678 (9.1) 12% $3.4 2021 2020 2019 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22",
    "leaders": "Introduction .................... 3 Methods ........................ 12 Results ............. 17",
    "code": "def forward(self, x): return self.norm(x @ self.weight.T) if self.norm else x[:, :, 0] + 0x1F",
    "formulas": "f(x) = αx² + β·log(σ) for x ∈ ℝ, where Δ ≤ µm/s and ∑ᵢ wᵢ = 1, see (3) and Lemma 2 below",
}


@pytest.mark.parametrize("name", TEXTS)
def test_sound_text_passes(name: str) -> None:
    assert garbled(TEXTS[name].split() * 8) == ""


def broken(change: Callable[[str], str], name: str = "English") -> str:
    return garbled(["".join(map(change, word)) for word in TEXTS[name].split() * 8])


def shifted(char: str) -> str:
    return chr(97 + (ord(char) - 94) % 26) if "a" <= char <= "z" else char


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c: chr(0xE000 + ord(c)), "are unmapped"),
        (lambda c: "\ufffd" if c.isalpha() else c, "are unmapped"),
        (lambda c: chr(1 + ord(c) % 30), "are unmapped"),
        (lambda c: f"(cid:{ord(c)})", "are unmapped"),
        (lambda c: chr(ord(c) * 256), "have their bytes swapped"),
        (lambda c: chr(0x21 + ord(c) % 15), "are letters or digits"),
        (shifted, "Latin letters are common ones"),
        (lambda c: "αβγδε"[ord(c) % 5] if c in "aeiou" else c, "words mix scripts"),
    ],
)
def test_each_kind_of_gibberish_is_found(change: Callable[[str], str], fault: str) -> None:
    assert broken(change).endswith(fault)


def test_text_that_was_decoded_twice_is_found() -> None:
    words = [word.encode().decode("latin-1") for word in TEXTS["German"].split() * 8]
    assert garbled(words).endswith("letters were decoded twice")


SCRIPTS = {
    "Chinese or Japanese": (0x4E00, 0x9FFF),
    "Korean": (0xAC00, 0xD7A3),
    "Cyrillic": (0x430, 0x44F),
    "Arabic": (0x621, 0x64A),
    "Greek": (0x3B1, 0x3C9),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_letters_drawn_from_another_script_are_found(name: str) -> None:
    draw = random.Random(1)
    letters = [c for c in map(chr, range(SCRIPTS[name][0], SCRIPTS[name][1] + 1)) if c.isalpha()]
    said = broken(lambda c: draw.choice(letters) if c.isalpha() else c)
    assert said.endswith(f"{name} letters are common ones")


@pytest.mark.parametrize(("name", "encoding"), [("Chinese", "gbk"), ("Russian", "cp1251"), ("Greek", "iso8859-7")])
def test_another_encoding_read_as_latin_1_is_found(name: str, encoding: str) -> None:
    words = [word.encode(encoding, "replace").decode("latin-1") for word in TEXTS[name].split() * 8]
    assert garbled(words).endswith("are of the upper half of Latin-1")


def test_few_characters_without_a_meaning_are_forgiven() -> None:
    assert garbled(["a" * 18 + "\ufffd" * 2]) == ""
    assert garbled(["a" * 17 + "\ufffd" * 3]) == "3 of 20 characters are unmapped"


@given(st.lists(st.text(min_size=1), max_size=30))
def test_no_text_is_too_odd_to_be_judged(words: list[str]) -> None:
    assert isinstance(garbled(words), str)


# ------------------------------------------------------------------------------------------------------- the page


def line(text: str, y: float, x: float = 50, width: float = 300, hidden: bool = False) -> Line:
    return Line((x, y, x + width, y + 10), text, 10, False, hidden)


def page(*lines: Line) -> PageLayout:
    words = [
        Word((x.box[0] + 30 * i, x.box[1], x.box[0] + 30 * i + 25, x.box[3]), text)
        for x in lines
        for i, text in enumerate(x.text.split())
    ]
    return PageLayout(600, 800, tuple(words), lines, (), ())


def prose(count: int = 8, **changes: bool) -> list[Line]:
    return [line(TEXTS["English"], 50 + 20 * i, **changes) for i in range(count)]


UNPAINTED = Painting((), (), 0)


@dataclass
class FakeView:
    """A page of which everything is known beforehand."""

    painted: Painting = UNPAINTED
    picture: Any = None

    def has_images(self) -> bool:
        return bool(self.painted.images)

    def painting(self) -> Painting:
        return self.painted

    def grey(self) -> NDArray[np.uint8]:
        assert self.picture is not None, "nobody should look"
        return np.asarray(self.picture, np.uint8)


def over(*images: PaintedImage, texts: tuple[tuple[int, Box], ...] = (), shapes: int = 0) -> Painting:
    return Painting(texts, images, shapes)


def verdict(*lines: Line, image_share: float = 0.0) -> Verdict:
    image = PaintedImage(1, (0, 0, 600, 800 * image_share), True)
    return examine(page(*lines), FakeView(over(*([image] if image_share else [])), np.full((842, 632), 255)))[1]


def test_a_sound_page_is_sound_also_under_an_image() -> None:
    assert verdict(*prose()) == verdict(*prose(), image_share=1.0) == SOUND


def test_too_little_text_is_no_layer() -> None:
    assert verdict(line("Fifteen letters", 50)) == Verdict("ocr", "text-layer-of-14-characters")
    assert verdict(line("Seventeen letters", 50)) == SOUND
    assert verdict() == Verdict("ocr", "text-layer-of-0-characters")


def test_sparse_text_is_in_doubt_only_over_an_image() -> None:
    stamp = line("Exhibit 12, page 3 of 50", 780)
    assert verdict(stamp) == verdict(stamp, image_share=0.7) == SOUND
    assert verdict(stamp, image_share=0.8) == Verdict("better", "sparse-text-over-image: 19 characters")


def test_an_invisible_layer_is_named_and_a_few_invisible_lines_are_dropped() -> None:
    layer = prose(hidden=True)
    layout, said = examine(page(*layer, line("Exhibit 12", 780)), FakeView())
    assert said == Verdict("ocr", "invisible-text-layer: 800 of 810 characters")
    assert layout.lines[:8] == tuple(layer)  # for want of anything better
    layout, said = examine(page(*prose(), line("Nobody sees this", 700, hidden=True)), FakeView())
    assert said == SOUND
    assert [w.text for w in layout.words if w.text == "Nobody"] == []
    assert len(layout.lines) == 8


def test_what_stands_outside_the_page_is_dropped() -> None:
    layout, said = examine(page(*prose(), line("Out of sight", 900), line("Out of reach", 20, x=-400)), FakeView())
    assert said == SOUND
    assert len(layout.lines) == 8
    assert not any(w.text == "Out" for w in layout.words)


def test_what_is_printed_twice_is_kept_once_but_repeated_words_stay() -> None:
    bold = line("Annual report", 40), line("Annual report", 40.4, x=50.5)
    again = line("Annual report", 60)
    layout, _ = examine(page(*bold, again, *prose()), FakeView())
    assert [x.text for x in layout.lines].count("Annual report") == 2
    assert [w.text for w in layout.words].count("Annual") == 2


def test_two_layers_on_top_of_each_other_are_found() -> None:
    below = [line(TEXTS["German"], 51 + 20 * i, x=60) for i in range(8)]
    said = verdict(*prose(), *below)
    assert said.source == "ocr"
    assert said.reason.startswith("overlapping-text: ")
    beside = [line(TEXTS["German"], 51 + 20 * i, x=360, width=200) for i in range(8)]
    assert verdict(*prose(), *beside) == SOUND


def test_pale_lines_are_hidden_where_the_page_is_of_one_shade() -> None:
    pale = [replace(x, pale=True) for x in prose()]
    blank = np.full((842, 632), 255)
    assert examine(page(*pale), FakeView(picture=blank))[1].reason.startswith("invisible-text-layer: ")
    dark = blank.copy()
    dark[50:300, 40:400] = np.random.default_rng(0).integers(0, 2, (250, 360)) * 255
    assert examine(page(*pale), FakeView(picture=dark))[1] == SOUND


@pytest.mark.parametrize(
    ("order", "covers", "box", "hidden"),
    [
        (9, True, (0, 0, 600, 800), True),
        (9, False, (0, 0, 600, 800), False),
        (0, True, (0, 0, 600, 800), False),
        (9, True, (0, 400, 600, 800), False),
    ],
)
def test_lines_under_a_later_opaque_image_are_hidden(order: int, covers: bool, box: Box, hidden: bool) -> None:
    lines = prose()
    texts = tuple((1 + i, x.box) for i, x in enumerate(lines))
    view = FakeView(over(PaintedImage(order, box, covers), texts=texts), np.full((842, 632), 255))
    assert (examine(page(*lines), view)[1].source == "ocr") == hidden


def test_text_printed_again_over_the_image_is_shown() -> None:
    lines = prose()
    texts = tuple((order, x.box) for x in lines for order in (1, 9))
    view = FakeView(over(PaintedImage(5, (0, 0, 600, 800), True), texts=texts), np.full((842, 632), 255))
    assert examine(page(*lines), view)[1] == SOUND


def test_digits_alone_are_in_doubt() -> None:
    draw = random.Random(1)
    lines = [line(" ".join(str(draw.randrange(10**5, 10**6)) for _ in range(8)), 50 + 20 * i) for i in range(8)]
    assert verdict(*lines) == Verdict("better", "no-letters: 384 of 384 characters are digits")
    assert verdict(*lines, line("Inhabitants, by harbour", 20)) == SOUND


# --------------------------------------------------------------------------------------------- pages drawn for real

BODY = "\n".join(["The council of the harbour reads its annual report on copper, and asks for new pumps."] * 40)
HEADER = "Annual report of the harbour council 2020"
FOOTER = "Licensed to the University Library on 4 March 2021. Downloaded from the archive at 12:07. "


def written(new: Any, **options: Any) -> None:
    new.insert_textbox(pymupdf.Rect(60, 60, 540, 740), BODY, fontsize=10, **options)


def scan_of(draw: Callable[[Any], None]) -> bytes:
    """A page with this on it, as a JPEG."""
    with pymupdf.open() as pdf:
        new = pdf.new_page(width=600, height=800)
        draw(new)
        return encode(render(new, PageGrid(height=1_600, width=1_200)), "jpeg", 60)


def white(new: Any) -> None:
    written(new, color=(1, 1, 1))


def white_on_dark(new: Any) -> None:
    new.draw_rect(new.rect, fill=(0.1, 0.1, 0.4))
    white(new)


def covered(new: Any) -> None:
    written(new)
    new.insert_image(new.rect, stream=scan_of(written))


def over_a_photo(new: Any) -> None:
    new.insert_image(new.rect, stream=scan_of(lambda _: None))
    written(new)


def outlined(new: Any) -> None:
    with pymupdf.open() as pdf:
        written(pdf.new_page(width=600, height=800))
        svg = pdf[0].get_svg_image(text_as_path=True).encode()
    with pymupdf.open("svg", svg) as shapes:
        new.show_pdf_page(new.rect, pymupdf.open("pdf", shapes.convert_to_pdf()), 0)
    new.insert_text((60, 30), HEADER, fontsize=8)


def scan_of_part(new: Any) -> None:
    new.insert_image(pymupdf.Rect(66, 88, 534, 712), stream=scan_of(written))
    new.insert_text((60, 780), "Exhibit 12, page 3 of 50", fontsize=8)


def scan_with_footer(new: Any) -> None:
    new.insert_image(new.rect, stream=scan_of(written))
    new.insert_textbox(pymupdf.Rect(30, 755, 570, 798), FOOTER * 5, fontsize=6)


def photo_with_caption(new: Any) -> None:
    y, x = np.mgrid[0:600, 0:900]
    grey = 128 + 60 * np.sin(x / 40) + 60 * np.cos(y / 23)
    pixmap = pymupdf.Pixmap(pymupdf.csGRAY, 900, 600, grey.astype(np.uint8).tobytes(), False)
    new.insert_image(pymupdf.Rect(60, 60, 540, 480), pixmap=pixmap)
    new.insert_text((60, 500), "Figure 3: " + HEADER, fontsize=10)


def chart_with_labels(new: Any) -> None:
    for i in range(200):
        new.draw_rect(pymupdf.Rect(60 + 2.3 * i, 700 - 3 * (i % 60), 62 + 2.3 * i, 700), fill=(0.2, 0.4, 0.7))
    new.insert_text((60, 730), "Figure 4: " + HEADER, fontsize=10)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (white, "ocr: invisible-text-layer"),
        (white_on_dark, "layer: sound"),
        (covered, "ocr: invisible-text-layer"),
        (over_a_photo, "layer: sound"),
        (outlined, "better: text-outside-layer"),
        (scan_of_part, "better: text-outside-layer"),
        (scan_with_footer, "better: text-outside-layer"),
        (photo_with_caption, "layer: sound"),
        (chart_with_labels, "layer: sound"),
    ],
)
@pytest.mark.parametrize("rotation", [0, 90])
def test_the_layer_is_held_against_what_the_page_shows(
    tmp_path: Path, draw: Callable[[Any], None], said: str, rotation: int
) -> None:
    with pymupdf.open() as pdf:
        new = pdf.new_page(width=600, height=800)
        draw(new)
        new.set_rotation(rotation)
        pdf.save(tmp_path / "page.pdf")
    with open_pdf(tmp_path / "page.pdf") as pdf:
        found = examine(read_layout(pdf[0], use_model=False), PageView(pdf[0]))[1]
    assert f"{found.source}: {found.reason.partition(':')[0]}" == said
