"""The decoders that can be loaded, by size: their weights, and the work of a step. Pure, and no torch in here."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """A Llama-like decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU. Sizes are counts of floats."""

    name: str
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    tied: bool = False  # the output head shares the embedding's weights

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer's matrices; the two norms are counted with `parameters`."""
        qkv = self.dim * (self.heads + 2 * self.kv_heads) * self.head_dim
        return qkv + self.dim * self.dim + 3 * self.dim * self.hidden

    @property
    def parameters(self) -> int:
        tables = self.vocabulary * self.dim * (1 if self.tied else 2)
        return self.layers * (self.layer_parameters + 2 * self.dim) + self.dim + tables

    def kv_bytes(self, element_bytes: int) -> int:
        """Bytes that one token holds in the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes

    def decode_bytes(self, batch: int, context: int, element_bytes: int) -> int:
        """The least that one decode step must read: every weight of layers and head once, and the cache so far.

        The embedding table is read one row a sequence, which is left out. Source of the model: Pope et al.,
        "Efficiently Scaling Transformer Inference", MLSys 2023, section 2.
        """
        read = self.layers * self.layer_parameters + self.dim * self.vocabulary
        return read * element_bytes + batch * context * self.kv_bytes(element_bytes)

    def prefill_flops(self, batch: int, tokens: int) -> int:
        """Floating-point operations that a prefill of ``batch`` prompts needs, the causal half of attention counted.

        Two for each weight and token (PaLM, appendix B), the head only for the last token of a prompt.
        """
        matrices = 2 * self.layers * self.layer_parameters * tokens
        attention = 4 * self.layers * self.dim * tokens * (tokens + 1) // 2
        return batch * (matrices + attention + 2 * self.dim * self.vocabulary)


_ALL = (
    Shape("nano", 256, 4, 8, 2, 688, 4096),
    Shape("micro", 512, 8, 8, 4, 1408, 8192),
    Shape("1b", 2048, 16, 32, 8, 8192, 128256, tied=True),
    Shape("8b", 4096, 32, 32, 8, 14336, 128256),
)
SHAPES = {shape.name: shape for shape in _ALL}

#: The 8b shape in bfloat16 is 16.1 GB; a card with less free memory than this is loaded with the 1b shape.
_ROOM_FOR_8B_BYTES = 24_000_000_000


def shape_for(accelerator: str, free_bytes: int, quick: bool) -> Shape:
    """The shape that suits the device: weights far larger than a cache, and steps short enough to repeat."""
    if accelerator == "cuda":
        return SHAPES["8b" if free_bytes >= _ROOM_FOR_8B_BYTES else "1b"]
    return SHAPES["nano" if quick else "micro"]
