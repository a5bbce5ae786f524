"""Sound text passes in every language; each way in which a layer lies is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.layout import Line, PageLayout, Word
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


def verdict(*lines: Line, image_share: float = 0.0) -> Verdict:
    return examine(page(*lines), lambda: image_share)[1]


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
    layout, said = examine(page(*layer, line("Exhibit 12", 780)), lambda: 1.0)
    assert said == Verdict("ocr", "invisible-text-layer: 800 of 810 characters")
    assert layout.lines[:8] == tuple(layer)  # for want of anything better
    layout, said = examine(page(*prose(), line("Nobody sees this", 700, hidden=True)), lambda: 0.0)
    assert said == SOUND
    assert [w.text for w in layout.words if w.text == "Nobody"] == []
    assert len(layout.lines) == 8


def test_what_stands_outside_the_page_is_dropped() -> None:
    layout, said = examine(page(*prose(), line("Out of sight", 900), line("Out of reach", 20, x=-400)), lambda: 0.0)
    assert said == SOUND
    assert len(layout.lines) == 8
    assert not any(w.text == "Out" for w in layout.words)


def test_what_is_printed_twice_is_kept_once_but_repeated_words_stay() -> None:
    bold = line("Annual report", 40), line("Annual report", 40.4, x=50.5)
    again = line("Annual report", 60)
    layout, _ = examine(page(*bold, again, *prose()), lambda: 0.0)
    assert [x.text for x in layout.lines].count("Annual report") == 2
    assert [w.text for w in layout.words].count("Annual") == 2


def test_two_layers_on_top_of_each_other_are_found() -> None:
    below = [line(TEXTS["German"], 51 + 20 * i, x=60) for i in range(8)]
    said = verdict(*prose(), *below)
    assert said.source == "ocr"
    assert said.reason.startswith("overlapping-text: ")
    beside = [line(TEXTS["German"], 51 + 20 * i, x=360, width=200) for i in range(8)]
    assert verdict(*prose(), *beside) == SOUND
