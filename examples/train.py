"""Train Qwen2.5-VL or Qwen3-VL on a run.

    accelerate launch --config_file recipes/mmprolong-7b/fsdp2.yaml examples/train.py \\
        --run runs/mmprolong --model Qwen/Qwen2.5-VL-7B-Instruct --sequence_parallel_size 2 --output_dir out ...

    python examples/train.py --run runs/demo --tiny true --output_dir out --use_cpu      (a laptop, a random model)

Every option of `transformers.TrainingArguments` may be given. Left out, these follow the plan: one row a device,
accumulation as the plan's steps need it, one epoch. Training goes on from the last whole checkpoint in output_dir.
"""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _tiny_model import tiny_model
from transformers import AutoModelForImageTextToText, AutoProcessor, HfArgumentParser, Trainer, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from corpus.errors import ConfigError
from trainer_plugin.attach import LongContextPlugin
from trainer_plugin.samples import RunSamples


@dataclass
class Arguments:
    """What is trained on what."""

    run: str = field(metadata={"help": "a finished run: folder or URL"})
    model: str | None = field(default=None, metadata={"help": "folder or hub name of the model"})
    tiny: bool = field(default=False, metadata={"help": "a tiny random model instead, of the run's family"})
    sequence_parallel_size: int = field(default=1, metadata={"help": "processes that share a row"})
    freeze: list[str] = field(default_factory=list, metadata={"help": "of vision, merger, language"})
    rope_base: float | None = field(default=None, metadata={"help": "default: the family's"})
    peak_tflops: float = field(default=989.0, metadata={"help": "of one GPU in bf16, for the utilisation"})


def load(ours: Arguments) -> tuple[Any, Any]:
    """Model and processor. Weights are in float32: what computes in bfloat16 still adds small updates to them."""
    if not ours.tiny:
        if ours.model is None:
            raise ConfigError("name a model with --model, or take a tiny random one with --tiny true")
        model = AutoModelForImageTextToText.from_pretrained(ours.model, dtype=torch.float32)
        return model, AutoProcessor.from_pretrained(ours.model)
    return tiny_model(RunSamples(ours.run).config["model"])


def last_checkpoint(folder: str) -> str | None:
    """The last checkpoint that is whole.

    The Trainer writes file after file into the very folder that its own `get_last_checkpoint` takes by its name alone,
    so what a kill leaves there may be half a checkpoint, and training would end with an error at each new start.
    Process 0 writes trainer_state.json last; the random states of the others, zip files, may still be on the way.
    """
    found = [path for path in Path(folder).glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            continue
        if all(zipfile.is_zipfile(file) for file in path.glob("rng_state*.pth")):
            return str(path)
    return None


def main() -> None:
    """Train, evaluate where there is a validation split, and save model and processor."""
    parser = HfArgumentParser((Arguments, TrainingArguments))
    parser.set_defaults(per_device_train_batch_size=1, num_train_epochs=1, remove_unused_columns=False)
    ours, args = parser.parse_args_into_dataclasses()
    model, processor = load(ours)
    plugin = LongContextPlugin(
        run=ours.run,
        processor=processor,
        sequence_parallel_size=ours.sequence_parallel_size,
        freeze=ours.freeze,
        rope_base=ours.rope_base,
        peak_tflops=ours.peak_tflops,
    )
    args.gradient_accumulation_steps = plugin.dataset().micro_steps_per_step
    validation = plugin.dataset("validation") or None
    if validation is None:
        args.eval_strategy = IntervalStrategy.NO
    saved = processor.tokenizer if ours.tiny else processor  # beside the weights
    trainer = Trainer(model=model, args=args, processing_class=saved, eval_dataset=validation)
    plugin.attach(trainer)
    trainer.train(resume_from_checkpoint=last_checkpoint(args.output_dir))
    if validation is not None:
        trainer.save_metrics("eval", trainer.evaluate())
    if trainer.is_fsdp_enabled:  # in the form of the recipe's checkpoints no weights would be saved
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    try:
        main()
    except ConfigError as e:
        sys.exit(f"error: {e}")
