"""Tensors in a safetensors file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from probes.data.description import Table
from probes.data.load.formats.shard import Bad, Sample, Shard, fault_of, regular_file, timed

_PIECE = 1 << 20
#: Of safetensors' types; any other takes eight.
_ITEM_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def _tensors(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header of a safetensors file by tensor, where its bytes begin, and how large the file is. Raises Bad."""
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise Bad(f"{'truncated' if size > 8 else 'empty'}: its header is longer than the file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise Bad("schema: its header is no object")
    header.pop("__metadata__", None)
    if not header:
        raise Bad("empty: no tensor in it")
    return header, 8 + length, size


def tensors(path: Path, table: Table | None) -> Shard:
    """Eight bytes, a JSON header of as many, then the tensors (github.com/huggingface/safetensors, "Format")."""
    header, base, size = _tensors(path)
    names = list(header)

    def read(place: float) -> Sample:
        name, span = names[int(place * len(names))], [0, 0]
        digest = hashlib.sha256(name.encode(errors="surrogatepass"))  # masks and zeroed biases are alike in every layer

        def check() -> None:
            begin, end = span[:] = header[name]["data_offsets"]
            wanted = math.prod(header[name]["shape"]) * _ITEM_BITS.get(header[name]["dtype"], 8) // 8
            if begin < 0 or end - begin != wanted:
                raise Bad(f"schema: bytes {begin} to {end} for a tensor of {wanted}")
            if not wanted:
                raise Bad("empty: no values in it")
            if base + end > size:
                raise Bad(f"truncated: it ends {base + end - size} bytes after the file")

        def content() -> None:
            with regular_file(path) as file:
                file.seek(base + span[0])
                for _ in range(span[0], span[1], _PIECE):
                    digest.update(file.read(min(_PIECE, base + span[1] - file.tell())))

        fault, seconds = timed(check)
        fault = fault or fault_of(content)
        held = 0 if fault else span[1] - span[0]
        return Sample(f"tensor {name[:300]}", held, (), digest.digest(), fault, (held, seconds))

    return Shard(len(names), read)
