"""A question writer's reply to a question and its answer, or the fault that keeps it from being one.

Replies are hostile text. Nothing is guessed: a reply that does not say what it should in the form that was asked for is
a fault with a reason to count by, because a mended reply is one that nobody wrote. Instruct models answer under a JSON
schema, and the whole text must be the object; thinking models answer in free text, and the last JSON object counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from corpus.blocks import clean
from corpus.records import EVIDENCE_KINDS, NOTHING_TO_ASK, Segment
from synth.answers import answer_fault

MAX_REPLY_CHARS = 200_000  # a longer text is no reply, thoughts included
MAX_OBJECTS = 200  # opening braces of a free text that are tried, the last ones
MAX_QUESTION_CHARS = 1_200
MAX_ANSWER_CHARS = 2_000
MAX_ANCHOR_CHARS = 300
MAX_ITEMS = 50  # of a list
MAX_QUOTES = 20
MAX_QUOTE_CHARS = 1_000
MAX_EXPONENT = 30

KEYS = ("evidence_pages", "evidence_sources", "evidence", "anchor", "question", "answer_format", "answer")
REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:not|'t)|won't)|as an ai\b|unable to (?:assist|help|comply))"
    r"|抱歉|对不起|无法(?:提供|回答|协助|完成|满足)|我不能",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A question as the model gave it, in the form of `corpus.records.Question`."""

    question: str
    answer: str  # a List is a JSON array of strings
    answer_format: str
    anchor: str
    evidence_pages: tuple[int, ...]  # 0-based, in order, each once
    evidence_sources: tuple[str, ...]  # one a page, of `EVIDENCE_KINDS`
    quotes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a reply is no question: `reason` is a slug to count by, `detail` shows what was seen."""

    reason: str
    detail: str


class ReplyRules(Protocol):
    """What a reply depends on of its task."""

    @property
    def answer_formats(self) -> tuple[str, ...]: ...
    @property
    def min_evidence_pages(self) -> int: ...
    @property
    def max_evidence_pages(self) -> int: ...


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.fault = Fault(reason=reason, detail=detail)


def reply_schema(task: ReplyRules, segment: Segment) -> str:
    """The JSON schema of a reply about these pages, as canonical JSON.

    Bounds on the length of texts are left to `parse_reply`: not every server's grammar knows them.
    """
    page = {"type": "integer", "enum": [p + 1 for p in _shown(segment)]}
    most = min(task.max_evidence_pages, segment.num_pages)
    text = {"type": "string"}
    types = {"String": text, "Integer": {"type": "integer"}, "Float": {"type": "number"}, "List": _array(text, 1, 50)}
    properties = {
        "evidence_pages": _array(page, 1, most),
        "evidence_sources": _array({"type": "string", "enum": list(EVIDENCE_KINDS)}, 1, most),
        "evidence": _array(text, 0, MAX_QUOTES),
        "anchor": text,
        "question": text,
        "answer_format": {"type": "string", "enum": list(task.answer_formats)},
        "answer": {"anyOf": [types[name] for name in task.answer_formats]},
    }
    assert tuple(properties) == KEYS
    schema = {"type": "object", "properties": properties, "required": list(KEYS), "additionalProperties": False}
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _array(items: dict[str, Any], least: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _shown(segment: Segment) -> range:
    return range(segment.first_page, segment.first_page + segment.num_pages)


def parse_reply(text: str, task: ReplyRules, segment: Segment, structured: bool) -> Reply | Fault:
    """The question that a model's answer holds. Never raises, whatever the text.

    Args:
        text: as the model wrote it.
        task: the formats and the number of evidence pages that it allows.
        segment: the pages that were shown.
        structured: the answer was to follow `reply_schema`; else it is free text around a JSON object.
    """
    found = json_object(text, structured)
    return found if isinstance(found, Fault) else read_reply(found, task, segment)


# ------------------------------------------------------------------------------------------------------------ JSON


def json_object(text: str, structured: bool) -> dict[str, Any] | Fault:
    """The one JSON object of a model's answer: the whole text, or the last one in free text. Never raises."""
    if len(text) > MAX_REPLY_CHARS:
        return Fault(reason="too-long", detail=f"{len(text):,} characters, at most {MAX_REPLY_CHARS:,}")
    if not structured:
        _, end, answer = text.rpartition("</think>")
        if not end and text.lstrip().startswith("<think>"):
            return Fault(reason="cut-off", detail="the thoughts have no end")
        text = answer if end else text
    text = text.strip()
    if not text:
        return Fault(reason="empty", detail="the answer is empty or white space")
    return _whole(text) if structured else _last(text)


def _whole(text: str) -> dict[str, Any] | Fault:
    try:
        value = _DECODER.decode(text)
    except _Refused as e:
        return e.fault
    except (ValueError, RecursionError, ArithmeticError) as e:
        return _no_json(text, str(e))
    if not isinstance(value, dict):
        return Fault(reason="no-object", detail=f"{type(value).__name__} instead of an object")
    return value


def _last(text: str) -> dict[str, Any] | Fault:
    starts = [m.start() for m in re.finditer(r"\{", text)][-MAX_OBJECTS:]
    found: dict[str, Any] | Fault = _no_json(text, "no JSON object")
    end = 0
    for start in starts:
        if start < end:
            continue
        try:
            value, end = _DECODER.raw_decode(text, start)
        except _Refused as e:
            found = e.fault
        except (ValueError, RecursionError, ArithmeticError) as e:
            if isinstance(found, Fault):
                found = _no_json(text, str(e))
        else:
            found = value
    return found


def _no_json(text: str, error: str) -> Fault:
    shown = clean(text[:200])
    if REFUSAL.search(text[:2_000]) and not text.startswith("{"):
        return Fault(reason="refused", detail=shown)
    if text.startswith("{") and not text.endswith("}"):
        return Fault(reason="cut-off", detail=f"{error}: {shown}")
    return Fault(reason="no-json", detail=f"{error}: {shown}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _Refused("duplicate-key", f"a key stands twice among {', '.join(clean(k)[:40] for k, _ in pairs[:20])}")
    return value


def _constant(name: str) -> Any:
    raise _Refused("not-finite", name)


# not strict: grammars of servers let control characters into strings; `clean` takes them out
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=Decimal, parse_constant=_constant, strict=False)

# ----------------------------------------------------------------------------------------------------------- fields


def read_reply(value: dict[str, Any], task: ReplyRules, segment: Segment) -> Reply | Fault:
    """A decoded object as a reply. Never raises."""
    try:
        return _read(value, task, segment)
    except _Refused as e:
        return e.fault


def _read(value: dict[str, Any], task: ReplyRules, segment: Segment) -> Reply:
    for key in KEYS:
        if key not in value:
            raise _Refused("missing-key", f"{key}; found {', '.join(clean(k)[:40] for k in list(value)[:20])}")
    if value["question"] == "" and value["answer"] in ("", []):
        raise _Refused(NOTHING_TO_ASK, "the writer found no question in these pages")
    question = _text("question", value["question"], MAX_QUESTION_CHARS)
    answer_format = _text("answer_format", value["answer_format"], 20)
    if answer_format not in task.answer_formats:
        raise _Refused("answer-format", f"{answer_format!r} is none of {', '.join(task.answer_formats)}")
    pages = _pages(value["evidence_pages"], task, segment)
    return Reply(
        question=question,
        answer=_answer(value["answer"], answer_format),
        answer_format=answer_format,
        anchor=_text("anchor", value["anchor"], MAX_ANCHOR_CHARS),
        evidence_pages=tuple(sorted(pages)),
        evidence_sources=_sources(value["evidence_sources"], pages),
        quotes=tuple(_quotes(value["evidence"])),
    )


def _text(key: str, value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise _Refused("wrong-type", f"{key} is no text: {_shown_value(value)}")
    if len(value) > most:
        raise _Refused("too-long", f"{key} has {len(value):,} characters, at most {most:,}")
    text = clean(value)
    if not text:
        raise _Refused("empty", f"{key} is empty")
    return text


def _shown_value(value: Any) -> str:
    return clean(str(value)[:100]) if isinstance(value, str | int | Decimal | float) else type(value).__name__


def _list(key: str, value: Any, most: int) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _Refused("wrong-type", f"{key} is no list: {_shown_value(value)}")
    if len(value) > most:
        raise _Refused("too-long", f"{key} has {len(value):,} entries, at most {most:,}")
    return value


def _pages(value: Any, task: ReplyRules, segment: Segment) -> list[int]:
    shown = _shown(segment)
    pages = []
    for number in _list("evidence_pages", value, 1_000):
        if type(number) is not int:
            raise _Refused("wrong-type", f"evidence_pages holds {_shown_value(number)}, not a whole number")
        if number - 1 not in shown:
            detail = f"page {_shown_value(number)} is none of {shown.start + 1} to {shown.stop}"
            raise _Refused("page-out-of-range", detail)
        pages.append(number - 1)
    pages = list(dict.fromkeys(pages))
    if not task.min_evidence_pages <= len(pages) <= task.max_evidence_pages:
        wanted = f"{task.min_evidence_pages} to {task.max_evidence_pages}"
        raise _Refused("evidence-pages", f"{len(pages)} evidence pages; the task wants {wanted}")
    return pages


def _sources(value: Any, pages: Sequence[int]) -> tuple[str, ...]:
    """One source a page, in the order of the pages; sources that are not counted by page are taken as a set."""
    sources = _list("evidence_sources", value, 1_000)
    for source in sources:
        if source not in EVIDENCE_KINDS:
            raise _Refused("wrong-type", f"evidence_sources holds {_shown_value(source)}, not a known source")
    if not sources:
        raise _Refused("empty", "evidence_sources is empty")
    if len(sources) == len(pages):
        return tuple(source for _, source in sorted(zip(pages, sources, strict=True)))
    unsure = "Figure" if "Figure" in sources else sources[0]  # what text cannot show is claimed of no page
    return (unsure,) * len(pages)


def _quotes(value: Any) -> list[str]:
    quotes = [value] if isinstance(value, str) and value else value or []
    return [_text("evidence", q, MAX_QUOTE_CHARS) for q in _list("evidence", quotes, MAX_QUOTES) if q != ""]


def answer_text(value: Any, answer_format: str) -> str | Fault:
    """A JSON value as the text of `Question.answer`. Never raises."""
    try:
        return _answer(value, answer_format)
    except _Refused as e:
        return e.fault


def _answer(value: Any, answer_format: str) -> str:
    if answer_format == "List":
        items = _list("answer", value, MAX_ITEMS)
        text = json.dumps([_text("answer", item, MAX_ANSWER_CHARS) for item in items], ensure_ascii=False)
    elif answer_format == "String":
        text = _text("answer", value, MAX_ANSWER_CHARS)
    else:
        text = _number(value, answer_format)
    if len(text) > MAX_ANSWER_CHARS:
        raise _Refused("too-long", f"the answer has {len(text):,} characters, at most {MAX_ANSWER_CHARS:,}")
    if fault := answer_fault(text, answer_format):
        raise _Refused("wrong-type", fault)
    return text


def _number(value: Any, answer_format: str) -> str:
    """Plain digits, with the decimals as written."""
    whole = type(value) is int
    if not whole and (answer_format == "Integer" or not isinstance(value, Decimal | float)):
        raise _Refused("wrong-type", f"answer {_shown_value(value)} is no {answer_format}")
    if whole:
        if abs(value) >= 10**MAX_EXPONENT:
            raise _Refused("too-long", f"answer is larger than 1e{MAX_EXPONENT}")
        return str(value)
    number = Decimal(str(value))
    if not number.is_finite() or abs(number.adjusted()) > MAX_EXPONENT or len(number.as_tuple().digits) > MAX_EXPONENT:
        raise _Refused("too-long", f"answer is beyond 1e{MAX_EXPONENT} or has too many digits")
    return f"{number:f}"
