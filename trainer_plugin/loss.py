"""The loss of a row: logits only where a label is, some at a time, averaged over the tokens of the global batch.

Labels are shifted before the row is cut, because a slice does not hold the label of its last token. Logits of a whole
row of 131,072 tokens would take 74 GiB in float32; of supervised tokens, 1,024 at a time and recomputed in the backward
pass, they take 0.6. All this happens inside one call of the head, however many pieces it takes: FSDP gathers and
releases parameters around calls, and ranks with different numbers of pieces would wait for each other for ever.

The mean is over the supervised tokens of all rows of an optimizer step, whose number the Trainer counts and hands in.
Every rank divides its own sum by it, so that gradients add up to those of one process; a mean of means would weigh a
row with two answers as much as one with two hundred. Under mixed precision FSDP2 rounds every floating-point argument
of the model, so the number must be an integer, and the loss that the model returns; `observe` sees it before that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from trainer_plugin.models import Forward, Undo, qwen_vl_of, replace_forward

IGNORED = -100
CHUNK_TOKENS = 1024

Observe = Callable[[Any, Any], None]


def shifted(labels: Any, cu_seq_lens: Any) -> Any:
    """`[T]` labels of tokens -> `[T]` labels of the tokens before them; the last token of a document has none."""
    moved = torch.cat([labels[1:], labels.new_full((1,), IGNORED)])
    moved[cu_seq_lens[1:].long() - 1] = IGNORED
    return moved


def use_loss(model: Any, observe: Observe | None = None, chunk_tokens: int = CHUNK_TOKENS) -> Undo:
    """Let the model compute the loss of batches that carry `shift_labels`; other batches pass as before.

    `num_items_in_batch` is the number of supervised tokens of the global batch; without it, the mean is over this call.
    Logits are not returned.

    Args:
        observe: called in each such forward with places in the slice `[S]` and losses there `[S]`, without a gradient.
        chunk_tokens: supervised tokens whose logits exist at once.
    """
    core = qwen_vl_of(model)

    def with_loss(
        self: Any,
        stock: Forward,
        *args: Any,
        shift_labels: Any = None,
        labels: Any = None,
        num_items_in_batch: Any = None,
        **kwargs: Any,
    ) -> Any:
        if shift_labels is None:
            return stock(*args, labels=labels, num_items_in_batch=num_items_in_batch, **kwargs)
        if kwargs.get("cu_seq_lens_q") is None:
            raise ValueError("a batch with shift_labels needs cu_seq_lens_q, or its documents would see each other")
        hidden = self.model(*args, **kwargs)[0]  # [1, T/SP, h]
        places = (shift_labels[0] != IGNORED).nonzero()[:, 0]
        losses = self.lm_head(hidden[0].index_select(0, places), targets=shift_labels[0, places])
        if observe is not None:
            observe(places, losses.detach())
        tokens: Any = max(1, len(places)) if num_items_in_batch is None else num_items_in_batch
        if torch.is_tensor(tokens) and tokens.dtype in (torch.bfloat16, torch.float16):
            raise ValueError(f"num_items_in_batch arrived as {tokens.dtype}, so rounded; hand it in as an integer")
        return CausalLMOutputWithPast(loss=losses.sum() / tokens)

    def in_pieces(self: Any, stock: Forward, hidden: Any, *args: Any, targets: Any = None, **kwargs: Any) -> Any:
        """`[S, h]` hidden states and `[S]` targets -> `[S]` losses; S may be 0."""
        if targets is None:
            return stock(hidden, *args, **kwargs)

        def piece(states: Any, wanted: Any) -> Any:
            return cross_entropy(stock(states).float(), wanted, reduction="none")

        pieces = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
        return torch.cat([checkpoint(piece, h, t, use_reentrant=False) for h, t in pieces])

    undo_head = replace_forward(core.lm_head, in_pieces)
    undo_model = replace_forward(core, with_loss)

    def undo() -> None:
        undo_model()
        undo_head()

    return undo
