"""How samples lie in files, and whether one is sound: a reader for each format. Runs in a process that may crash.

`opened` makes a `Shard` of a file: how many samples it holds, cheaply, and each of them read whole. A sample is an
image, a sound, an array, a member of a tar (of a WebDataset: all parts of one key), a row, a line, a tensor. A file
that cannot be opened raises `Bad`, with what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from probes.data.description import Table
from probes.data.load.formats.lines import text_lines
from probes.data.load.formats.rows import arrow_rows, parquet_rows
from probes.data.load.formats.shard import Bad, Shard, fault_of
from probes.data.load.formats.tar import members
from probes.data.load.formats.tensors import tensors
from probes.data.load.formats.whole import one_sample

#: By the end of a file's name, in lower case.
FORMATS: Mapping[str, Callable[[Path, Table | None], Shard]] = {
    ".parquet": parquet_rows, ".arrow": arrow_rows, ".feather": arrow_rows, ".tar": members, ".safetensors": tensors,
    ".jsonl": text_lines, ".ndjson": text_lines, ".csv": text_lines, ".tsv": text_lines,
    ".npy": one_sample, ".npz": one_sample, ".jpg": one_sample, ".jpeg": one_sample, ".png": one_sample,
    ".wav": one_sample,
}  # fmt: skip


def opened(path: Path, table: Table | None) -> Shard:
    """The samples of a file of a known format. Raises Bad, with what is wrong with the whole file."""
    if not path.stat().st_size:
        raise Bad("empty: the file is empty")
    made: list[Shard] = []
    if (fault := fault_of(lambda: made.append(FORMATS[path.suffix.lower()](path, table)))) is not None:
        raise Bad(fault)
    return made[0]
