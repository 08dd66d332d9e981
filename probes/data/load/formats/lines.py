"""JSON lines and separated values (CSV, TSV)."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from probes.data.description import Table, mismatch
from probes.data.load.formats.shard import Bad, Sample, Shard, regular_file, timed

#: Files of lines up to this are read whole to know where each begins; in a larger one a line is found from a place.
_INDEXED_BYTES = 8 << 20
_LONGEST_LINE = 16 << 20
_PIECE = 1 << 20
_TRIED_RECORDS = 8
csv.field_size_limit(_LONGEST_LINE)  # Python's own limit, 128 KiB, is less than a document


@dataclass(frozen=True, slots=True)
class _Lines:
    """JSON lines, or CSV under its ``columns``. Bytes ``first`` to ``size`` hold the lines.

    ``over_lines``: a record may go on over several.
    """

    path: Path
    table: Table | None
    first: int
    size: int
    comma: str | None = None
    columns: tuple[str, ...] = ()
    over_lines: bool = False

    def near(self, place: float) -> Sample:
        """The line after a random place: the longer the line before it, the likelier, which says nothing of itself."""
        with regular_file(self.path) as file:
            file.seek(self.first + int(place * (self.size - self.first)))
            rest = file.readline(_LONGEST_LINE)
            if len(rest) >= _LONGEST_LINE:
                return self.one(file.tell() - len(rest), rest)
            if self.over_lines:
                self._to_a_record(file)
            if file.tell() >= self.size:
                file.seek(self.first)
            while not (line := file.readline(_LONGEST_LINE)).strip() and file.tell() < self.size:
                pass
            at = file.tell() - len(line)
            line = _completed(file, line, self.comma)
        return self.one(at, line)

    def _to_a_record(self, file: BinaryIO) -> None:
        """On to where a record begins. A line with an odd number of quotes opens a quotation, or closes one.

        What follows tells which: read the wrong way it falls apart (Ge et al., Speculative Distributed CSV Data
        Parsing for Big Data Analytics, SIGMOD 2019).
        """
        begin = odd = file.tell()
        while (line := file.readline(_LONGEST_LINE)) and line.count(b'"') % 2 == 0 and odd - begin < _PIECE:
            odd = file.tell()
        after = file.tell()
        closes = line.count(b'"') % 2 == 1 and self._apart(file, after) < self._apart(file, odd)
        file.seek(after if closes else begin)

    def _apart(self, file: BinaryIO, at: int) -> int:
        """How many of the next records are none."""
        file.seek(at)
        records = (_completed(file, line, self.comma) for line in islice(iter(file.readline, b""), _TRIED_RECORDS))
        return sum(not self._is_record(record) for record in records)

    def _is_record(self, line: bytes) -> bool:
        try:
            values = next(_reader(line, self.comma or ","), [])
        except csv.Error:
            return False
        return len(values) == len(self.columns) and line.count(b'"') % 2 == 0

    def one(self, at: int, line: bytes) -> Sample:
        names: list[str] = []
        fault, seconds = timed(lambda: self._check(line, names))
        digest = hashlib.sha256(line.strip()).digest()
        return Sample(f"byte {at}", len(line), tuple(names), digest, fault, (len(line), seconds))

    def _check(self, line: bytes, names: list[str]) -> None:
        if len(line) >= _LONGEST_LINE:
            raise Bad(f"too_large: a line of more than {_LONGEST_LINE >> 20} MiB")
        record = _separated(line, self.columns, self.comma) if self.comma else _object(line)
        names.extend(record)
        if wrong := mismatch(record, self.table, texts=self.comma is not None):
            raise Bad(f"schema: {wrong}")


def text_lines(path: Path, table: Table | None) -> Shard:
    comma = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if comma and table and table.delimiter:
        comma = table.delimiter
    named = comma is not None and table is not None and not table.header  # in the description alone
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.readline(_LONGEST_LINE) if comma and not named else b""
        head = _completed(file, head, comma)
        first = file.tell()
        data = file.read(_INDEXED_BYTES if size <= _INDEXED_BYTES else _PIECE)
    columns = next(csv.reader(io.StringIO(head.decode("utf-8-sig", "replace")), delimiter=comma), []) if comma else []
    columns = list(table.fields) if named and table else columns
    spans = list(_spans(data, comma))
    over_lines = any(b"\n" in data[begin : end - 1] for begin, end in spans)
    reader = _Lines(path, table, first, size, comma, tuple(columns), over_lines)
    if not spans:
        raise Bad("empty: no line in it")
    if size > _INDEXED_BYTES:
        return Shard(max(1, round((size - first) / len(data) * len(spans))), reader.near, exact=False)

    def read(place: float) -> Sample:
        begin, end = spans[int(place * len(spans))]
        return reader.one(first + begin, data[begin:end])

    return Shard(len(spans), read)


def _completed(file: BinaryIO, line: bytes, comma: str | None) -> bytes:
    """The line, with those that follow while a quotation is open."""
    if not (comma and _opens(line, comma)):
        return line
    lines, size = [line], len(line)
    while size < _LONGEST_LINE and (more := file.readline(_LONGEST_LINE)):
        lines.append(more)
        size += len(more)
        if more.count(b'"') % 2:
            break
    return b"".join(lines)


def _opens(line: bytes, comma: str) -> bool:
    """Whether a quotation is open at its end. A quote in a field that does not begin with one is a letter (5" pipe)."""
    try:
        if b'"' in line:
            next(_reader(line, comma))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _reader(line: bytes, comma: str) -> Iterator[list[str]]:
    """Read its values, whatever their encoding."""
    return csv.reader(io.StringIO(line.decode("latin-1")), delimiter=comma, strict=True)


def _spans(data: bytes, comma: str | None) -> Iterator[tuple[int, int]]:
    """Where each line that is not blank begins and ends; with a ``comma``, one goes on while a quotation is open."""
    begin = at = 0
    quoted = False
    while at < len(data):
        last, at = at, data.find(b"\n", at) + 1 or len(data)
        if comma:
            quoted = quoted != (data.count(b'"', last, at) % 2 == 1) if quoted else _opens(data[last:at], comma)
        if quoted and at < len(data):
            continue
        if data[begin:at].strip():
            yield begin, at
        begin = at


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise Bad("schema: the line is no JSON object")
    if not value:
        raise Bad("empty: the object has no field")
    return value


def _separated(line: bytes, columns: Sequence[str], comma: str) -> dict[str, str]:
    if b"\0" in line:
        raise Bad("undecodable: a zero byte, which no text has")
    try:
        values = next(csv.reader(io.StringIO(line.decode("utf-8")), delimiter=comma, strict=True))
    except csv.Error as error:
        raise Bad("undecodable: a quotation that does not end with its value") from error
    if len(values) != len(columns):
        raise Bad(f"schema: {len(values)} values for {len(columns)} columns")
    if not any(value.strip() for value in values):
        raise Bad("empty: all its values are empty")
    return dict(zip(columns, values, strict=True))
