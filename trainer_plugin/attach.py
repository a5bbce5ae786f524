"""The plugin: everything that a `transformers.Trainer` needs to train on a run's plan, put on in one call.

    plugin = LongContextPlugin(run="runs/mine", processor=processor, sequence_parallel_size=4)
    plugin.attach(trainer)
    trainer.train()

A Trainer stays what it is: loaders are replaced on the instance, the model's parts are replaced as
`trainer_plugin.models` says, a callback is added. `detach()` takes all of it back, but for the RoPE base, to which
the weights now belong. Sharding, accumulation, checkpoints, resuming and logs are the Trainer's own.

The world is sequence-parallel x data-parallel ranks. The Trainer sums the supervised tokens over all of them (each
counts its slice), multiplies the loss by the size of the world, and DDP or FSDP averages gradients over it: that is
the sum over all ranks of summed losses, divided by the tokens of the step. Hence only the conditions under which the
Trainer does this, and a plan that accumulates as many rows as a step has, have to be checked.

The loaders are plain ones, not prepared by accelerate: each rank's dataset holds its own rows, so nothing may be
sharded, padded or broadcast again. Resuming skips indices, not rows.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate.utils import DistributedType, gather_object

from corpus.config import DEFAULT_HARDWARE
from corpus.errors import ConfigError
from corpus.records import ModelPart
from packing.cost import dims_from
from trainer_plugin.attention import use_attention
from trainer_plugin.callback import LongContextCallback, Probe, mean_losses
from trainer_plugin.dataset import RowDataset, collate
from trainer_plugin.loss import use_loss
from trainer_plugin.mesh import Mesh, join
from trainer_plugin.models import family_of, freeze, qwen_vl_of, set_attribute
from trainer_plugin.rope import extend_rope
from trainer_plugin.vision import share_vision

Split = Literal["train", "validation"]

# Settings of `TrainingArguments` (`packing` is one of TRL's) that must have one value, and why.
SETTINGS: dict[str, tuple[Any, str]] = {
    "per_device_train_batch_size": (1, "a row is a batch"),
    "average_tokens_across_devices": (True, "the mean is over the tokens of all rows of a step"),
    "packing": (False, "the plan has packed the samples"),
    "ignore_data_skip": (False, "resuming would repeat rows"),
    "dataloader_in_order": (True, "the plan is an order"),
    "auto_find_batch_size": (False, "a batch is one row"),
    "torch_compile": (False, "rows of ever new lengths would be compiled anew"),
    "use_liger_kernel": (False, "the plugin computes the loss"),
    "label_smoothing_factor": (0, "the plugin computes the loss"),
}


@dataclass(eq=False, kw_only=True)
class LongContextPlugin:
    """Trains Qwen2.5-VL or Qwen3-VL on the plan of a run, several ranks a row. Making one opens nothing yet."""

    run: str | Path  # a finished run, by path or URL
    processor: Any  # of the model; its tokenizer and chat template must be those of the plan
    sequence_parallel_size: int = 1  # ranks that share a row
    freeze: Sequence[ModelPart] = ()  # parts that are not trained: "vision", "merger", "language"
    rope_base: float | None = None  # None = the family's (4e6 for Qwen2.5-VL), or the model's if higher
    force_rope: bool = False  # set `rope_base` even if it is below the model's
    peak_tflops: float = DEFAULT_HARDWARE.peak_tflops  # of one device in the type it computes in, for the utilisation
    _datasets: dict[Split, RowDataset] = field(default_factory=dict, init=False)
    _undo: contextlib.ExitStack | None = field(default=None, init=False)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The place of this process, once the process group exists, which `TrainingArguments` makes.

        Raises:
            ConfigError: one of several processes that were not connected, or a size that does not divide their number.
        """
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched > 1 and not dist.is_initialized():
            raise ConfigError(
                f"{launched} processes were launched, but this one is alone: make the TrainingArguments first, "
                "or unset WORLD_SIZE to train in one process"
            )
        return join(self.sequence_parallel_size)

    def dataset(self, split: Split = "train") -> RowDataset:
        """The rows of this process: "train" or "validation". For `eval_dataset`, where the Trainer demands one.

        Raises:
            ConfigError: no finished run, or a plan that is not for this processor or this number of processes.
        """
        if split not in self._datasets:
            self._datasets[split] = RowDataset(self.run, self.processor, mesh=self.mesh, split=split)
        return self._datasets[split]

    def attach(self, trainer: Any) -> None:
        """Let the trainer train on the plan. Call it before the first `train()` or `evaluate()`.

        Raises:
            ConfigError: settings that would train something else than the plan; the message names the right value.
        """
        if self._undo is not None:
            raise ConfigError("the plugin is attached already; detach() it first")
        core = qwen_vl_of(trainer.model)
        check_trainer(trainer, self.mesh)
        train, validation = self.dataset(), self.dataset("validation")
        check_plan(trainer.args, core, train)
        own = replace(family_of(core), patch=core.config.vision_config.patch_size)
        dims = replace(dims_from(core.config.to_dict(), own), frozen=tuple(self.freeze))
        images = self.processor.image_processor
        with contextlib.ExitStack() as stack:
            probe = Probe(trainer.model, self.mesh)
            stack.callback(freeze(trainer.model, self.freeze))
            stack.callback(use_attention(trainer.model, self.mesh))
            stack.callback(share_vision(trainer.model, self.mesh, images.image_mean, images.image_std))
            stack.callback(use_loss(trainer.model, probe.observe))
            stack.callback(probe.attach())
            callback = LongContextCallback(
                probe, train, self.mesh, dims, every_row=trainer.is_fsdp_enabled, peak_tflops=self.peak_tflops
            )
            trainer.add_callback(callback)
            stack.callback(trainer.remove_callback, callback)
            for attribute, value in _replacements(trainer, callback, train, validation).items():
                stack.callback(set_attribute(trainer, attribute, value))
            extend_rope(
                trainer.model,
                max_positions=train.plan_report["capacity"],
                base=self.rope_base,
                force=self.force_rope,
            )
            self._undo = stack.pop_all()

    def detach(self) -> None:
        """Make trainer and model what they were, but for the RoPE base."""
        if self._undo is not None:
            self._undo.close()
            self._undo = None


def check_trainer(trainer: Any, mesh: Mesh) -> None:
    """Refuse what would train something else than the plan, or end in a hang.

    Raises:
        ConfigError: names the setting and the right value.
    """
    args = trainer.args
    for name, (right, reason) in SETTINGS.items():
        if getattr(args, name, right) != right:
            raise ConfigError(_should(args, name, right, reason))
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    sharding = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    asked_to_shard = bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    taking_part = mesh.size * mesh.data_size
    refused = (
        (
            taking_part != args.world_size,
            f"{taking_part} of {args.world_size} processes take part; attach in all of them",
        ),
        (args.n_gpu > 1, f"one process sees {args.n_gpu} GPUs; launch one for each with torchrun or accelerate"),
        (
            trainer.model_wrapped is not trainer.model,
            "the model is wrapped already; attach before train() or evaluate()",
        ),
        (trainer.model_init is not None, "model_init makes another model at each train(); pass model"),
        (
            args.train_sampling_strategy not in ("random", "sequential"),
            _should(args, "train_sampling_strategy", "sequential", "the plan has grouped the rows"),
        ),
        (
            bool(args.accelerator_config.dispatch_batches) or args.accelerator_config.split_batches,
            "accelerator_config: dispatch_batches and split_batches have no place here, each rank reads its own rows; "
            "leave them out",
        ),
        (trainer.compute_loss_func is not None, "compute_loss_func cannot be used: the plugin computes the loss"),
        (
            trainer.compute_metrics is not None or trainer.preprocess_logits_for_metrics is not None,
            "compute_metrics and preprocess_logits_for_metrics need logits, which exist only in pieces and on several "
            "ranks; leave them out, and compute metrics on generated text from a checkpoint",
        ),
        (trainer.is_deepspeed_enabled, "DeepSpeed is not supported; shard with FSDP2 (recipes/mmprolong-7b)"),
        (
            sharding is not None and sharding.fsdp_version != 2,
            "FSDP1 is not supported; set fsdp_version: 2 in accelerate's config",
        ),
        (
            asked_to_shard and args.world_size > 1 and trainer.accelerator.distributed_type != DistributedType.FSDP,
            "FSDP is configured, but accelerate leaves it out on this device, and every process would train alone; "
            "train on GPUs, or without FSDP",
        ),
        (
            parallel is not None and max(parallel.tp_size, parallel.cp_size, parallel.sp_size) > 1,
            "parallelism_config: leave out tp_size, cp_size and sp_size; the plugin's sequence_parallel_size takes "
            "their place",
        ),
    )
    for wrong, message in refused:
        if wrong:
            raise ConfigError(message)


def check_plan(args: Any, core: Any, dataset: RowDataset) -> None:
    """Hold settings and model against the plan.

    Raises:
        ConfigError: a model of another family or vocabulary, another number of rows in a step, or more steps than the
            plan has.
    """
    if dataset.family.name != (name := family_of(core).name):
        raise ConfigError(f"the run was built for {dataset.family.name}, this is {name}; build it with `model: {name}`")
    if dataset.image_token_id != core.config.image_token_id:
        raise ConfigError(
            f"the processor's image token is {dataset.image_token_id}, the model's {core.config.image_token_id}; "
            "pass the processor of this model"
        )
    if args.gradient_accumulation_steps != dataset.micro_steps_per_step:
        ranks = dataset.rows_per_step // dataset.micro_steps_per_step
        reason = f"{dataset.rows_per_step} rows a step on {ranks} data-parallel ranks"
        raise ConfigError(_should(args, "gradient_accumulation_steps", dataset.micro_steps_per_step, reason))
    again = f"the plan has {dataset.num_steps} steps, and mixture.epochs plans more, packed anew"
    if args.max_steps > dataset.num_steps:
        raise ConfigError(_should(args, "max_steps", f"at most {dataset.num_steps}", again))
    if args.max_steps <= 0 and args.num_train_epochs > 1:
        raise ConfigError(_should(args, "num_train_epochs", 1, again))


def _should(args: Any, name: str, value: Any, reason: str) -> str:
    return f"{name} = {getattr(args, name, None)!r}, but {reason}; set it to {value}"


def _replacements(
    trainer: Any, callback: LongContextCallback, train: RowDataset, validation: RowDataset
) -> dict[str, Any]:
    """Attributes of the trainer, by name, which are replaced while the plugin is attached."""
    args, probe = trainer.args, callback.probe
    stock = {
        name: getattr(trainer, name)
        for name in (
            "get_eval_dataloader",
            "get_batch_samples",
            "compute_loss",
            "evaluation_loop",
            "log",
            "_load_from_checkpoint",
        )
    }

    def loader(dataset: RowDataset) -> Any:
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=1,
            collate_fn=collate,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=getattr(args, "dataloader_multiprocessing_context", None),
        )

    def get_train_dataloader() -> Any:
        return loader(train)

    def get_eval_dataloader(eval_dataset: Any = None) -> Any:
        chosen = trainer.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(chosen, str):
            chosen = trainer.eval_dataset[chosen]
        return loader(chosen) if isinstance(chosen, RowDataset) else stock["get_eval_dataloader"](eval_dataset)

    def get_batch_samples(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        batches, count = stock["get_batch_samples"](*arguments, **options)
        first = trainer.state.global_step * train.micro_steps_per_step
        callback.add_batches(first, batches, time.perf_counter() - start)
        return batches, count

    def compute_loss(model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        # A division made it a float, which mixed precision would round.
        count: Any = options.get("num_items_in_batch")
        if torch.is_tensor(count):
            options["num_items_in_batch"] = count.round().long()
        return stock["compute_loss"](model, inputs, *arguments, **options)

    def evaluation_loop(
        dataloader: Any, description: str, prediction_loss_only: bool | None = None, *arguments: Any, **options: Any
    ) -> Any:
        dataset = dataloader.dataset
        if not isinstance(dataset, RowDataset):
            return stock["evaluation_loop"](dataloader, description, prediction_loss_only, *arguments, **options)
        if not (args.prediction_loss_only if prediction_loss_only is None else prediction_loss_only):
            raise ConfigError("logits exist only in pieces and on several ranks: set prediction_loss_only=True")
        with probe.aside() as seen:
            output = stock["evaluation_loop"](dataloader, description, True, *arguments, **options)
        losses = mean_losses(gather_object(seen.by_sample(dataset.tasks(i) for i in range(len(dataset)))))
        prefix = options.get("metric_key_prefix", "eval")
        output.metrics.update({f"{prefix}_{name}": loss for name, loss in losses.items()})  # stock: a mean of means
        return output

    def load_from_checkpoint(checkpoint: str, model: Any = None) -> None:
        # Weights are saved under the names of the hub, and the Trainer's own loader (5.23) skips those it does not
        # know: Qwen2.5-VL would go on from the weights of the start.
        if trainer.model is not probe.core or trainer.is_fsdp_enabled:
            stock["_load_from_checkpoint"](checkpoint, model)
        else:
            saved = type(probe.core).from_pretrained(checkpoint, dtype=probe.core.dtype)
            probe.core.load_state_dict(saved.state_dict())

    def log(logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        if "loss" in logs:
            logs |= callback.take_logs()
        stock["log"](logs, *arguments, **options)

    return {
        "get_train_dataloader": get_train_dataloader,
        "get_eval_dataloader": get_eval_dataloader,
        "get_batch_samples": get_batch_samples,
        "compute_loss": compute_loss,
        "evaluation_loop": evaluation_loop,
        "log": log,
        "_load_from_checkpoint": load_from_checkpoint,
        "train_dataset": train,
        "eval_dataset": validation if trainer.eval_dataset is None and len(validation) else trainer.eval_dataset,
        "model_accepts_loss_kwargs": True,
    }
