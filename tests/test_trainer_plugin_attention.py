"""Attention of packed rows: each document by itself, heads in any number, kernels called as they want to be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import accumulate
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from distributed import Processes
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import TINY, tiny_batch, tiny_document, tiny_model
from torch.nn.functional import scaled_dot_product_attention

from corpus.errors import ConfigError
from trainer_plugin import attention
from trainer_plugin.attention import head_ranges, kv_range, packed_attention, text_attention, use_attention
from trainer_plugin.mesh import Mesh, join, place

ONE = place(0, 1, 1)
LENGTHS = (5, 5, 1, 9, 12)  # 32 tokens


@pytest.fixture(scope="module")
def eight() -> Iterator[Processes]:
    with Processes(8) as processes:
        yield processes


@given(st.integers(1, 128), st.integers(1, 128))
def test_heads_are_shared_evenly(num_heads: int, num_ranks: int) -> None:
    ranges = head_ranges(num_heads, num_ranks)
    assert [h for r in ranges for h in range(*r)] == list(range(num_heads))
    sizes = [stop - start for start, stop in ranges]
    assert len(sizes) == num_ranks and max(sizes) - min(sizes) <= 1


def test_a_rank_reads_the_key_value_heads_of_its_queries() -> None:
    assert head_ranges(28, 8) == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 19), (19, 22), (22, 25), (25, 28)]
    reads = [kv_range(r, 7) for r in head_ranges(28, 8)]
    assert reads == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 4)]


def tensors(heads: int, kv_heads: int, tokens: int = 32) -> list[Any]:
    generator = torch.Generator().manual_seed(heads)
    shapes = [(tokens, heads, 8), (tokens, kv_heads, 8), (tokens, kv_heads, 8)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def borders(lengths: tuple[int, ...] = LENGTHS) -> Any:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def by_mask(q: Any, k: Any, v: Any, causal: bool, scale: float) -> Any:
    """The definition: one matrix for the whole row, in which other documents are masked."""
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    seen = document[:, None] == document[None, :]
    if causal:
        seen &= torch.ones_like(seen).tril()
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_documents_attend_within_themselves(kv_heads: int, causal: bool) -> None:
    q, k, v = tensors(6, kv_heads)
    out = packed_attention(q, k, v, borders(), 12, scale=0.3, causal=causal)
    torch.testing.assert_close(out, by_mask(q, k, v, causal, 0.3))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="cu_seq_lens_q ends at 32, but the row has 31 tokens"):
        packed_attention(*tensors(2, 2, 31), borders(), 12, scale=1.0, causal=True)


def shared(heads: int, kv_heads: int, size: int) -> tuple[Any, ...]:
    """Output, and gradients of this rank's slice, of one attention call."""
    mesh = join(size)
    whole = tensors(heads, kv_heads)
    part = mesh.part(32)
    q, k, v = (x.detach()[part].transpose(0, 1)[None].requires_grad_() for x in whole)
    out, _ = text_attention(mesh)(None, q, k, v, None, scaling=0.3, cu_seq_lens_q=borders(), max_length_q=12)
    (out * weights(heads)[part]).sum().backward()
    gradients = [x.grad[0].transpose(0, 1) for x in (q, k, v)]
    return mesh.data_rank, *(x.detach().numpy() for x in (out[0], *gradients))


def weights(heads: int) -> Any:
    return torch.arange(32 * heads * 8, dtype=torch.float32).view(32, heads, 8).sin()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "size"),
    [(28, 4, 8), (8, 8, 8), (8, 1, 8), (7, 1, 4), (7, 1, 2), (7, 7, 4), (14, 2, 4), (16, 4, 4), (6, 3, 2)],
)
def test_ranks_together_compute_what_one_computes(eight: Processes, heads: int, kv_heads: int, size: int) -> None:
    q, k, v = tensors(heads, kv_heads)
    expected = by_mask(q, k, v, True, 0.3)
    (expected * weights(heads)).sum().backward()
    results = eight.run(shared, heads, kv_heads, size)
    for data_rank in range(8 // size):
        group = [r for r in results if r[0] == data_rank]
        for i, whole in enumerate((expected.detach(), q.grad, k.grad, v.grad), start=1):
            got = torch.cat([torch.from_numpy(r[i]) for r in group])
            torch.testing.assert_close(got, whole, atol=1e-5, rtol=0)


@pytest.fixture
def varlen(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[dict[str, Any]]]:
    """Puts a stand-in for torch's kernel, which runs on CUDA alone; it checks what the kernel would check."""
    calls: list[dict[str, Any]] = []

    def run(q: Any, k: Any, v: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, **options: Any) -> Any:
        assert cu_q is cu_k and cu_q.dtype == torch.int32 and max_q == max_k == 12
        assert q.shape[1] == k.shape[1] or options.get("enable_gqa")
        calls.append(options)
        return by_mask(q, k, v, options["window_size"] == (-1, 0), options["scale"])

    def newer(q, k, v, a, b, c, d, *, scale=None, window_size=(-1, -1), enable_gqa=False) -> Any:  # type: ignore[no-untyped-def]
        return run(q, k, v, a, b, c, d, scale=scale, window_size=window_size, enable_gqa=enable_gqa)

    def older(q, k, v, a, b, c, d, *, scale=None, window_size=(-1, -1)) -> Any:  # type: ignore[no-untyped-def]
        return run(q, k, v, a, b, c, d, scale=scale, window_size=window_size)

    def install(new: bool) -> list[dict[str, Any]]:
        module = ModuleType("torch.nn.attention.varlen")
        module.varlen_attn = newer if new else older  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
        return calls

    return install


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(("causal", "window"), [(True, (-1, 0)), (False, (-1, -1))])
@pytest.mark.parametrize("kv_heads", [2, 6])
def test_torchs_kernel_is_called_as_its_version_wants(
    varlen: Callable[[bool], list[dict[str, Any]]], kv_heads: int, causal: bool, window: tuple[int, int], new: bool
) -> None:
    calls = varlen(new)
    q, k, v = tensors(6, kv_heads)
    out = attention._torch_varlen(q, k, v, borders(), 12, 0.3, causal)
    torch.testing.assert_close(out, by_mask(q, k, v, causal, 0.3))
    assert [call["window_size"] for call in calls] == [window]
    assert calls[0].get("enable_gqa", False) == (new and kv_heads == 2)


def test_flash_attention_is_taken_where_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(flash_attn_varlen_func=lambda *_, **__: "flash")
    monkeypatch.setitem(sys.modules, "flash_attn", module)  # type: ignore[arg-type]
    attention._flash_attn.cache_clear()
    q = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16)
    assert packed_attention(q, q, q, None, 1, scale=1.0, causal=True) == "flash"
    attention._flash_attn.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_kernels_of_cuda_agree_with_the_definition(kv_heads: int, causal: bool) -> None:
    exact = [x.detach().bfloat16().float().requires_grad_() for x in tensors(6, kv_heads)]
    half = [x.detach().cuda().bfloat16().requires_grad_() for x in exact]
    expected = by_mask(*exact, causal, 0.3)
    out = packed_attention(*half, borders().cuda(), 12, scale=0.3, causal=causal)
    torch.testing.assert_close(out.float().cpu(), expected, atol=0.03, rtol=0.03)
    (expected * weights(6)).sum().backward()
    (out * weights(6).cuda()).sum().backward()
    for x, y in zip(exact, half, strict=True):
        torch.testing.assert_close(y.grad.float().cpu(), x.grad, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("family", sorted(TINY))
def test_a_row_needs_no_mask_and_pages_no_loop(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family)
    use_attention(model, ONE)
    batches = []

    def counted(q: Any, *args: Any, **kwargs: Any) -> Any:
        batches.append(len(q))
        return scaled_dot_product_attention(q, *args, **kwargs)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    grid = (8, 8)  # 4 windows of 4 x 4 patches in the layers of Qwen2.5-VL that have windows
    model.model.get_image_features(torch.randn(64, 24), torch.tensor([(1, *grid)]))
    assert batches == ([4, 1, 4] if family == "qwen2.5-vl" else [1, 1, 1])
    batches.clear()
    row = [tiny_document(i, [9]) for i in range(3)]
    batch = tiny_batch(row, family)
    model(**{k: batch[k] for k in ("input_ids", "position_ids", "cu_seq_lens_q", "use_cache")})
    assert batches == [3] * 3  # and a mask would have been refused


@pytest.mark.parametrize("family", sorted(TINY))
def test_other_batches_and_generation_stay_stock(family: str) -> None:
    model = tiny_model(family).eval()
    ids = tiny_document(1, [20]).input_ids[None].repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    before = model(input_ids=ids, attention_mask=mask).logits, model.generate(input_ids=ids[:1], max_new_tokens=5)
    undo = use_attention(model, ONE)
    text, vision = model.config.text_config, model.config.vision_config
    assert text._attn_implementation == "longdoc_ulysses_1" and vision._attn_implementation == "longdoc_flash_vision"
    after = model(input_ids=ids, attention_mask=mask).logits, model.generate(input_ids=ids[:1], max_new_tokens=5)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    undo()
    assert text._attn_implementation == vision._attn_implementation == "sdpa"


def test_queries_under_autocast_take_the_type_of_values() -> None:
    q, k, v = (x.transpose(0, 1)[None] for x in tensors(2, 2))
    out, _ = text_attention(ONE)(None, q, k, v.bfloat16(), None, scaling=1.0, cu_seq_lens_q=borders())
    assert out.dtype == torch.bfloat16 and out.shape == (1, 32, 2, 8)


def test_a_batch_that_would_be_misread_is_refused() -> None:
    q, k, v = (x.transpose(0, 1)[None] for x in tensors(2, 2))
    with pytest.raises(ValueError, match="a packed row is a batch of one, without attention_mask"):
        text_attention(ONE)(None, q, k, v, torch.ones(1), cu_seq_lens_q=borders())
    two = [x.repeat(2, 1, 1, 1) for x in (q, k, v)]
    with pytest.raises(ValueError, match="a packed row is a batch of one"):
        text_attention(ONE)(None, *two, None, cu_seq_lens_q=borders())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("attention_dropout", 0.1, "attention_dropout = 0.1 is not supported; set it to 0"),
        ("layer_types", ["sliding_attention"] * 3, "use_sliding_window = True is not supported"),
    ],
)
def test_settings_that_the_kernels_lack_are_refused(name: str, value: Any, message: str) -> None:
    model = tiny_model("qwen2.5-vl")
    setattr(model.config.text_config, name, value)
    with pytest.raises(ConfigError, match=message):
        use_attention(model, ONE)


def test_more_ranks_than_heads_are_refused() -> None:
    mesh = Mesh(size=8, rank=0, data_size=1, data_rank=0)
    with pytest.raises(ConfigError, match="sequence_parallel_size = 8 exceeds the 7 attention heads"):
        use_attention(tiny_model("qwen3-vl"), mesh)
