"""Rows in groups that are decoded whole: Parquet, Arrow and Feather."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from probes.data.description import Table, mismatch
from probes.data.load.formats.shard import Bad, Sample, Shard, regular_file, sample_of, timed

_ARROW = b"ARROW1"
#: What `pyarrow` raises for a value that Python has no type for; its own errors are ValueErrors.
_NO_VALUE = (ValueError, OverflowError, ImportError, KeyError)


def parquet_rows(path: Path, table: Table | None) -> Shard:
    from pyarrow import parquet

    def rows(number: int) -> Any:
        with regular_file(path) as file, parquet.ParquetFile(file, page_checksum_verification=True) as opened:
            return opened.read_row_group(number, use_threads=False)

    with regular_file(path) as file, parquet.ParquetFile(file) as opened:
        counts = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
    return _rows(path, counts, rows, table)


def arrow_rows(path: Path, table: Table | None) -> Shard:
    """A file that knows its batches, or a stream, as the datasets library writes it under the same name."""
    from pyarrow import ipc

    with regular_file(path) as file:
        stream = file.read(len(_ARROW)) not in (_ARROW, b"")
        if not stream:
            opened = ipc.open_file(file)
            counts = [opened.get_batch(n).num_rows for n in range(opened.num_record_batches)]
    if stream:
        counts = [batch.num_rows for batch in _streamed(path)]

    def rows(number: int) -> Any:
        if stream:
            batch = next(islice(_streamed(path), number, None))
        else:
            with regular_file(path) as file:
                batch = ipc.open_file(file).get_batch(number)
        batch.validate(full=True)
        return batch

    return _rows(path, counts, rows, table)


def _streamed(path: Path) -> Iterator[Any]:
    """Yield the batches of a stream; only what is looked at is read."""
    import pyarrow as pa
    from pyarrow import ipc

    with pa.memory_map(str(path)) as file, ipc.open_stream(file) as stream:
        yield from stream


def _rows(path: Path, counts: Sequence[int], rows: Callable[[int], Any], table: Table | None) -> Shard:
    """Rows in groups that are decoded whole; the last group stays in memory."""
    ends, size = list(accumulate(counts)), path.stat().st_size
    if not ends or not ends[-1]:
        raise Bad("empty: no row in it")
    held: dict[int, Any] = {}

    def read(place: float) -> Sample:
        number = int(place * ends[-1])
        group = bisect_right(ends, number)

        def decode() -> None:
            held.clear()
            held[group] = rows(group)

        decoded = (0, 0.0)
        if group not in held:
            fault, seconds = timed(decode)
            if fault:
                return Sample(f"row {number}", 0, (), hashlib.sha256(f"{number}".encode()).digest(), fault)
            decoded = (size * counts[group] // ends[-1], seconds)
        data = held[group]
        record, text = _record(data.slice(number - (ends[group] - counts[group]), 1))

        def check() -> None:
            if all(value is None for value in record.values()):
                raise Bad("empty: all its values are null")
            if wrong := mismatch(record, table):
                raise Bad(f"schema: {wrong}")

        made = sample_of(f"row {number}", text, list(record), check)
        return replace(made, size=data.nbytes // max(1, len(data)), decoded=decoded)

    return Shard(ends[-1], read)


def _record(row: Any) -> tuple[dict[str, Any], bytes]:
    """A row's values, and all of it as bytes that tell it from others.

    Python has no time beyond the year 9999, and none of a zone that this host knows nothing of: that is not the row's
    fault, and any date stands for it.
    """
    try:
        record: dict[str, Any] = row.to_pylist()[0]
    except _NO_VALUE:
        record = {name: _value(column) for name, column in zip(row.schema.names, row.columns, strict=True)}
        return record, repr([column.to_string() for column in row.columns]).encode()
    return record, repr(record).encode()


def _value(column: Any) -> Any:
    try:
        return column[0].as_py()
    except _NO_VALUE:
        return date.min
