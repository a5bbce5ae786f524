"""Small chat files with pictures, for tests of short data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

ORIENTATION = 0x0112


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(question: Any, answer: Any = "Yes.", **more: Any) -> dict[str, Any]:
    """A conversation of one question."""
    return {"messages": [turn("user", question), turn("assistant", answer)], **more}


def image_part(path: str | None) -> dict[str, Any]:
    return {"type": "image"} if path is None else {"type": "image", "image": path}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """A JSONL file; a record that is text stands there as it is."""
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_picture(
    path: Path, width: int, height: int, color: tuple[int, int, int] = (200, 30, 30), orientation: int = 1
) -> Path:
    """A picture whose left half is coloured and whose right half is white, as the file stores it."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    image.paste(color, (0, 0, width // 2, height))
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif)
    return path
