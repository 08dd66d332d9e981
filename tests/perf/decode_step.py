"""Claim: a decode step starts fewer operators than the plain eager step that it took the place of, and is not slower.

`Before` is that step, on the same weights: attention in one fused call, keys and values written apart, each residual a
tensor of its own. Both compute the same tokens, which is checked first. Their steps take turns, so that what else the
machine does falls on both alike. ``python -m tests.perf.decode_step [SHAPE]``
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch.profiler import ProfilerActivity, profile

from probes.inference.load.decoder import Decoder
from probes.inference.shapes import SHAPES, Shape

CONTEXT, LENGTH = 64, 256
ROUNDS, STEPS = 60, 8
#: Tokens a second of now over before: a CPU hardly feels what a launch costs a GPU.
LEAST = 0.97
EPSILON, BASE = 1e-5, 500_000.0


class Before(Decoder):
    """The step as it was written first."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        half = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float32)
        angles = torch.outer(torch.arange(self.length, dtype=torch.float32), BASE ** (-half / self.shape.head_dim))
        self._turn = torch.cat((angles.cos(),) * 2, -1), torch.cat((-angles.sin(), angles.sin()), -1)

    def _step(self, batch: int, length: int) -> None:
        shape, positions = self.shape, self.positions[:batch]
        x = F.embedding(self.tokens[:batch], self.embedding)[:, None]
        cos, sin = (table[positions][:, None, None] for table in self._turn)
        unseen = (torch.arange(length)[None] > positions[:, None])[:, None, None]
        bias = torch.zeros_like(unseen, dtype=self.dtype).masked_fill_(unseen, float("-inf"))
        place = positions.view(batch, 1, 1, 1).expand(batch, shape.kv_heads, 1, shape.head_dim)
        for index, layer in enumerate(self.layers):
            heads = F.linear(F.rms_norm(x, (shape.dim,), layer.norm_attention, EPSILON), layer.qkv)
            heads = heads.view(batch, 1, -1, shape.head_dim).transpose(1, 2)
            turned, v = heads.split((shape.heads + shape.kv_heads, shape.kv_heads), 1)
            turned = torch.addcmul(turned * cos, turned.roll(shape.head_dim // 2, -1), sin)
            q, k = turned.split((shape.heads, shape.kv_heads), 1)
            keys, values = self.keys[index, :batch], self.values[index, :batch]
            keys.scatter_(2, place, k)
            values.scatter_(2, place, v)
            grouped = q.view(batch, shape.kv_heads, shape.heads // shape.kv_heads, shape.head_dim)
            mixed = F.scaled_dot_product_attention(grouped, keys[:, :, :length], values[:, :, :length], attn_mask=bias)
            flat = torch.addmm(x.flatten(0, 1), mixed.reshape(batch, -1), layer.out.t())
            gate, up = F.linear(F.rms_norm(flat, (shape.dim,), layer.norm_mlp, EPSILON), layer.gate_up).chunk(2, -1)
            x = torch.addmm(flat, F.silu(gate) * up, layer.down.t()).view_as(x)
        self.tokens[:batch] = self._next(x[:, 0])
        positions.add_(1).clamp_(max=self.length - 1)


def made(kind: type[Decoder], shape: Shape) -> Decoder:
    decoder = kind(shape, "cpu", torch.float32, 1, LENGTH)
    decoder.prefill(torch.arange(CONTEXT)[None] % shape.vocabulary)
    return decoder


def operators(kind: type[Decoder], shape: Shape) -> Counter[str]:
    """Of one layer of a step: what one layer more adds."""
    counts = []
    for layers in (1, 2):
        decoder = made(kind, shape._replace(layers=layers))
        decoder.decode(1, CONTEXT)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            decoder.decode(1, CONTEXT + 1)
        counts.append(
            Counter({event.key: event.count for event in seen.key_averages() if event.key.startswith("aten")})
        )
    return counts[1] - counts[0]


def same_tokens(shape: Shape) -> bool:
    before, now = made(Before, shape), made(Decoder, shape)
    for step in range(STEPS):
        for decoder in (before, now):
            decoder.decode(1, CONTEXT + step)
        if not torch.equal(before.tokens, now.tokens):
            return False
    return bool(torch.allclose(before.cache, now.cache, atol=1e-4))


def seconds(decoder: Decoder) -> float:
    decoder.positions.fill_(CONTEXT)
    started = time.perf_counter()
    for step in range(STEPS):
        decoder.decode(1, CONTEXT + step)
    return time.perf_counter() - started


def main(name: str) -> int:
    torch.set_num_threads(1)
    shape = SHAPES[name]
    if not same_tokens(shape):
        print("the two steps do not compute the same")
        return 1
    counts = {kind: sum(operators(kind, shape).values()) for kind in (Before, Decoder)}
    before, now = made(Before, shape), made(Decoder, shape)
    ratios, rates = [], []
    for number in range(ROUNDS):
        first, second = (before, now) if number % 2 else (now, before)
        took = {first: seconds(first), second: seconds(second)}
        ratios.append(took[before] / took[now])
        rates.append(STEPS / took[now])
    ratio = statistics.median(ratios)
    print(f"operators of a layer: {counts[Before]} before, {counts[Decoder]} now")
    print(f"tokens a second, now over before: {ratio:.3f} (at least {LEAST}; median of {ROUNDS} rounds in turn, "
          f"{statistics.median(rates):.0f} now), {name}, batch 1, one thread")  # fmt: skip
    return int(ratio < LEAST or counts[Decoder] >= counts[Before])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "micro"))
