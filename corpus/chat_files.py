"""One line of a chat file to a conversation, or to the reason why it is none. Pure.

A line is a JSON object with `messages`, in either of the two forms that fine-tuning sets come in: content parts
(`{"type": "image", "image": "path"}`), or texts with the placeholder `<image>` and the paths aside in `images` (as
LLaMA-Factory, ms-swift and TRL read them; TRL's parts of type image without a path take theirs from `images` too).
`<image>` is a placeholder wherever it stands: a set that lost its `images` would otherwise train on the bare word.

What would change what is learned and is not done here (tool calls, a turn without loss, videos) refuses the line
instead of being ignored. Other keys beside `messages` are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corpus.errors import ConfigError, DocumentError
from corpus.messages import Message, short_messages
from corpus.records import content_id
from corpus.storage import is_url, local_name
from corpus.store import plain

PLACEHOLDER = "<image>"
ROLES = ("system", "user", "assistant")
UNSUPPORTED = ("videos", "audios", "tools")  # beside `messages`, where they hold anything
MAX_SHOWN_CHARS = 60
MAX_NAME_CHARS = 1_000  # of a licence or a source


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A sound line. `messages` as `corpus.messages.short_messages` gives them; an image is an index of `images`."""

    messages: list[Message]
    images: tuple[str, ...]  # paths, relative to the folder of the chat file, in the order of the conversation
    given_id: str = ""
    source: str = ""
    license: str = ""

    @property
    def num_turns(self) -> int:
        """Supervised turns."""
        return sum(m["role"] == "assistant" for m in self.messages)


def parse_line(line: bytes) -> Conversation:
    """The conversation of a line.

    Raises:
        DocumentError: `not-json`, `not-an-object`, `no-messages`, `roles`, `content-type`, `unsupported`,
            `image-url`, `image-path`, `image-outside-question`, `image-count`, `empty-question`, `empty-answer`.
    """
    record = _decoded(line)
    for key in UNSUPPORTED:
        if record.get(key):
            raise DocumentError("unsupported", f"the key {key!r} cannot be trained on here; take it out")
    given = record.get("messages")
    if not isinstance(given, list) or not given:
        raise DocumentError("no-messages", f"messages = {_shown(given)}; write a list of turns with role and content")
    _check_roles(given)
    aside = record.get("images")
    if not isinstance(aside, list | None):
        raise DocumentError("image-path", f"images = {_shown(aside)}; write a list of paths")
    images = _Images([_path(value) for value in aside or ()])
    messages = short_messages([{"role": m["role"], "content": _parts(m, images)} for m in given])
    if images.placeholders != len(images.aside):
        counted = f"{images.placeholders} placeholders for {len(images.aside)} images"
        raise DocumentError("image-count", f"{counted}; every {PLACEHOLDER} takes the next of `images`")
    for message in messages:
        if message["role"] != "system" and not message["content"]:
            reason = "empty-answer" if message["role"] == "assistant" else "empty-question"
            raise DocumentError(reason, "a turn has no text")
    return Conversation(
        messages=messages,
        images=tuple(images.used),
        given_id=_name(record.get("id")),
        source=_name(record.get("source")),
        license=_name(record.get("license")),
    )


def conversation_id(messages: Sequence[Message], digests: Sequence[str]) -> str:
    """The id of a conversation: what is said, and the SHA-256 of the image files. No document's id begins with m."""
    said = [[m["role"], [p["text"] if p["type"] == "text" else p["image"] for p in m["content"]]] for m in messages]
    return "m" + content_id("conversation", said, list(digests), length=15)


class _Images:
    """The images of a line, in the order in which its turns name them."""

    def __init__(self, aside: list[str]) -> None:
        self.aside = aside
        self.used: list[str] = []
        self.placeholders = 0

    def part(self, path: str | None) -> Message:
        """The content part of the next image; None = the next one of `images`."""
        if path is None:
            path = self.aside[self.placeholders] if self.placeholders < len(self.aside) else ""
            self.placeholders += 1
        self.used.append(path)
        return {"type": "image", "image": len(self.used) - 1}


def _decoded(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as e:  # a number of 5,000 digits is a ValueError too
        raise DocumentError("not-json", f"{e}: {line.strip()[:40]!r}") from None
    if not isinstance(record, dict):
        raise DocumentError("not-an-object", f"{_shown(record)}; write an object with messages")
    return record


def _check_roles(given: list[Any]) -> None:
    for message in given:
        if not isinstance(message, dict):
            raise DocumentError("no-messages", f"a turn is {_shown(message)}; write an object with role and content")
        for key, value in message.items():
            if key not in ("role", "content") and value is not None:
                raise DocumentError("unsupported", f"a turn has the key {_shown(key)}; only role and content are read")
    roles = [m.get("role") for m in given]
    turns = roles[1:] if roles[0] == "system" else roles
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        shown = ", ".join(map(_shown, roles[:6])) + (", ..." if len(roles) > 6 else "")
        raise DocumentError("roles", f"{shown}; after an optional system turn, user and assistant alternate")


def _parts(message: dict[str, Any], images: _Images) -> list[Message]:
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise DocumentError("content-type", f"content = {_shown(content)}; write a text or a list of parts")
    parts: list[Message] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts = plain(part["text"]).split(PLACEHOLDER)
            for i, text in enumerate(texts):
                if i:
                    parts.append(images.part(None))
                parts.append({"type": "text", "text": text})
        elif kind == "image":
            path = part.get("image")
            parts.append(images.part(None if path is None else _path(path)))
        else:
            raise DocumentError("content-type", f"a part is {_shown(part)}; only text and image are known")
    if message["role"] != "user" and any(p["type"] == "image" for p in parts):
        raise DocumentError("image-outside-question", f"an image in a turn of {message['role']}; move it to the user's")
    return parts


def _path(value: Any) -> str:
    """The path of an image, as it is written; images are read from this machine's files and nowhere else."""
    if not isinstance(value, str) or not value or plain(value) != value:  # a lone surrogate has no UTF-8 form
        raise DocumentError("image-path", f"image = {_shown(value)}; write a path")
    try:
        path = local_name(value) if value.startswith("file://") else value
    except (ConfigError, ValueError):
        path = value
    if is_url(path) or path[:5].lower() == "data:":
        raise DocumentError("image-url", f"image = {_shown(value)}; images are files: download it, write its path")
    return path


def _name(value: Any) -> str:
    return str(plain(value))[:MAX_NAME_CHARS] if isinstance(value, str | int) else ""


def _shown(value: Any) -> str:
    text = repr(value[:MAX_SHOWN_CHARS] if isinstance(value, str | list) else value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
