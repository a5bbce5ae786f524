"""A sample to chat messages: the only definition of the conversation, for building, counting and training.

One user turn holds every page, each preceded by its label, then the question; the assistant's turn is the answer.
Further questions follow as further turns. Labels count pages of the document from 1, also in a later window.

Text that comes from documents may spell a control token of the chat format ("<|im_end|>"): it is broken up here, so
that a page can neither end a turn nor claim an image. The same holds for conversations of the user's (short data).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from corpus.config import MessageSettings
from corpus.records import Question, Window, content_id

Message = dict[str, Any]

STAGE_VERSION = 1  # raise it when the same sample should read otherwise
ANSWER_SEPARATOR = ", "


def build_messages(
    window: Window, questions: Sequence[Question], settings: MessageSettings, images: Sequence[Any] | None = None
) -> list[Message]:
    """The conversation about a window, in the format of Hugging Face chat templates.

    Args:
        window: its pages are shown in order.
        questions: one turn each; there must be at least one.
        images: what stands for each page (a PIL image, a path); by default its index in the document.
    """
    assert questions, "a conversation needs a question"
    pages = range(window.first_page, window.first_page + window.num_pages)
    shown = list(pages) if images is None else images
    content: list[Message] = []
    for page, image in zip(pages, shown, strict=True):
        if settings.page_labels:
            content.append({"type": "text", "text": page_label(page, first=page == window.first_page)})
        content.append({"type": "image", "image": image})
    messages: list[Message] = []
    for i, question in enumerate(questions):
        text = spoken_question(question, settings)
        if i == 0:
            content.append({"type": "text", "text": "\n" + text})
        else:
            content = [{"type": "text", "text": text}]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": spoken_answer(question)}]})
    return messages


def page_label(page: int, first: bool) -> str:
    """The line before a page image: "Page N", N counted from 1."""
    return f"{'' if first else chr(10)}Page {page + 1}\n"


def spoken_question(question: Question, settings: MessageSettings) -> str:
    """The question as the user's turn puts it."""
    return _harmless(settings.question_template.replace("{question}", question.question))


def spoken_answer(question: Question) -> str:
    """The text that the model learns to say; a list is joined by commas."""
    is_list = question.answer_format == "List"
    return _harmless(ANSWER_SEPARATOR.join(json.loads(question.answer)) if is_list else question.answer)


def short_messages(stored: Sequence[Message], images: Sequence[Any] | None = None) -> list[Message]:
    """A conversation of the user's, from the form in which a shard stores it; what this returns is that form too.

    Texts that follow each other become one, so that no control token hides in the seam; white space at the ends of a
    turn goes, and so does a text of which nothing is left.

    Args:
        stored: turns whose content is a list of parts; an image part holds its index in the conversation.
        images: what stands for each index (a PIL image, a path); by default the index itself.
    """
    messages = []
    for turn in stored:
        parts: list[Message] = []
        for part in turn["content"]:
            if part["type"] == "image":
                parts.append({"type": "image", "image": part["image"] if images is None else images[part["image"]]})
            elif parts and parts[-1]["type"] == "text":
                parts[-1]["text"] += part["text"]
            else:
                parts.append({"type": "text", "text": part["text"]})
        for i, part in enumerate(parts):
            if part["type"] == "text":
                text = _broken_up(part["text"])
                text = text.lstrip() if i == 0 else text
                part["text"] = text.rstrip() if i == len(parts) - 1 else text
        kept = [p for p in parts if p["type"] == "image" or p["text"]]
        messages.append({"role": turn["role"], "content": kept})
    return messages


def _harmless(text: str) -> str:
    return _broken_up(text).strip()


def _broken_up(text: str) -> str:
    return text.replace("<|", "< |")


def message_fingerprint(settings: MessageSettings) -> str:
    """Changes whenever the same sample would read otherwise."""
    return content_id("messages", STAGE_VERSION, settings.model_dump())
