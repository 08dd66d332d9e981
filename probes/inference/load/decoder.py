"""A Llama-shaped decoder in plain torch: random weights of a fixed seed, a static KV cache, prefill and decode.

On CUDA a decode step is captured once a batch and length and then replayed, because an eager step is bound by the
launching host thread (Llama-2-7B on an A100: 25.5 tokens/s eager, 104.9 with graphs; pytorch.org, "Accelerating
Generative AI with PyTorch II"). Weights are normal numbers, never zeros: constant operands draw less power and clock
higher, which flatters the card.

At batch 1 a step reads the weights once and does little else, so what is between the matrix products counts: on one
H200 (torch 2.11, 8b, a cache of 1280) attention in plain products took 0.5 ms of a step where the fused kernel took
1.45 ms, and the small kernels, compiled, took 0.7 ms less than one by one (4.9 against 5.6 ms). For one row
cuBLAS reads the weights of a layer at 2.5 to 4.2 TB/s, the compiler's own sum of products at 3.4 to 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses

from probes.inference.shapes import Shape

_ROPE_BASE = 500_000.0  # Llama 3
_NORM_EPSILON = 1e-5
_LENGTH_STEP = 256  # a captured step attends to the cache up to a multiple of this


@dataclass(slots=True)
class Layer:
    """One layer's weights, each [out, in]; queries, keys and values in one matrix, gate and up in another."""

    qkv: Any
    out: Any
    gate_up: Any
    down: Any
    norm_attention: Any
    norm_mlp: Any


#: The parts of a step. Those between its matrix products are a kernel each where compiled, two to four where not.
def _normed(x: Any, weight: Any) -> Any:
    return F.rms_norm(x, (x.shape[-1],), weight, _NORM_EPSILON)


def _turned(heads: Any, cos: Any, sin: Any) -> Any:
    """Queries and keys turned by their position; the tables leave values as they are."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _gated(both: Any) -> Any:
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


def _weighed(scores: Any, bias: Any) -> Any:
    return (scores + bias).softmax(-1)


def _added(onto: Any, x: Any, weight: Any) -> None:
    onto.addmm_(x, weight.t())


def _product_of_row(x: Any, weight: Any) -> Any:
    return (x * weight).sum(-1)[None]  # in float32 inside of the one kernel that it becomes


@dataclass(frozen=True, slots=True)
class Parts:
    """The functions of a step, plain or compiled. ``added`` adds a product of matrices in place."""

    product: Callable[[Any, Any], Any] = F.linear
    added: Callable[[Any, Any, Any], None] = _added
    normed: Callable[[Any, Any], Any] = _normed
    turned: Callable[[Any, Any, Any], Any] = _turned
    gated: Callable[[Any], Any] = _gated
    weighed: Callable[[Any, Any], Any] = _weighed


PLAIN = Parts()


def compiled() -> Parts:
    """The same by torch's compiler: compiled for the first size they meet, and once more for all others.

    Products only for one row, once for each size of weights, with the compiler's search for the best blocks (the
    ones that it takes unasked read no faster than cuBLAS).
    """
    row = torch.compile(_product_of_row, dynamic=False, options={"coordinate_descent_tuning": True})
    return Parts(
        lambda x, weight: row(x, weight) if len(x) == 1 else F.linear(x, weight),
        # apart: where the sum writes into what it reads, the search finds blocks half as fast
        lambda onto, x, weight: onto.add_(row(x, weight)) if len(x) == 1 else _added(onto, x, weight),
        *(torch.compile(part) for part in (_normed, _turned, _gated, _weighed)),
    )


class Decoder:
    """Weights, a cache of ``slots`` sequences of at most ``length`` tokens, and the two steps.

    Prompts are random token numbers; sampling is greedy. Times are the caller's to take; see `synchronize`. ``parts``
    may be changed between steps; `forget` then drops what was captured with the others.
    """

    def __init__(self, shape: Shape, device: str, dtype: Any, slots: int, length: int, seed: int = 7) -> None:
        self.shape, self.device, self.dtype = shape, torch.device(device), dtype
        self.slots, self.length = slots, length
        self._generator = torch.Generator(device=self.device).manual_seed(seed)
        self.norm = torch.ones(shape.dim, device=self.device, dtype=dtype)
        self.layers = [self._random_layer() for _ in range(shape.layers)]
        self.embedding = self._random(shape.vocabulary, shape.dim)
        self.head = self.embedding if shape.tied else self._random(shape.vocabulary, shape.dim)
        # keys and values apart, so that a batch's heads are one stride; together, so that one kernel writes both
        self.cache = self._random(shape.layers, 2, slots, shape.kv_heads, length, shape.head_dim, scale=1.0)
        self.tokens = torch.zeros(slots, dtype=torch.long, device=self.device)
        self.positions = torch.zeros(slots, dtype=torch.long, device=self.device)
        self._cos, self._sin = self._rotations()
        self.parts = PLAIN
        self._side: Any = None
        self._graphs: dict[tuple[int, int], Any] = {}

    @property
    def keys(self) -> Any:
        """[layers, slots, heads, length, size]; so are `values`."""
        return self.cache[:, 0]

    @property
    def values(self) -> Any:
        return self.cache[:, 1]

    def forget(self) -> None:
        """Drop the captured steps."""
        self._graphs.clear()

    def _random(self, *shape: int, scale: float | None = None) -> Any:
        """Normal numbers drawn on the device itself, scaled by 1/sqrt(inputs) if not by ``scale``."""
        drawn = torch.empty(shape, device=self.device, dtype=self.dtype)
        return drawn.normal_(0.0, scale or 1.0 / math.sqrt(shape[-1]), generator=self._generator)

    def _random_layer(self) -> Layer:
        shape = self.shape
        return Layer(
            qkv=self._random((shape.heads + 2 * shape.kv_heads) * shape.head_dim, shape.dim),
            out=self._random(shape.dim, shape.dim),
            gate_up=self._random(2 * shape.hidden, shape.dim),
            down=self._random(shape.dim, shape.hidden),
            norm_attention=self.norm.clone(),
            norm_mlp=self.norm.clone(),
        )

    def _rotations(self) -> tuple[Any, Any]:
        """[length, heads, size]: cosines and sines for queries, divided by the root of their size, keys, and values
        (1 and 0), so that one kernel turns and scales whatever a layer projects.
        """
        shape = self.shape
        half = torch.arange(0, shape.head_dim, 2, device=self.device, dtype=torch.float32)
        inverse = _ROPE_BASE ** (-half / shape.head_dim)
        angles = torch.outer(torch.arange(self.length, device=self.device, dtype=torch.float32), inverse)[:, None]
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        scale = 1.0 / math.sqrt(shape.head_dim)
        kinds = ((shape.heads, scale), (shape.kv_heads, 1.0))
        still = torch.ones_like(cos).expand(-1, shape.kv_heads, -1)
        cosines = torch.cat((*(cos.mul(by).expand(-1, many, -1) for many, by in kinds), still), 1)
        sines = torch.cat((*(sin.mul(by).expand(-1, many, -1) for many, by in kinds), torch.zeros_like(still)), 1)
        return cosines.to(self.dtype), sines.to(self.dtype)

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # --- steps

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def prefill(self, prompt: Any, slot: int = 0, start: int = 0) -> None:
        """Run ``prompt`` [batch, tokens] into slots ``slot``.. at positions ``start``..; the next token is kept.

        ``start`` > 0 continues a prompt whose earlier chunks are in the cache.
        """
        batch, end = prompt.shape[0], start + prompt.shape[1]
        rows = slice(slot, slot + batch)
        x = F.embedding(prompt, self.embedding)
        cos, sin = self._cos[start:end], self._sin[start:end]
        mask = None
        if start:  # [count, end]: a token sees what is before it and itself
            ends = torch.arange(start, end, device=self.device)[:, None]
            mask = torch.arange(end, device=self.device)[None] <= ends
        for index, layer in enumerate(self.layers):
            heads = self._projected(PLAIN, layer, x, cos, sin).transpose(1, 2)
            queries, made = heads[:, : self.shape.heads], heads[:, self.shape.heads :].chunk(2, 1)
            seen = self.cache[index, :, rows, :, :end]
            for place, new in zip(seen, made, strict=True):
                place[:, :, start:] = new
            keys, values = seen if start else made
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=1.0, enable_gqa=True
            )
            x = self._finished(PLAIN, layer, x, mixed.transpose(1, 2).flatten(2))
        self.tokens[rows] = self._next(x[:, -1])
        self.positions[rows] = end

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def decode(self, batch: int, longest: int) -> None:
        """One token for each of the slots 0..batch-1, of which the longest holds ``longest`` tokens.

        Reads and advances ``tokens`` and ``positions`` on the device; nothing is copied to the host.
        """
        length = self.read_length(longest)
        if self.device.type != "cuda":
            self._step(batch, length)
            return
        if (batch, length) not in self._graphs:
            self._graphs[batch, length] = self._capture(batch, length)
        self._graphs[batch, length].replay()

    def read_length(self, longest: int) -> int:
        """How much of the cache a step reads: what there is; for a captured step up to the next multiple of 256."""
        if self.device.type != "cuda":
            return longest + 1
        return min(self.length, -(-(longest + 1) // _LENGTH_STEP) * _LENGTH_STEP)

    def _capture(self, batch: int, length: int) -> Any:
        """Warm up on a side stream, then record the step (the recipe of torch.cuda.CUDAGraph's own notes).

        The side stream is one for all captures, because each new stream has a workspace of cuBLAS for itself.
        """
        tokens, positions = self.tokens.clone(), self.positions.clone()
        side = self._side = self._side or torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step(batch, length)
                self.positions.copy_(positions)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(batch, length)
        self.tokens.copy_(tokens)
        self.positions.copy_(positions)
        return graph

    def _step(self, batch: int, length: int) -> None:
        shape, parts, positions = self.shape, self.parts, self.positions[:batch]
        x = F.embedding(self.tokens[:batch], self.embedding)
        cos, sin = self._cos[positions], self._sin[positions]
        unseen = (torch.arange(length, device=self.device)[None] > positions[:, None])[:, None]
        bias = torch.zeros_like(unseen, dtype=self.dtype).masked_fill_(unseen, float("-inf"))
        bias = bias.expand(batch, shape.kv_heads, length).reshape(-1, 1, length)
        place = positions.view(1, batch, 1, 1, 1).expand(2, batch, shape.kv_heads, 1, shape.head_dim)
        for index, layer in enumerate(self.layers):
            heads = self._projected(parts, layer, x, cos, sin)
            made = heads[:, shape.heads :].view(batch, 2, shape.kv_heads, 1, -1).transpose(0, 1)
            cache = self.cache[index, :, :batch]
            cache.scatter_(3, place, made)
            keys, values = cache[..., :length, :].flatten(1, 2)
            queries = heads[:, : shape.heads].reshape(batch * shape.kv_heads, -1, shape.head_dim)
            mixed = parts.weighed(queries.bmm(keys.mT), bias).bmm(values)
            x = self._finished(parts, layer, x, mixed.view(batch, -1))
        self.tokens[:batch] = self._next(x)
        positions.add_(1).clamp_(max=self.length - 1)  # a slot without a request stays inside of the cache

    # --- parts

    def _projected(self, parts: Parts, layer: Layer, x: Any, cos: Any, sin: Any) -> Any:
        """Queries, keys and values of ``x`` [..., dim], turned to their positions: [..., heads, size]."""
        made = parts.product(parts.normed(x, layer.norm_attention), layer.qkv)
        return parts.turned(made.unflatten(-1, (-1, self.shape.head_dim)), cos, sin)

    def _finished(self, parts: Parts, layer: Layer, x: Any, mixed: Any) -> Any:
        """The rest of a layer, added to ``x`` in place by the matrix products themselves."""
        flat = x.flatten(0, -2)
        parts.added(flat, mixed.flatten(0, -2), layer.out)
        parts.added(flat, parts.gated(parts.product(parts.normed(flat, layer.norm_mlp), layer.gate_up)), layer.down)
        return x

    def _next(self, x: Any) -> Any:
        return F.linear(_normed(x, self.norm), self.head).argmax(-1)
