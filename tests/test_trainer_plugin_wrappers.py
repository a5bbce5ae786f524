"""DDP and FSDP2 around the model, as torch provides them: ranks that have no page or no label keep up with the others.

Every process enters every wrapped module as often as every other, or this would hang; gradients are those of one
process. FSDP2 is applied as accelerate does it (each layer, then the rest), and with a unit of its own for the head,
which each rank calls once however many pieces its loss takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from distributed import Processes
from test_trainer_plugin_parity import CLOSE, FAMILIES, ROWS, labels_in, mesh_of, prepare, reference
from tiny_models import tiny_batch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer_plugin.mesh import place
from trainer_plugin.models import freeze

HEADS = (7, 1)


@pytest.fixture(scope="module")
def four() -> Iterator[Processes]:
    with Processes(4) as processes:
        yield processes


def wrap(model: Any, how: str, **options: Any) -> Any:
    if how == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            fully_shard(module, mesh=mesh, **options)
    if how == "fsdp2-head":
        fully_shard(model.lm_head, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def wrapped_step(family: str, size: int, how: str, frozen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Gradients of ROWS, as the Trainer would have them: losses times the world, gradients averaged."""
    mesh = mesh_of(size)
    core, _ = prepare(family, HEADS, mesh)
    core.gradient_checkpointing_enable()
    freeze(core, frozen)
    model = wrap(core, how)
    assert isinstance(next(core.parameters()), DTensor) == (how != "ddp")
    for row in ROWS[mesh.data_rank :: mesh.data_size]:
        out = model(**tiny_batch(row, family, mesh), num_items_in_batch=torch.tensor(labels_in(ROWS)))
        (out.loss * torch.distributed.get_world_size()).backward()
    gradients = {name: p.grad for name, p in core.named_parameters() if p.requires_grad}
    return {name: (g.full_tensor() if isinstance(g, DTensor) else g).numpy() for name, g in gradients.items()}


def half_precision_step(family: str) -> tuple[Any, ...]:
    """Loss as returned and as observed, and gradients, under the mixed precision that accelerate sets up for FSDP2."""
    mesh = mesh_of(2)
    seen: list[Any] = []
    core, _ = prepare(family, HEADS, mesh, observe=lambda _, losses: seen.append(losses.sum()))
    half = torch.bfloat16
    model = wrap(core, "fsdp2", mp_policy=MixedPrecisionPolicy(param_dtype=half, reduce_dtype=half, output_dtype=half))
    out = model(**tiny_batch(ROWS[0], family, mesh), num_items_in_batch=torch.tensor(labels_in(ROWS[:1])))
    (out.loss * torch.distributed.get_world_size()).backward()
    gradient = torch.cat([p.grad.full_tensor().flatten() for p in core.parameters()])
    return out.loss.dtype, seen[0].item(), gradient.numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_passes_every_kernel(four: Processes, family: str) -> None:
    model, _ = prepare(family, HEADS, place(0, 1, 1))
    loss = model(**tiny_batch(ROWS[0], family)).loss
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()]).numpy()
    results = four.run(half_precision_step, family)
    assert {dtype for dtype, _, _ in results} == {torch.bfloat16}
    # Two data-parallel ranks have the same row.
    assert sum(seen for _, seen, _ in results) / 2 / labels_in(ROWS[:1]) == pytest.approx(loss.item(), rel=0.02)
    gradient = results[0][2] / 2
    assert np.dot(gradient, expected) / np.linalg.norm(gradient) / np.linalg.norm(expected) > 0.97  # half the digits


@pytest.mark.parametrize(("size", "how"), [(2, "ddp"), (4, "ddp"), (2, "fsdp2"), (4, "fsdp2"), (2, "fsdp2-head")])
@pytest.mark.parametrize("family", FAMILIES)
def test_wrapped_processes_compute_what_one_computes(four: Processes, family: str, size: int, how: str) -> None:
    expected = reference(family, HEADS)
    for result in four.run(wrapped_step, family, size, how):
        for name, gradient in result.items():
            np.testing.assert_allclose(gradient, expected[name], atol=CLOSE, rtol=0, err_msg=name)
        assert set(result) == set(expected) - {"logits", "place", "loss"}


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("frozen", "left"), [(("vision", "merger"), "visual"), (("language",), "language")])
def test_frozen_parts_keep_nobody_waiting(four: Processes, frozen: tuple[str, ...], left: str, how: str) -> None:
    expected = reference("qwen3-vl", HEADS)
    for result in four.run(wrapped_step, "qwen3-vl", 2, how, frozen):
        assert result and not any(left in name for name in result)
        for name, gradient in result.items():
            np.testing.assert_allclose(gradient, expected[name], atol=CLOSE, rtol=0, err_msg=name)
