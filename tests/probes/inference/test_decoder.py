"""The decoder computes what a decoder computes: the cache, the chunks and the steps agree with one another."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from probes.inference.load.decoder import Decoder, compiled
from probes.inference.shapes import SHAPES, Shape
from tests.perf import decode_step

TINY = Shape("tiny", dim=64, layers=3, heads=8, kv_heads=2, hidden=96, vocabulary=211)


def decoder(seed: int = 7) -> Decoder:
    torch.set_num_threads(1)
    return Decoder(TINY, "cpu", torch.float64, slots=4, length=64, seed=seed)


def prompt(batch: int, count: int) -> torch.Tensor:
    return torch.randint(0, TINY.vocabulary, (batch, count), generator=torch.Generator().manual_seed(1))


def test_chunks_of_a_prompt_give_what_the_whole_gives() -> None:
    whole, parts = decoder(), decoder()
    words = prompt(2, 30)
    whole.prefill(words)
    for start in (0, 7, 20):
        parts.prefill(words[:, start : {0: 7, 7: 20, 20: 30}[start]], start=start)
    assert torch.equal(whole.tokens, parts.tokens)
    assert torch.allclose(whole.keys, parts.keys)
    assert torch.allclose(whole.values, parts.values)


def test_a_decode_step_is_a_prefill_of_one_more_token() -> None:
    stepped, whole = decoder(), decoder()
    words = prompt(3, 12)
    stepped.prefill(words)
    spoken = [words]
    for step in range(5):
        spoken.append(stepped.tokens[:3, None].clone())
        stepped.decode(3, 12 + step)
    whole.prefill(torch.cat(spoken, dim=1))
    assert torch.equal(stepped.tokens[:3], whole.tokens[:3])
    assert torch.allclose(stepped.keys[:, :3, :, :17], whole.keys[:, :3, :, :17])


#: Operators that start work on a device, in one layer of a decode step; a CPU's rms_norm multiplies
#: twice. There were 21.
KERNELS = {
    "aten::rms_norm": 2, "aten::mm": 2, "aten::addmm_": 2, "aten::mul": 6, "aten::roll": 1, "aten::addcmul": 1,
    "aten::scatter_": 1, "aten::bmm": 2, "aten::add": 1, "aten::_softmax": 1, "aten::silu": 1,
}  # fmt: skip


def test_a_layer_of_a_decode_step_starts_few_kernels() -> None:
    """At batch 1 each costs some microseconds beside the weights that are read: they must not creep back."""
    counts = []
    for layers in (2, 3):
        made = Decoder(TINY._replace(layers=layers), "cpu", torch.float32, slots=4, length=64)
        made.decode(1, 32)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            made.decode(1, 32)
        counts.append({event.key: event.count for event in seen.key_averages()})
    layer = {name: counts[1][name] - counts[0].get(name, 0) for name in counts[1]}
    working = {name: layer.get(name, 0) for name in KERNELS}
    assert working == KERNELS
    assert not {"aten::clone", "aten::index", "aten::index_put_"} & {name for name, count in layer.items() if count}


def test_a_layer_has_no_more_operators_than_were_counted_and_fewer_than_the_step_before_it() -> None:
    """What is in no list of kernels can creep back too: a copy, a view of a view. 158 before, 138 now (torch 2.13)."""
    before, now = (decode_step.operators(kind, SHAPES["nano"]) for kind in (decode_step.Before, Decoder))
    assert sum(now.values()) <= 138, now
    assert sum(now.values()) < 0.9 * sum(before.values())
    assert decode_step.same_tokens(SHAPES["nano"])


@pytest.mark.parametrize("batch", [1, 3])
def test_the_parts_that_are_compiled_compute_the_same(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(torch, "compile", lambda part, **_: part)  # what they compute, not how fast
    plain, other = decoder(), decoder()
    other.parts = compiled()
    words = prompt(batch, 12)
    for made in (plain, other):
        made.prefill(words)
        made.decode(batch, 12)
    assert torch.equal(plain.tokens, other.tokens)
    assert torch.allclose(plain.cache, other.cache)


def test_slots_of_different_lengths_do_not_see_each_other() -> None:
    together, alone = decoder(), decoder()
    long, short = prompt(1, 20), prompt(1, 5) + 1
    together.prefill(long, slot=0)
    together.prefill(short, slot=1)
    alone.prefill(short, slot=0)
    for step in range(4):
        together.decode(2, 20 + step)
        alone.decode(1, 5 + step)
        assert together.tokens[1] == alone.tokens[0]


def test_a_slot_without_a_request_stays_inside_of_its_cache() -> None:
    one = decoder()
    one.positions.fill_(one.length - 1)
    for _ in range(3):
        one.decode(4, one.length - 1)
    assert int(one.positions.max()) == one.length - 1


def test_weights_are_random_and_depend_on_the_seed_alone() -> None:
    first, again, other = decoder(3), decoder(3), decoder(4)
    assert torch.equal(first.layers[1].down, again.layers[1].down)
    assert not torch.equal(first.layers[1].down, other.layers[1].down)
    assert float(first.head.std()) == pytest.approx(TINY.dim**-0.5, rel=0.05)
    assert not torch.equal(first.layers[0].qkv, first.layers[1].qkv)


@pytest.mark.parametrize(("name", "billions"), [("1b", 1.236), ("8b", 8.030)])
def test_the_published_shapes_have_the_published_size(name: str, billions: float) -> None:
    """Parameters by Meta's model cards: Llama-3.2-1B 1.24 B, Llama-3.1-8B 8.03 B."""
    assert SHAPES[name].parameters / 1e9 == pytest.approx(billions, abs=0.001)


def test_the_shape_counts_the_weights_that_the_decoder_holds() -> None:
    held = decoder()
    layers = sum(w.numel() for layer in held.layers for w in (layer.qkv, layer.out, layer.gate_up, layer.down))
    norms = sum(w.numel() for layer in held.layers for w in (layer.norm_attention, layer.norm_mlp))
    assert TINY.parameters == layers + norms + held.norm.numel() + held.embedding.numel() + held.head.numel()
    cache = held.keys.nbytes + held.values.nbytes
    assert TINY.kv_bytes(8) * held.slots * held.length == cache
