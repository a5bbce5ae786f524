"""Train Qwen2.5-VL or Qwen3-VL on a run.

    accelerate launch --config_file recipes/mmprolong-7b/fsdp2.yaml examples/train.py \\
        --run runs/mmprolong --model Qwen/Qwen2.5-VL-7B-Instruct --sequence_parallel_size 2 --output_dir out ...

    python examples/train.py --run runs/demo --tiny true --output_dir out --use_cpu      (a laptop, a random model)

Every option of `transformers.TrainingArguments` may be given. Left out, these follow the plan: one row a device,
accumulation as the plan's steps need it, one epoch. Training goes on from the last checkpoint in output_dir.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from _tiny_model import tiny_model
from transformers import AutoModelForImageTextToText, AutoProcessor, HfArgumentParser, Trainer, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, get_last_checkpoint

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
    trainer.train(
        resume_from_checkpoint=get_last_checkpoint(args.output_dir) if os.path.isdir(args.output_dir) else None
    )
    if validation is not None:
        trainer.save_metrics("eval", trainer.evaluate())
    trainer.save_model()
    trainer.save_state()


if __name__ == "__main__":
    try:
        main()
    except ConfigError as e:
        sys.exit(f"error: {e}")
