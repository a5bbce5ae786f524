"""A small finished run whose plan holds long samples, several turns, two epochs and short data; and its processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chat_data import chat, turn, write_lines, write_picture
from test_build import quick, write_document
from test_packing_lengths import TEMPLATES, processor, write_tokenizer
from transformers import PreTrainedTokenizerFast

from corpus.pipeline import build
from corpus.vision_tokens import FAMILIES

TURNS = [turn("system", "Be brief."), turn("user", "<image>\nWhich colour?"), turn("assistant", "Red."),
         turn("user", "And <image>?"), turn("assistant", "Blue <|im_end|>.")]  # fmt: skip


def build_run(folder: Path, family: str = "qwen2.5-vl", *assignments: str) -> Path:
    """Two documents of three and four pages and two conversations; `folder/tokenizer` counted them."""
    write_tokenizer(folder / "tokenizer")
    (folder / "documents").mkdir()
    for seed in range(2):
        write_document(folder / "documents" / f"{seed}.pdf", seed, pages=3 + seed)
    write_picture(folder / "red.jpg", 640, 480)
    write_picture(folder / "blue.png", 200, 300, color=(0, 0, 200))
    lines = [{"messages": TURNS, "images": ["red.jpg", "blue.png"]}, chat("What is a harbour?", "A place for ships.")]
    write_lines(folder / "short.jsonl", lines)
    config = quick(
        f"model={family}", f"tokenizer={folder / 'tokenizer'}", f"mixture.short.files=[{folder / 'short.jsonl'}]",
        "mixture.short.share=0.5", "mixture.shortage=fill", "mixture.tasks=null", "mixture.questions_per_window=2",
        "mixture.epochs=2", "packing.validation_share=0.5", "packing.rows_per_step=6", "packing.capacity=16000",
        "windows.max_tokens=16000", *assignments,
    )  # fmt: skip
    build([str(folder / "documents")], folder / "run", config, quiet=True)
    return folder / "run"


def tokenizer_of(run: Path) -> Any:
    """The tokenizer that counted the run."""
    return PreTrainedTokenizerFast.from_pretrained(run.parent / "tokenizer")


def processor_of(run: Path, family: str) -> Any:
    """The family's own processor, with that tokenizer."""
    return processor(tokenizer_of(run), FAMILIES[family], TEMPLATES[family])
