"""A Llama-shaped decoder in plain torch: random weights of a fixed seed, a static KV cache, prefill and decode.

On CUDA a decode step is captured once a batch and length and then replayed, because an eager step is bound by the
launching host thread (Llama-2-7B on an A100: 25.5 tokens/s eager, 104.9 with graphs; pytorch.org, "Accelerating
Generative AI with PyTorch II"). Weights are normal numbers, never zeros: constant operands draw less power and clock
higher, which flatters the card.
"""

from __future__ import annotations

import math
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


class Decoder:
    """Weights, a cache of ``slots`` sequences of at most ``length`` tokens, and the two steps.

    Prompts are random token numbers; sampling is greedy. Times are the caller's to take; see `synchronize`.
    """

    def __init__(self, shape: Shape, device: str, dtype: Any, slots: int, length: int, seed: int = 7) -> None:
        self.shape, self.device, self.dtype = shape, torch.device(device), dtype
        self.slots, self.length = slots, length
        self._generator = torch.Generator(device=self.device).manual_seed(seed)
        self.norm = torch.ones(shape.dim, device=self.device, dtype=dtype)
        self.layers = [self._random_layer() for _ in range(shape.layers)]
        self.embedding = self._random(shape.vocabulary, shape.dim)
        self.head = self.embedding if shape.tied else self._random(shape.vocabulary, shape.dim)
        cache = (shape.layers, slots, shape.kv_heads, length, shape.head_dim)
        self.keys, self.values = self._random(*cache, scale=1.0), self._random(*cache, scale=1.0)
        self.tokens = torch.zeros(slots, dtype=torch.long, device=self.device)
        self.positions = torch.zeros(slots, dtype=torch.long, device=self.device)
        self._cos, self._sin = self._rotations()
        self._graphs: dict[tuple[int, int], Any] = {}

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
        half = torch.arange(0, self.shape.head_dim, 2, device=self.device, dtype=torch.float32)
        inverse = _ROPE_BASE ** (-half / self.shape.head_dim)
        angles = torch.outer(torch.arange(self.length, device=self.device, dtype=torch.float32), inverse)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), -1).to(self.dtype), torch.cat((-sin, sin), -1).to(self.dtype)

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
        batch, count = prompt.shape
        rows = slice(slot, slot + batch)
        x = F.embedding(prompt, self.embedding)
        cos, sin = self._cos[start : start + count], self._sin[start : start + count]
        mask = None
        if start:  # [count, start + count]: a token sees what is before it and itself
            ends = torch.arange(start, start + count, device=self.device)[:, None]
            mask = torch.arange(start + count, device=self.device)[None] <= ends
        for index, layer in enumerate(self.layers):
            q, k, v = self._project(layer, x, cos, sin)
            self.keys[index, rows, :, start : start + count] = k
            self.values[index, rows, :, start : start + count] = v
            if start:
                k = self.keys[index, rows, :, : start + count]
                v = self.values[index, rows, :, : start + count]
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
            x = self._finish(layer, x, mixed.transpose(1, 2).reshape(batch, count, -1))
        self.tokens[rows] = self._next(x[:, -1])
        self.positions[rows] = start + count

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def decode(self, batch: int, longest: int) -> None:
        """One token for each of the slots 0..batch-1, of which the longest holds ``longest`` tokens.

        Reads and advances ``tokens`` and ``positions`` on the device; nothing is copied to the host.
        """
        if self.device.type != "cuda":
            self._step(batch, longest + 1)
            return
        key = (batch, min(self.length, -(-(longest + 1) // _LENGTH_STEP) * _LENGTH_STEP))
        if key not in self._graphs:
            self._graphs[key] = self._capture(*key)
        self._graphs[key].replay()

    def _capture(self, batch: int, length: int) -> Any:
        """Warm up on a side stream, then record the step (the recipe of torch.cuda.CUDAGraph's own notes)."""
        tokens, positions = self.tokens.clone(), self.positions.clone()
        side = torch.cuda.Stream(self.device)
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
        positions = self.positions[:batch]
        x = F.embedding(self.tokens[:batch], self.embedding)[:, None]
        cos, sin = self._cos[positions][:, None, None], self._sin[positions][:, None, None]
        unseen = (torch.arange(length, device=self.device)[None] > positions[:, None])[:, None, None]
        bias = torch.zeros_like(unseen, dtype=self.dtype).masked_fill_(unseen, float("-inf"))
        place = positions.view(batch, 1, 1, 1).expand(batch, self.shape.kv_heads, 1, self.shape.head_dim)
        for index, layer in enumerate(self.layers):
            q, k, v = self._project(layer, x, cos, sin)
            keys, values = self.keys[index, :batch], self.values[index, :batch]
            keys.scatter_(2, place, k)
            values.scatter_(2, place, v)
            mixed = self._attend(q, keys[:, :, :length], values[:, :, :length], bias)
            x = self._finish(layer, x, mixed)
        self.tokens[:batch] = self._next(x[:, 0])
        positions.add_(1).clamp_(max=self.length - 1)  # a slot without a request stays inside of the cache

    def _attend(self, q: Any, keys: Any, values: Any, bias: Any) -> Any:
        """Heads that share keys become rows of one query, so that the cache is read once and never widened."""
        batch, heads, _, size = q.shape
        grouped = q.view(batch, self.shape.kv_heads, heads // self.shape.kv_heads, size)
        mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=bias)
        return mixed.reshape(batch, 1, heads * size)

    # --- parts

    def _project(self, layer: Layer, x: Any, cos: Any, sin: Any) -> tuple[Any, Any, Any]:
        """Queries and keys, rotated in one go, and values: [batch, heads, tokens, size] each.

        A decode step is hundreds of small kernels between the reads of the weights; each one saved is felt.
        """
        shape = self.shape
        normed = F.rms_norm(x, (shape.dim,), layer.norm_attention, _NORM_EPSILON)
        heads = F.linear(normed, layer.qkv).view(*x.shape[:2], -1, shape.head_dim).transpose(1, 2)
        turned, values = heads.split((shape.heads + shape.kv_heads, shape.kv_heads), 1)
        turned = torch.addcmul(turned * cos, turned.roll(shape.head_dim // 2, -1), sin)
        queries, keys = turned.split((shape.heads, shape.kv_heads), 1)
        return queries, keys, values

    def _finish(self, layer: Layer, x: Any, mixed: Any) -> Any:
        """The rest of a layer; each sum is made by the matrix product itself."""
        flat = torch.addmm(x.flatten(0, 1), mixed.flatten(0, 1), layer.out.t())
        normed = F.rms_norm(flat, (self.shape.dim,), layer.norm_mlp, _NORM_EPSILON)
        gate, up = F.linear(normed, layer.gate_up).chunk(2, -1)
        return torch.addmm(flat, F.silu(gate) * up, layer.down.t()).view_as(x)

    def _next(self, x: Any) -> Any:
        return F.linear(F.rms_norm(x, (self.shape.dim,), self.norm, _NORM_EPSILON), self.head).argmax(-1)
