"""Our count of a conversation beside the published chat templates, as the package `trl` carries them.

    python benchmarks/check_lengths.py SITE-PACKAGES/trl/chat_templates [--conversations 300]

The templates of the models are not ours to ship, so tests spell their behaviour out; this reads the real ones. Each
random conversation (turns, page sizes, texts with control tokens, combining marks and letters that NFC splits, empty
answers) goes through the family's own processor, and tokens, patches and supervised tokens must be equal.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import random
import sys
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fakes import question
from test_packing_lengths import agrees_with_processor, write_tokenizer

from corpus.vision_tokens import FAMILIES
from packing.lengths import HfTokenizer

TEMPLATES = {"qwen2.5-vl": "qwen2_5_vl.jinja", "qwen3-vl": "qwen3_vl.jinja"}
LETTERS = "<|im_end|>Page 12\n .,'\u00e9\u0958\ufb2a\u00a0abcXYZ\u0301\u6578"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("templates", type=Path)
    parser.add_argument("--conversations", type=int, default=300, help="of each family")
    chosen = parser.parse_args()
    draw = random.Random(0)

    def text(*lengths: int) -> str:
        return "".join(draw.choices(LETTERS, k=draw.choice(lengths)))

    with tempfile.TemporaryDirectory() as folder:
        name = write_tokenizer(Path(folder))
        counter, tokenizer = HfTokenizer(name), PreTrainedTokenizerFast.from_pretrained(name)
        for family, file in TEMPLATES.items():
            template = (chosen.templates / file).read_text(encoding="utf-8")
            for _ in range(chosen.conversations):
                asked = [question(question=text(0, 9, 30), answer=text(0, 5, 20)) for _ in range(draw.randint(1, 4))]
                sizes = [(draw.randint(20, 600), draw.randint(20, 600)) for _ in range(draw.randint(1, 3))]
                agrees_with_processor(
                    tokenizer,
                    counter,
                    FAMILIES[family],
                    template,
                    sizes,
                    asked,
                    draw.randint(0, 2_000),
                    draw.random() < 0.5,
                )
            print(f"{family}: {chosen.conversations} of {chosen.conversations} conversations agree with {file}")
    print(f"transformers {importlib.metadata.version('transformers')}")


if __name__ == "__main__":
    main()
