"""The conversation: its order, its words, and nothing that a document could smuggle into it."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import question
from hypothesis import given
from hypothesis import strategies as st

from corpus.config import MessageSettings
from corpus.messages import build_messages, message_fingerprint, page_label, spoken_answer
from corpus.records import Window

PLAIN = MessageSettings()


def window(first_page: int = 0, num_pages: int = 2) -> Window:
    return Window(doc_id="d", index=0, first_page=first_page, num_pages=num_pages)


def text(message: dict[str, Any]) -> str:
    """What a message says; `[3]` stands for the image of page index 3."""
    return "".join(p["text"] if p["type"] == "text" else f"[{p['image']}]" for p in message["content"])


def test_pages_come_first_each_with_its_label_then_the_question() -> None:
    user, assistant = build_messages(window(), [question(question="Why?", answer="Because.")], PLAIN)
    assert (user["role"], text(user)) == ("user", "Page 1\n[0]\nPage 2\n[1]\nWhy?")
    assert (assistant["role"], text(assistant)) == ("assistant", "Because.")


def test_labels_of_a_later_window_count_from_the_beginning_of_the_document() -> None:
    user, _ = build_messages(window(first_page=40), [question(question="Why?")], PLAIN)
    assert text(user) == "Page 41\n[40]\nPage 42\n[41]\nWhy?"


def test_without_labels_there_are_images_alone() -> None:
    user, _ = build_messages(window(), [question(question="Why?")], MessageSettings(page_labels=False))
    assert text(user) == "[0][1]\nWhy?"


def test_further_questions_are_further_turns_without_images() -> None:
    asked = [question(question="One?", answer="1"), question(question="Two?", answer="2")]
    messages = build_messages(window(), asked, PLAIN)
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
    assert [text(m) for m in messages[1:]] == ["1", "Two?", "2"]


def test_images_stand_where_the_pages_do() -> None:
    user, _ = build_messages(window(), [question()], PLAIN, images=["first.jpg", "second.jpg"])
    assert [p["image"] for p in user["content"] if p["type"] == "image"] == ["first.jpg", "second.jpg"]


def test_a_wrong_number_of_images_is_a_bug() -> None:
    with pytest.raises(ValueError, match="shorter"):
        build_messages(window(), [question()], PLAIN, images=["first.jpg"])


def test_the_template_surrounds_every_question() -> None:
    settings = MessageSettings(question_template="Answer briefly: {question} (one line)")
    asked = [question(question="One?"), question(question="{question}")]
    messages = build_messages(window(), asked, settings)
    assert text(messages[0]).endswith("\nAnswer briefly: One? (one line)")
    assert text(messages[2]) == "Answer briefly: {question} (one line)"


@pytest.mark.parametrize(
    ("answer", "answer_format", "spoken"),
    [
        ('["Oslo", "Bergen"]', "List", "Oslo, Bergen"),
        ('["Oslo"]', "List", "Oslo"),
        ("1234", "Integer", "1234"),
        ('["no list"]', "String", '["no list"]'),
    ],
)
def test_an_answer_is_spoken_as_a_person_would(answer: str, answer_format: str, spoken: str) -> None:
    assert spoken_answer(question(answer=answer, answer_format=answer_format)) == spoken


@given(st.text(st.sampled_from("<|im_end>start pad\n")), st.text(st.sampled_from("<|im_end>start pad\n")))
def test_no_text_of_a_document_can_spell_a_control_token(asked: str, answer: str) -> None:
    for message in build_messages(window(), [question(question=asked, answer=answer)], PLAIN):
        assert "<|" not in text(message)


def test_a_control_token_is_broken_up_and_stays_readable() -> None:
    messages = build_messages(window(), [question(question=" a<|im_end|>b ", answer="<|image_pad|>")], PLAIN)
    assert text(messages[0]).endswith("\na< |im_end|>b")
    assert text(messages[1]) == "< |image_pad|>"


def test_only_the_first_label_has_no_line_before_it() -> None:
    assert page_label(0, first=True) == "Page 1\n"
    assert page_label(9, first=False) == "\nPage 10\n"


def test_the_fingerprint_changes_with_what_is_read() -> None:
    variants = [PLAIN, MessageSettings(page_labels=False), MessageSettings(question_template="Q: {question}")]
    assert len({message_fingerprint(v) for v in variants}) == 3
    assert message_fingerprint(MessageSettings()) == message_fingerprint(PLAIN)
