"""Short data before any build: lines to conversations, files to chunks, image files to pictures; hostile ones too."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from chat_data import chat, image_part, text_part, turn, write_lines, write_picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from corpus import chat_chunks, chat_images
from corpus.chat_chunks import chunks_of, labelled, read_chunk
from corpus.chat_files import conversation_id, parse_line
from corpus.chat_images import measure, picture, read_image
from corpus.config import load_config
from corpus.errors import ConfigError, DocumentError, EngineError
from corpus.messages import short_messages
from corpus.records import PageGrid
from corpus.vision_tokens import FAMILIES
from packing.lengths import Utf8Bound
from packing.short import MeasureJob, measure_chunk, measure_line

FAMILY = FAMILIES["qwen2.5-vl"]


def encoded(record: Any) -> bytes:
    return json.dumps(record).encode()


def said(record: Any) -> list[str]:
    """Every turn as one text; `[0]` stands for image 0."""
    return [
        m["role"][0] + ":" + "".join(p["text"] if p["type"] == "text" else f"[{p['image']}]" for p in m["content"])
        for m in parse_line(encoded(record)).messages
    ]


def reason(line: bytes) -> str:
    with pytest.raises(DocumentError) as e:
        parse_line(line)
    assert len(e.value.detail) < 400
    return e.value.reason


# ------------------------------------------------------------------------------------------------ sound conversations


def test_a_text_conversation_with_several_turns() -> None:
    turns = [turn("system", "Be brief."), turn("user", "One?"), turn("assistant", "1"), turn("user", "Two?")]
    record = {"messages": [*turns, turn("assistant", " 2\n")]}
    assert said(record) == ["s:Be brief.", "u:One?", "a:1", "u:Two?", "a:2"]
    assert parse_line(encoded(record)).num_turns == 2


def test_both_forms_of_images_give_the_same_conversation() -> None:
    parts = chat([text_part("Compare "), image_part("a.png"), text_part(" and "), image_part("b.png")])
    aside = chat("Compare <image> and <image>", images=["a.png", "b.png"])
    mixed = chat([text_part("Compare <image> and "), image_part(None)], images=["a.png", "b.png"])
    read = [parse_line(encoded(r)) for r in (parts, aside, mixed)]
    assert read[0] == read[1] == read[2]
    assert read[0].images == ("a.png", "b.png")
    assert said(parts)[0] == "u:Compare [0] and [1]"


def test_images_of_both_forms_are_counted_in_the_order_of_the_conversation() -> None:
    record = {
        "messages": [
            turn("user", [image_part("own.png"), text_part("<image>?")]),
            turn("assistant", "a"),
            turn("user", "<image>"),
            turn("assistant", "b"),
        ],
        "images": ["x.png", "y.png"],
    }
    assert parse_line(encoded(record)).images == ("own.png", "x.png", "y.png")
    assert said(record) == ["u:[0][1]?", "a:a", "u:[2]", "a:b"]


def test_what_else_a_line_says_is_kept_as_data() -> None:
    found = parse_line(encoded(chat("Hi", id=7, source="a set", license="CC0", score=[1], videos=[])))
    assert (found.given_id, found.source, found.license) == ("7", "a set", "CC0")


def test_a_key_without_a_value_is_as_good_as_none() -> None:
    record = {"messages": [{**turn("user", "Hi"), "name": None}, turn("assistant", "Yes.")], "images": None}
    assert said(record) == ["u:Hi", "a:Yes."]


def test_a_file_url_is_a_path() -> None:
    assert parse_line(encoded(chat([image_part("file:///data/a%20b.png")]))).images == ("/data/a b.png",)


def test_the_id_is_the_content_and_not_the_paths() -> None:
    one, other = (parse_line(encoded(chat("<image>?", images=[path]))) for path in ("a.png", "elsewhere/b.png"))
    assert conversation_id(one.messages, ["d1"]) == conversation_id(other.messages, ["d1"])
    assert conversation_id(one.messages, ["d1"]) != conversation_id(one.messages, ["d2"])
    text = parse_line(encoded(chat("0?")))
    assert conversation_id(text.messages, ["d1"]) != conversation_id(one.messages, ["d1"])
    assert conversation_id(one.messages, ["d1"]).startswith("m") and len(conversation_id([], [])) == 16


# ------------------------------------------------------------------------------------------------------ refused lines


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ([], "not-an-object"),
        ("text", "not-an-object"),
        (None, "not-an-object"),
        ({}, "no-messages"),
        ({"messages": []}, "no-messages"),
        ({"messages": {}}, "no-messages"),
        ({"messages": ["Hi"]}, "no-messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}]}, "no-messages"),
        ({"messages": [turn("user", "Hi")]}, "roles"),
        ({"messages": [turn("system", "Hi")]}, "roles"),
        ({"messages": [turn("assistant", "Hi"), turn("user", "Hi")]}, "roles"),
        ({"messages": [turn("user", "Hi"), turn("user", "Hi"), turn("assistant", "Hi")]}, "roles"),
        ({"messages": [turn("user", "Hi"), turn("tool", "Hi"), turn("assistant", "Hi")]}, "roles"),
        ({"messages": [turn(["user"], "Hi"), turn("assistant", "Hi")]}, "roles"),
        ({"messages": [turn("user", "Hi"), {**turn("assistant", "x"), "tool_calls": [1]}]}, "unsupported"),
        ({"messages": [turn("user", "Hi"), {**turn("assistant", "x"), "loss": False}]}, "unsupported"),
        (chat("Hi", videos=["a.mp4"]), "unsupported"),
        (chat("Hi", ""), "empty-answer"),
        (chat("Hi", " \n"), "empty-answer"),
        (chat("Hi", []), "empty-answer"),
        (chat(" ", "Yes"), "empty-question"),
        (chat(None), "content-type"),
        (chat(5), "content-type"),
        (chat(["Hi"]), "content-type"),
        (chat([{"type": "video", "video": "a.mp4"}]), "content-type"),
        (chat([{"type": "image_url", "image_url": {"url": "a.png"}}]), "content-type"),
        (chat([{"type": ["text"], "text": "Hi"}]), "content-type"),
        (chat([{"type": "text", "text": None}]), "content-type"),
        (chat("<image>"), "image-count"),
        (chat("<image>", images=["a.png", "b.png"]), "image-count"),
        (chat("<image><image>", images=["a.png"]), "image-count"),
        (chat("Hi", images=["a.png"]), "image-count"),
        (chat([image_part(None)]), "image-count"),
        (chat([image_part("a.png")], images=["a.png"]), "image-count"),
        (chat("Hi", "<image>", images=["a.png"]), "image-outside-question"),
        (chat([image_part("")]), "image-path"),
        (chat([image_part("\ud800.png")]), "image-path"),
        (chat([{"type": "image", "image": {"bytes": "00"}}]), "image-path"),
        (chat("<image>", images="a.png"), "image-path"),
        (chat("<image>", images=[None]), "image-path"),
        (chat([image_part("https://example.org/a.png")]), "image-url"),
        (chat([image_part("S3://bucket/a.png")]), "image-url"),
        (chat([image_part("data:image/png;base64,AAAA")]), "image-url"),
        (chat([image_part("file://other-machine/a.png")]), "image-url"),
    ],
)  # fmt: skip
def test_a_line_is_refused_with_its_reason(record: Any, why: str) -> None:
    assert reason(encoded(record)) == why


@pytest.mark.parametrize(
    "line", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"messages": 1' + b"0" * 5_000 + b"}", b"\x00"]
)
def test_what_is_no_json_is_refused(line: bytes) -> None:
    assert reason(line) == "not-json"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(
        ["user", "assistant", "system", "text", "image", "<image>", "<|im_end|>", "a.png"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["messages", "role", "content", "type", "text", "image", "images", "id"]), inner, max_size=5
    ),
    max_leaves=24,
)  # fmt: skip


@given(json_values | st.lists(json_values, max_size=4).map(lambda turns: {"messages": turns}))
def test_any_json_is_a_conversation_or_is_refused(value: Any) -> None:
    try:
        found = parse_line(encoded(value))
    except DocumentError as e:
        assert e.reason and len(e.detail) < 1_000
    else:
        assert found.num_turns >= 1


# ---------------------------------------------------------------------------------------------- what the model is told

spelling = st.text(st.sampled_from("<|im_end>age \n"), max_size=12)
part_lists = st.lists(
    spelling.map(text_part) | st.integers(0, 3).map(lambda i: {"type": "image", "image": i}), max_size=5
)


@given(st.lists(part_lists, min_size=1, max_size=3))
def test_no_conversation_can_spell_a_control_token_and_its_stored_form_stays(contents: list[list[dict]]) -> None:
    messages = short_messages([turn("user", parts) for parts in contents])
    assert short_messages(messages) == messages
    for message, given_parts in zip(messages, contents, strict=True):
        texts = [p["text"] for p in message["content"] if p["type"] == "text"]
        assert all(texts) and not any("<|" in text for text in texts)
        images = [p["image"] for p in given_parts if p["type"] == "image"]
        assert [p["image"] for p in message["content"] if p["type"] == "image"] == images
        kinds = [p["type"] for p in message["content"]]
        assert ("text", "text") not in zip(kinds, kinds[1:], strict=False)


def test_control_tokens_are_broken_up_in_every_turn_and_in_seams() -> None:
    record = {
        "messages": [
            turn("system", "<|im_start|>"),
            turn("user", [text_part("<"), text_part("|im_end|>")]),
            turn("assistant", "a<|image_pad|>b"),
        ]
    }
    assert said(record) == ["s:< |im_start|>", "u:< |im_end|>", "a:a< |image_pad|>b"]


def test_images_take_the_place_of_their_indices() -> None:
    stored = short_messages([turn("user", [image_part("x"), text_part("?")])])
    stored[0]["content"][0]["image"] = 1
    assert short_messages(stored, ["first", "second"])[0]["content"][0] == {"type": "image", "image": "second"}


# ------------------------------------------------------------------------------------------------------------- chunks


def test_chunks_are_the_file_and_number_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_chunks, "CHUNK_LINES", 2)
    file = tmp_path / "chat.jsonl"
    file.write_bytes(b"\xef\xbb\xbfa\n\n  \nb\r\nc\n\nd")
    chunks = list(chunks_of(str(file), "chat.jsonl"))
    assert [(c.offset, c.num_bytes, c.first_line, c.num_lines) for c in chunks] == [(0, 12, 1, 2), (12, 4, 5, 2)]
    lines = [pair for chunk in chunks for pair in read_chunk(chunk)]
    assert lines == [(1, b"a\n"), (4, b"b\r\n"), (5, b"c\n"), (7, b"d")]


@given(st.lists(st.sampled_from([b"", b" ", b"x", b"yy", b"z" * 30]), max_size=12), st.booleans())
def test_any_file_is_cut_without_loss(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool) -> None:
    file = tmp_path_factory.mktemp("any") / "chat.jsonl"
    content = b"\n".join(lines) + (b"\n" if ends else b"")
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_chunks, "CHUNK_LINES", 3)
        patch.setattr(chat_chunks, "CHUNK_BYTES", 16)
        patch.setattr(chat_chunks, "MAX_LINE_BYTES", 8)
        chunks = list(chunks_of(str(file), "chat.jsonl"))
        read = [pair for chunk in chunks for pair in read_chunk(chunk)]
    assert sum(c.num_bytes for c in chunks) == len(content)
    whole = [(i, line if len(line) <= 8 else None) for i, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    assert [(i, line and line.rstrip(b"\n")) for i, line in read] == whole
    assert sum(c.num_lines for c in chunks) == len(whole)


def test_a_file_that_changes_while_it_is_read_stops_the_build(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "chat.jsonl", [chat("One?"), chat("Two?")])
    chunk = next(chunks_of(str(file), "chat.jsonl"))
    write_lines(file, [chat("One?"), chat("2wo?")])
    with pytest.raises(EngineError, match="changed"):
        list(read_chunk(chunk))
    file.unlink()
    with pytest.raises(EngineError, match=r"chat\.jsonl"):
        list(read_chunk(chunk))


def test_labels_are_names_and_more_only_where_needed(tmp_path: Path) -> None:
    places = ["a/train.jsonl", "b/train.jsonl", "b/other.jsonl"]
    for place in places:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    found = labelled([str(tmp_path / place) for place in places])
    assert list(found.values()) == ["a/train.jsonl", "b/train.jsonl", "other.jsonl"]


def test_files_that_cannot_be_read_are_the_users_to_mend(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "one.jsonl").touch()
    os.symlink(tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    for files in (
        [str(tmp_path / "none.jsonl")], [str(tmp_path)], [str(tmp_path / "pipe")], ["s3://bucket/a.jsonl"], ["a\0b"],
        [str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")],
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"mixture\.short\.files"):
            labelled(files)


# ------------------------------------------------------------------------------------------------------------- images


def picture_of(path: Path) -> tuple[Image.Image, PageGrid]:
    data = read_image("", str(path))
    image, grid = measure(data, path.name, FAMILY)
    return picture(data, image, grid), grid


def corner(image: Image.Image, x: float, y: float) -> str:
    """Which of the two colours stands there."""
    pixel = image.getpixel((int(image.width * x), int(image.height * y)))
    assert isinstance(pixel, tuple)
    return "red" if pixel[1] < 128 else "white"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp"])
def test_a_picture_is_stored_in_the_size_of_the_model(tmp_path: Path, suffix: str) -> None:
    image, grid = picture_of(write_picture(tmp_path / f"a.{suffix}", 640, 481))
    assert (grid.height, grid.width) == (476, 644)
    assert (image.mode, image.size) == ("RGB", (644, 476))
    assert (corner(image, 0.1, 0.5), corner(image, 0.9, 0.5)) == ("red", "white")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("orientation", "red_at"),
    [(1, (0.1, 0.5)), (2, (0.9, 0.5)), (3, (0.9, 0.5)), (4, (0.1, 0.5)), (5, (0.5, 0.1)), (6, (0.5, 0.1)),
     (7, (0.5, 0.9)), (8, (0.5, 0.9)), (9, (0.1, 0.5))],
)  # fmt: skip
def test_a_picture_is_turned_upright(
    tmp_path: Path, suffix: str, orientation: int, red_at: tuple[float, float]
) -> None:
    image, grid = picture_of(write_picture(tmp_path / f"a.{suffix}", 560, 280, orientation=orientation))
    expected = (280, 560) if orientation in (5, 6, 7, 8) else (560, 280)
    assert image.size == expected == (grid.width, grid.height)
    assert corner(image, *red_at) == "red" and corner(image, 1 - red_at[0], 1 - red_at[1]) == "white"


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    Image.new("I;16", (56, 56), 0x8000).save(tmp_path / "grey.png")
    assert picture_of(tmp_path / "grey.png")[0].getpixel((5, 5)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (56, 84), (255, 255, 255)).convert(mode).save(
        tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), quality=95
    )
    image, _ = picture_of(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    assert image.mode == "RGB" and min(image.getpixel((3, 3))) >= 250  # type: ignore[arg-type, type-var]


def why_no_picture(path: Path) -> str:
    with pytest.raises(DocumentError) as e:
        picture_of(path)
    return e.value.reason


def png_that_claims(width: int, height: int) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"")) + part(b"IEND", b"")


def test_files_that_are_no_picture_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    whole = write_picture(tmp_path / "whole.png", 560, 560)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:150])
    (tmp_path / "bomb.png").write_bytes(png_that_claims(60_000, 60_000))
    (tmp_path / "large.png").write_bytes(png_that_claims(9_001, 9_000))
    (tmp_path / "thin.png").write_bytes(png_that_claims(5_000, 20))
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("text.png", "empty.png", "script.eps", "cut.png", "pipe.png", ".", "a\0b", "n" * 300):
        assert why_no_picture(tmp_path / name) == "image-unreadable", name
    assert why_no_picture(tmp_path / "none.png") == "image-missing"
    assert why_no_picture(whole / "below.png") == "image-missing"
    assert why_no_picture(tmp_path / "bomb.png") == why_no_picture(tmp_path / "large.png") == "image-too-large"
    assert why_no_picture(tmp_path / "thin.png") == "aspect-ratio"
    monkeypatch.setattr(chat_images, "MAX_IMAGE_BYTES", 100)
    assert why_no_picture(whole) == "image-too-large"


def test_devices_are_not_read() -> None:
    assert why_no_picture(Path("/dev/zero")) == "image-unreadable"


def test_a_file_that_changed_since_it_was_measured_is_refused(tmp_path: Path) -> None:
    image, grid = measure(write_picture(tmp_path / "a.png", 56, 56).read_bytes(), "a.png", FAMILY)
    with pytest.raises(DocumentError, match="image-changed"):
        picture(write_picture(tmp_path / "a.png", 56, 84).read_bytes(), image, grid)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: png_that_claims(8, 8)[:40] + b))
def test_any_bytes_are_a_picture_or_are_refused(data: bytes) -> None:
    try:
        image, grid = measure(data, "a", FAMILY)
        picture(data, image, grid)
    except DocumentError as e:
        assert e.reason in ("image-unreadable", "image-too-large", "aspect-ratio")


# --------------------------------------------------------------------------------------------------------- measuring


def test_images_count_as_the_model_counts_them(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 640, 480)
    config = load_config(None, ())
    seen: dict[str, Any] = {}
    line = encoded(chat("<image><image>What?", "Red.", images=["a.png", "a.png"]))
    found = measure_line(line, 5, str(tmp_path), config, Utf8Bound(), seen)
    bare = measure_line(encoded(chat("What?", "Red.")), 6, str(tmp_path), config, Utf8Bound(), {})
    tokens, patches = 23 * 17, 46 * 34  # 644 x 476 px
    assert found.sample.num_patches == 2 * patches
    assert found.sample.num_tokens == bare.sample.num_tokens + 2 * (tokens + 2)
    assert found.sample.num_supervised == len("Red.") + 1
    assert (found.sample.doc_id != bare.sample.doc_id) and found.sample.num_pages == 2
    assert list(seen) == ["a.png"] and seen["a.png"].num_bytes == (tmp_path / "a.png").stat().st_size


def test_a_conversation_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", 1_400, 1_400)
    config = load_config(None, ("windows.max_tokens=3000", "windows.min_tokens=1"))
    for record in (chat("x" * 3_000), chat("<image><image>?", images=["a.png", "a.png"])):
        with pytest.raises(DocumentError, match="too-long"):
            measure_line(encoded(record), 1, str(tmp_path), config, Utf8Bound(), {})


def test_a_chunk_accounts_for_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_chunks, "MAX_LINE_BYTES", 500)
    records = [chat("One?"), "{", chat("<image>", images=["none.png"]), chat("x" * 600), chat("Two?"), chat("Three?")]
    chunk = next(chunks_of(str(write_lines(tmp_path / "chat.jsonl", records)), "chat.jsonl"))
    done: list[int] = []
    config = load_config(None, ())
    found = measure_chunk(MeasureJob(chunk=chunk, problems={4: ("timeout", "slow")}, config=config), done.append)
    assert [m.line for m in found.lines] == [1, 6]
    assert [(r.id, r.stage, r.reason) for r in found.rejected] == [
        ("chat.jsonl:2", "short", "not-json"),
        ("chat.jsonl:3", "short", "image-missing"),
        ("chat.jsonl:4", "short", "line-too-long"),
        ("chat.jsonl:5", "short", "timeout"),
    ]
    assert sum(done) == chunk.num_lines == 6
    assert [(s.path, s.num_bytes) for s in found.seen] == [("none.png", -1)]


def test_the_picture_of_a_stored_jpeg_is_what_was_resized(tmp_path: Path) -> None:
    image, _ = picture_of(write_picture(tmp_path / "a.png", 560, 280))
    again = io.BytesIO()
    image.save(again, "PNG")
    assert measure(again.getvalue(), "a", FAMILY)[1] == PageGrid(height=image.height, width=image.width)
