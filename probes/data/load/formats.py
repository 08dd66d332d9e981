"""How samples lie in files, and whether one is sound: one class a format. Runs in a process that may crash.

`opened` makes a `Shard` of a file: how many samples it holds, cheaply, and each of them read whole. A sample is an
image, a sound, an array, a member of a tar (of a WebDataset: all parts of one key), a row, a line, a tensor. A file
that cannot be opened raises `Bad`, with what is wrong.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import stat
import struct
import tarfile
import time
import warnings
import zipfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from io import BufferedReader
from itertools import accumulate, islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from bench.model import Code
from probes.data.description import Table, mismatch

#: Files of lines up to this are read whole to know where each begins; in a larger one a line is found from a place.
_INDEXED_BYTES = 8 << 20
_LONGEST_LINE = 16 << 20
_LARGEST_SAMPLE = 512 << 20
_PIECE = 1 << 20
_TRIED_RECORDS = 8
csv.field_size_limit(_LONGEST_LINE)  # Python's own limit, 128 KiB, is less than a document


class Bad(ValueError):
    """What is wrong with a sample or a file: a word and a sentence, as `probes.data.parse` counts them."""

    def __init__(self, word: str, text: str) -> None:
        super().__init__(f"{word}: {text}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, read. ``at``: where it lies in its file; ``names``: its fields; ``digest`` of what it holds.

    ``decoded``: the bytes on storage that were decoded for it, and the seconds of CPU time that this took.
    """

    at: str
    size: int
    names: tuple[str, ...]
    digest: bytes
    fault: str | None = None
    decoded: tuple[int, float] = (0, 0.0)


@dataclass(slots=True)
class Shard:
    """A file's samples. ``exact``: ``count`` is no estimate. ``read`` takes a place from 0 to below 1."""

    count: int
    read: Callable[[float], Sample]
    exact: bool = True


@contextmanager
def regular_file(path: Path) -> Iterator[BufferedReader]:
    """A regular file, opened for reading from the storage and not from memory. Raises Bad, OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Bad("unreadable", "it is no regular file")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        yield file


def _content(path: Path) -> bytes:
    with regular_file(path) as file:
        data = file.read(_LARGEST_SAMPLE + 1)
    if not data:
        raise Bad("empty", "the file is empty")
    if len(data) > _LARGEST_SAMPLE:
        raise Bad("too_large", f"one sample of more than {_LARGEST_SAMPLE >> 20} MiB")
    return data


def checksum(path: Path) -> str:
    """SHA-256 of a whole file, in hexadecimal."""
    with regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sample(at: str, data: bytes, names: Sequence[str], check: Callable[[], object]) -> Sample:
    """A sample whose ``check`` raises for what is wrong with it."""
    fault, seconds = _timed(check)
    return Sample(at, len(data), tuple(names), hashlib.sha256(data).digest(), fault, (len(data), seconds))


def _timed(check: Callable[[], object]) -> tuple[str | None, float]:
    """What the check raised, and the CPU time that it took: waiting for the storage, or for others, is not in it."""
    began = time.process_time()
    fault = fault_of(check)
    return fault, time.process_time() - began


def fault_of(check: Callable[[], object]) -> str | None:
    """What the check raised, as one line; None where it passed. Libraries raise dozens of kinds for damaged bytes."""
    try:
        check()
    except Bad as bad:
        return str(bad)
    except ImportError as error:  # which says nothing of the data
        return f"{Code.PACKAGE_MISSING}: {error.name} is not installed"
    except (MemoryError, RecursionError) as error:
        return f"too_large: it needs more memory than a decoder may have ({type(error).__name__})"
    except Exception as error:  # noqa: BLE001
        return f"undecodable: {type(error).__name__}: {_printable(str(error))}"
    return None


def _printable(text: str) -> str:
    """A library's own words without what they may quote of the sample."""
    first = (text.strip().splitlines() or [""])[0]
    return "".join(c if c.isprintable() else "?" for c in re.split("['\"<]", first)[0])[:120].strip()


# --- content of one kind


def _image(data: bytes) -> None:
    """Decoded whole: `verify()` of Pillow passes half a JPEG, `load()` does not."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what it refuses
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.load()


def _sound(data: bytes) -> None:
    """Its chunks, whatever their encoding: Python's own reader takes floats, and what is more than 16 bits, for broken.

    Source: Multimedia Programming Interface and Data Specifications 1.0 (IBM, Microsoft, 1991), "WAVE".
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise Bad("undecodable", "no WAVE file")
    at, frame = 12, 0
    while at + 8 <= len(data):
        name, wanted = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt ":
            (frame,) = struct.unpack_from("<H", data, at + 12)
        elif name == b"data":
            if not wanted:
                raise Bad("empty", "no sound in it")
            if (had := min(wanted, len(data) - at)) != wanted:
                raise Bad("truncated", f"{had} of {wanted} bytes of sound")
            if not frame or wanted % frame:
                raise Bad("undecodable", f"{wanted} bytes of sound in frames of {frame}")
            return
        at += wanted + wanted % 2
    raise Bad("truncated", "no sound follows its header")


def _array(data: bytes) -> None:
    import numpy as np

    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise Bad("unsafe", "it holds Python objects, which are not loaded")
    wanted, had = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if had != wanted:
        raise Bad("truncated", f"{had} of {wanted} bytes of values")
    if not wanted:
        raise Bad("empty", "no values in it")


def _arrays(data: bytes) -> None:
    """An ``.npz``: a zip archive of arrays, each with a checksum of its own."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _LARGEST_SAMPLE:
            raise Bad("too_large", f"it unpacks to more than {_LARGEST_SAMPLE >> 20} MiB")
        if not members:
            raise Bad("empty", "no array in it")
        for member in members:
            _array(archive.read(member))


def _text(data: bytes) -> None:
    data.decode("utf-8")


_CONTENT: Mapping[str, Callable[[bytes], object]] = {
    ".jpg": _image, ".jpeg": _image, ".png": _image, ".wav": _sound, ".npy": _array, ".npz": _arrays,
    ".json": json.loads, ".txt": _text, ".cls": _text,
}  # fmt: skip


def _decode(suffix: str, data: bytes) -> None:
    if not data:
        raise Bad("empty", f"its {suffix or 'content'} is empty")
    if suffix in _CONTENT:
        _CONTENT[suffix](data)


def _whole(path: Path, table: Table | None) -> Shard:
    suffix = path.suffix.lower()

    def read(_: float) -> Sample:
        data = _content(path)
        return _sample("", data, (), lambda: _decode(suffix, data))

    return Shard(1, read)


# --- tar


@dataclass(slots=True)
class _Group:
    """The members of one sample: suffix, offset, size of each. ``fault``: what the headers alone show."""

    key: str
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    fault: Bad | None = None


def _tar(path: Path, table: Table | None) -> Shard:
    """A WebDataset where keys repeat (``a.jpg a.json``); else each member is a sample."""
    with regular_file(path) as file:
        groups = _groups(file)
    usual = Counter(tuple(sorted(suffix for suffix, _, _ in group.parts)) for group in groups).most_common(1)
    web = max((len(group.parts) for group in groups), default=0) > 1

    def read(place: float) -> Sample:
        group = groups[int(place * len(groups))]
        with regular_file(path) as file:
            parts = [(suffix, _part(file, at, size)) for suffix, at, size in group.parts]

        def check() -> None:
            if group.fault is not None:
                raise group.fault
            if lacking := set(usual[0][0]) - {suffix for suffix, _, _ in group.parts}:
                raise Bad("incomplete", f"it has no {min(lacking)}")
            for (suffix, data), (_, _, size) in zip(parts, group.parts, strict=True):
                if len(data) < size:
                    raise Bad("truncated", f"{len(data)} of {size} bytes of its {suffix}")
                _decode("." + suffix.rpartition(".")[2].lower(), data)

        names = [suffix.lstrip(".") for suffix, _ in parts] if web else []
        return _sample(f"{group.key[:300]} byte {group.parts[0][1]}", b"".join(data for _, data in parts), names, check)

    if not groups:
        raise Bad("empty", "no member in it")
    return Shard(len(groups), read)


def _part(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(min(size, _LARGEST_SAMPLE))


def _groups(file: BinaryIO) -> list[_Group]:
    """Members by key, in order, by their headers alone."""
    groups: list[_Group] = []
    seen: dict[str, _Group] = {}
    size = os.fstat(file.fileno()).st_size
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - closed with its file
    end = 0
    try:
        for member in archive:
            end = member.offset_data + -(-member.size // 512) * 512
            if member.isdir():
                continue
            name = PurePosixPath(member.name)
            stem, dot, suffix = name.name.partition(".")
            key = str(name.parent / stem)
            if not groups or groups[-1].key != key:
                groups.append(_Group(key))
                if key in seen:
                    groups[-1].fault = seen[key].fault = Bad("incomplete", "its parts do not lie together")
                seen[key] = groups[-1]
            groups[-1].parts.append((dot + suffix, member.offset_data, member.size))
            if name.is_absolute() or ".." in name.parts:
                groups[-1].fault = Bad("unsafe", "its name leads out of the archive")
            elif not member.isreg():
                groups[-1].fault = Bad("unsafe", "it is a link or a device, no file")
    except tarfile.TarError as error:
        if not groups:
            raise Bad("undecodable", f"no tar archive: {_printable(str(error))}") from error
        groups[-1].fault = groups[-1].fault or Bad("truncated", f"the archive breaks off: {_printable(str(error))}")
        return groups
    if groups and size < end + 512:
        groups[-1].fault = groups[-1].fault or Bad("truncated", "the archive has no end mark")
    return groups


# --- lines


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
        fault, seconds = _timed(lambda: self._check(line, names))
        digest = hashlib.sha256(line.strip()).digest()
        return Sample(f"byte {at}", len(line), tuple(names), digest, fault, (len(line), seconds))

    def _check(self, line: bytes, names: list[str]) -> None:
        if len(line) >= _LONGEST_LINE:
            raise Bad("too_large", f"a line of more than {_LONGEST_LINE >> 20} MiB")
        record = _separated(line, self.columns, self.comma) if self.comma else _object(line)
        names.extend(record)
        if wrong := mismatch(record, self.table, texts=self.comma is not None):
            raise Bad("schema", wrong)


def _lines(path: Path, table: Table | None) -> Shard:
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
    lines = _Lines(path, table, first, size, comma, tuple(columns), over_lines)
    if not spans:
        raise Bad("empty", "no line in it")
    if size > _INDEXED_BYTES:
        return Shard(max(1, round((size - first) / len(data) * len(spans))), lines.near, exact=False)

    def read(place: float) -> Sample:
        begin, end = spans[int(place * len(spans))]
        return lines.one(first + begin, data[begin:end])

    return Shard(len(spans), read)


def _completed(file: BinaryIO, line: bytes, comma: str | None) -> bytes:
    """With the lines that follow, as long as a quotation is open."""
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
    """Of its values, whatever their encoding."""
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
        raise Bad("schema", "the line is no JSON object")
    if not value:
        raise Bad("empty", "the object has no field")
    return value


def _separated(line: bytes, columns: Sequence[str], comma: str) -> dict[str, str]:
    if b"\0" in line:
        raise Bad("undecodable", "a zero byte, which no text has")
    try:
        values = next(csv.reader(io.StringIO(line.decode("utf-8")), delimiter=comma, strict=True))
    except csv.Error as error:
        raise Bad("undecodable", "a quotation that does not end with its value") from error
    if len(values) != len(columns):
        raise Bad("schema", f"{len(values)} values for {len(columns)} columns")
    if not any(value.strip() for value in values):
        raise Bad("empty", "all its values are empty")
    return dict(zip(columns, values, strict=True))


# --- rows

_ARROW = b"ARROW1"


def _parquet(path: Path, table: Table | None) -> Shard:
    from pyarrow import parquet

    def rows(number: int) -> Any:
        with regular_file(path) as file, parquet.ParquetFile(file, page_checksum_verification=True) as opened:
            return opened.read_row_group(number, use_threads=False)

    with regular_file(path) as file, parquet.ParquetFile(file) as opened:
        counts = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
    return _rows(path, counts, rows, table)


def _arrow(path: Path, table: Table | None) -> Shard:
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
            batch.validate(full=True)
            return batch
        with regular_file(path) as file:
            batch = ipc.open_file(file).get_batch(number)
            batch.validate(full=True)
            return batch

    return _rows(path, counts, rows, table)


def _streamed(path: Path) -> Iterator[Any]:
    """Its batches, one after the other; only what is looked at is read."""
    import pyarrow as pa
    from pyarrow import ipc

    with pa.memory_map(str(path)) as file, ipc.open_stream(file) as stream:
        yield from stream


def _rows(path: Path, counts: Sequence[int], rows: Callable[[int], Any], table: Table | None) -> Shard:
    """Rows in groups that are decoded whole; the last group stays in memory."""
    ends, size = list(accumulate(counts)), path.stat().st_size
    if not ends or not ends[-1]:
        raise Bad("empty", "no row in it")
    held: dict[int, Any] = {}

    def read(place: float) -> Sample:
        number = int(place * ends[-1])
        group = bisect_right(ends, number)

        def decode() -> None:
            held.clear()
            held[group] = rows(group)

        decoded = (0, 0.0)
        if group not in held:
            fault, seconds = _timed(decode)
            if fault:
                return Sample(f"row {number}", 0, (), hashlib.sha256(f"{number}".encode()).digest(), fault)
            decoded = (size * counts[group] // ends[-1], seconds)
        data = held[group]
        record, text = _record(data.slice(number - (ends[group] - counts[group]), 1))

        def check() -> None:
            if all(value is None for value in record.values()):
                raise Bad("empty", "all its values are null")
            if wrong := mismatch(record, table):
                raise Bad("schema", wrong)

        made = _sample(f"row {number}", text, list(record), check)
        return replace(made, size=data.nbytes // max(1, len(data)), decoded=decoded)

    return Shard(ends[-1], read)


def _record(row: Any) -> tuple[dict[str, Any], bytes]:
    """A row's values, and all of it as bytes that tell it from others.

    Python has no time beyond the year 9999, and none of a zone that this host knows nothing of: that is not the row's
    fault, and any date stands for it.
    """
    try:
        record: dict[str, Any] = row.to_pylist()[0]
    except (ValueError, OverflowError, ImportError, KeyError):  # pyarrow's errors are ValueErrors
        columns = dict(zip(row.schema.names, row.columns, strict=True))
        return {name: _value(column) for name, column in columns.items()}, repr(
            [column.to_string() for column in columns.values()]
        ).encode()
    return record, repr(record).encode()


def _value(column: Any) -> Any:
    try:
        return column[0].as_py()
    except (ValueError, OverflowError, ImportError, KeyError):
        return date.min


# --- tensors

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
            raise Bad("truncated" if size > 8 else "empty", "its header is longer than the file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise Bad("schema", "its header is no object")
    header.pop("__metadata__", None)
    if not header:
        raise Bad("empty", "no tensor in it")
    return header, 8 + length, size


def _safetensors(path: Path, table: Table | None) -> Shard:
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
                raise Bad("schema", f"bytes {begin} to {end} for a tensor of {wanted}")
            if not wanted:
                raise Bad("empty", "no values in it")
            if base + end > size:
                raise Bad("truncated", f"it ends {base + end - size} bytes after the file")

        def content() -> None:
            with regular_file(path) as file:
                file.seek(base + span[0])
                for _ in range(span[0], span[1], _PIECE):
                    digest.update(file.read(min(_PIECE, base + span[1] - file.tell())))

        fault, seconds = _timed(check)
        fault = fault or fault_of(content)
        held = 0 if fault else span[1] - span[0]
        return Sample(f"tensor {name[:300]}", held, (), digest.digest(), fault, (held, seconds))

    return Shard(len(names), read)


#: By the end of a file's name, in lower case.
FORMATS: Mapping[str, Callable[[Path, Table | None], Shard]] = {
    ".parquet": _parquet, ".arrow": _arrow, ".feather": _arrow, ".tar": _tar, ".jsonl": _lines, ".ndjson": _lines,
    ".csv": _lines, ".tsv": _lines, ".safetensors": _safetensors, ".npy": _whole, ".npz": _whole,
    ".jpg": _whole, ".jpeg": _whole, ".png": _whole, ".wav": _whole,
}  # fmt: skip


def opened(path: Path, table: Table | None) -> Shard:
    """The samples of a file of a known format. Raises Bad, with what is wrong with the whole file."""
    if not path.stat().st_size:
        raise Bad("empty", "the file is empty")
    made: list[Shard] = []
    if (fault := fault_of(lambda: made.append(FORMATS[path.suffix.lower()](path, table)))) is not None:
        word, _, text = fault.partition(": ")
        raise Bad(word, text)
    return made[0]
