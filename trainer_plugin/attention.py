"""Attention over packed rows that several ranks share: Ulysses all-to-all around a variable-length kernel.

Before attention, ranks trade slices of the row for heads: each gets the whole row for some of the query heads and for
the key/value heads that these read; afterwards they trade back (DeepSpeed-Ulysses, arXiv 2309.14509). One collective
carries queries, keys and values, one the result. Any number of heads at least as large as the number of ranks works:
28 heads over 8 ranks are 4, 4, 4, 4, 3, 3, 3, 3, so the slowest rank does 1.14 times the mean. A key/value head that
several ranks read is sent to each. Ring attention would not be bound by heads, but needs a kernel that returns
log-sum-exps and pays per step of the ring.

Documents of a row are kept apart by `cu_seq_lens_q`, the starts of the documents of the *whole* row and its end, which
transformers hands through to the attention function. The stock packed forward sees documents only through masks made
from position ids, and loses them when `use_cache` is on. A call without `cu_seq_lens_q` (generation, a stock batch) is
stock attention.

The kernel is flash-attn where installed, else `torch.nn.attention.varlen` on CUDA, else SDPA, one call for each run of
documents of equal length. The vision tower gets the same kernels under a name that holds "flash": by that its code
decides to hand over all windows of all pages at once instead of looping over them.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from corpus.errors import ConfigError
from trainer_plugin.mesh import Mesh, exchange
from trainer_plugin.models import Undo, qwen_vl_of

TEXT = "longdoc_ulysses_{size}"
VISION = "longdoc_flash_vision"

Range = tuple[int, int]  # heads from, heads up to


def use_attention(model: Any, mesh: Mesh) -> Undo:
    """Choose our attention for the text model and for the vision tower; undoing it restores what was chosen.

    Raises:
        ConfigError: more ranks than query heads, or attention dropout or sliding windows in the model's config.
    """
    core = qwen_vl_of(model)
    text = core.config.text_config
    if mesh.size > text.num_attention_heads:
        raise ConfigError(
            f"sequence_parallel_size = {mesh.size} exceeds the {text.num_attention_heads} attention heads of the "
            "model; use at most that many"
        )
    if text.attention_dropout:
        raise ConfigError(f"attention_dropout = {text.attention_dropout} is not supported; set it to 0 in text_config")
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        raise ConfigError("use_sliding_window = True is not supported; set it to False in text_config")
    name = TEXT.format(size=mesh.size)
    AttentionInterface.register(name, text_attention(mesh))
    AttentionMaskInterface.register(name, sdpa_mask)
    AttentionInterface.register(VISION, vision_attention)
    parts = {"text_config": core.model.language_model.config, "vision_config": core.model.visual.config}
    before = {part: config._attn_implementation for part, config in parts.items()}
    core.set_attn_implementation({"text_config": name, "vision_config": VISION})
    return functools.partial(core.set_attn_implementation, before)


def text_attention(mesh: Mesh) -> Callable[..., tuple[Any, None]]:
    """The attention function of the text model for one place in the row."""

    def attention(
        module: Any,
        query: Any,  # [1, H, T/SP, D]
        key: Any,  # [1, K, T/SP, D]
        value: Any,
        attention_mask: Any,
        scaling: float | None = None,
        dropout: float = 0.0,
        cu_seq_lens_q: Any = None,  # [documents + 1] int32, over T
        max_length_q: int | None = None,  # tokens of the longest document
        **kwargs: Any,
    ) -> tuple[Any, None]:
        if cu_seq_lens_q is None:
            stock: tuple[Any, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
            )
            return stock
        if attention_mask is not None or len(query) != 1:
            raise ValueError("a packed row is a batch of one, without attention_mask and with 3 rows of position_ids")
        # Under autocast, rotation leaves queries and keys in float32 beside values in bfloat16.
        q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
        num_heads = q.shape[1]
        q, k, v = _row_for_heads(q, k, v, mesh)
        longest = max_length_q or int((cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).max())
        out = packed_attention(q, k, v, cu_seq_lens_q, longest, scale=scaling, causal=True)
        return _heads_for_row(out, num_heads, mesh)[None], None

    return attention


def vision_attention(
    module: Any,
    query: Any,  # [1, H, patches, D]
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    cu_seq_lens_q: Any = None,  # [windows + 1] int32
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Any, None]:
    """Attention inside the windows, or whole pages, of a batch of pages; each rank has its own pages."""
    q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    longest = max_length_q or int((cu_seq_lens_q[1:] - cu_seq_lens_q[:-1]).max())
    return packed_attention(q, k, v, cu_seq_lens_q, longest, scale=scaling, causal=False)[None], None


def head_ranges(num_heads: int, num_ranks: int) -> list[Range]:
    """The query heads of each rank: contiguous, as even as possible, larger shares first."""
    share, more = divmod(num_heads, num_ranks)
    stops = list(itertools.accumulate(share + (rank < more) for rank in range(num_ranks)))
    return list(zip([0, *stops], stops, strict=False))


def kv_range(queries: Range, group: int) -> Range:
    """The key/value heads that some query heads read; `group` query heads share one."""
    return queries[0] // group, (queries[1] - 1) // group + 1


def _row_for_heads(q: Any, k: Any, v: Any, mesh: Mesh) -> tuple[Any, Any, Any]:
    """`[T/SP, H, D]`, twice `[T/SP, K, D]` -> `[T, H', D]`, twice `[T, K', D]`: this rank's heads of the whole row.

    K' divides H' and query heads read key/value heads in order: where a rank's share cuts through a group, each
    query head gets a copy of its own.
    """
    group = q.shape[1] // k.shape[1]
    shares = head_ranges(q.shape[1], mesh.size)
    mine, (first, last) = shares[mesh.rank], kv_range(shares[mesh.rank], group)
    if mesh.size > 1:
        sent = []
        for share in shares:
            heads, read = slice(*share), slice(*kv_range(share, group))
            sent.append(torch.cat([q[:, heads], k[:, read], v[:, read]], dim=1).flatten())
        num_q, num_kv = mine[1] - mine[0], last - first
        received = len(q) * (num_q + 2 * num_kv) * q.shape[2]
        flat = exchange(torch.cat(sent), [len(s) for s in sent], [received] * mesh.size, mesh)
        row = flat.view(mesh.size * len(q), num_q + 2 * num_kv, q.shape[2])
        q, k, v = row.split([num_q, num_kv, num_kv], dim=1)
    readers = [head // group for head in range(*mine)]
    counts = [readers.count(head) for head in range(first, last)]
    if len(set(counts)) > 1:
        k, v = _repeated(k, counts), _repeated(v, counts)
    return q, k, v


def _repeated(x: Any, counts: list[int]) -> Any:
    """Each key or value head as often as `counts` says; without an index, which the device would have to wait for."""
    return torch.cat([x[:, i : i + 1].expand(-1, count, -1) for i, count in enumerate(counts)], dim=1)


def _heads_for_row(out: Any, num_heads: int, mesh: Mesh) -> Any:
    """`[T, H', D]` -> `[T/SP, H, D]`: the way back."""
    if mesh.size == 1:
        return out
    tokens, dim = len(out) // mesh.size, out.shape[2]
    sizes = [tokens * (stop - start) * dim for start, stop in head_ranges(num_heads, mesh.size)]
    flat = exchange(out.flatten(), [sizes[mesh.rank]] * mesh.size, sizes, mesh)
    return torch.cat([part.view(tokens, -1, dim) for part in flat.split(sizes)], dim=1)


def packed_attention(q: Any, k: Any, v: Any, cu: Any, longest: int, *, scale: float | None, causal: bool) -> Any:
    """Attention inside each document of a row.

    Args:
        q: `[T, H, D]`. `k`, `v`: `[T, K, D]`, K divides H, each read by H / K query heads in order.
        cu: `[documents + 1]` int32: the start of each document, and T.
        longest: tokens of the longest document.

    Returns:
        `[T, H, D]`
    """
    if q.is_cuda and q.dtype != torch.float32:
        if flash := _flash_attn():
            return flash(q, k, v, cu, cu, longest, longest, softmax_scale=scale, causal=causal)
        return _torch_varlen(q, k, v, cu, longest, scale, causal)
    return _sdpa(q, k, v, cu, scale, causal)


@functools.cache
def _flash_attn() -> Callable[..., Any] | None:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None
    function: Callable[..., Any] = flash_attn_varlen_func
    return function


def _torch_varlen(q: Any, k: Any, v: Any, cu: Any, longest: int, scale: float | None, causal: bool) -> Any:
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"scale": scale, "window_size": (-1, 0) if causal else (-1, -1)}
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in inspect.signature(varlen_attn).parameters:  # torch 2.12
            options["enable_gqa"] = True
        else:
            k, v = _one_each(q, k), _one_each(q, v)
    return varlen_attn(q, k, v, cu, cu, longest, longest, **options)


def _sdpa(q: Any, k: Any, v: Any, cu: Any, scale: float | None, causal: bool) -> Any:
    """One call for each run of documents of equal length, which windows of a page mostly are."""
    k, v = _one_each(q, k), _one_each(q, v)
    lengths = [n for n in (cu[1:] - cu[:-1]).tolist() if n]
    if sum(lengths) != len(q):
        raise ValueError(f"cu_seq_lens_q ends at {sum(lengths)}, but the row has {len(q)} tokens")
    outs, start = [], 0
    for length, run in itertools.groupby(lengths):
        number = len(list(run))
        stop = start + number * length
        # [documents * length, H, D] -> [documents, H, length, D]
        queries, keys, values = (x[start:stop].unflatten(0, (number, length)).transpose(1, 2) for x in (q, k, v))
        out = scaled_dot_product_attention(queries, keys, values, scale=scale, is_causal=causal)
        outs.append(out.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(outs)


def _one_each(q: Any, x: Any) -> Any:
    """A key or value head for each query head."""
    return x if q.shape[1] == x.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)
