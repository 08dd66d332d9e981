"""Files that are one sample: an image, a sound, NumPy arrays. Their content may lie in a tar too."""

from __future__ import annotations

import io
import json
import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from probes.data.description import Table
from probes.data.load.formats.shard import LARGEST_SAMPLE, Bad, Sample, Shard, regular_file, sample_of


def one_sample(path: Path, table: Table | None) -> Shard:
    suffix = path.suffix.lower()

    def read(_: float) -> Sample:
        data = _content(path)
        return sample_of("", data, (), lambda: decode(suffix, data))

    return Shard(1, read)


def _content(path: Path) -> bytes:
    with regular_file(path) as file:
        data = file.read(LARGEST_SAMPLE + 1)
    if not data:
        raise Bad("empty: the file is empty")
    if len(data) > LARGEST_SAMPLE:
        raise Bad(f"too_large: one sample of more than {LARGEST_SAMPLE >> 20} MiB")
    return data


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
        raise Bad("undecodable: no WAVE file")
    at, frame = 12, 0
    while at + 8 <= len(data):
        name, wanted = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt ":
            (frame,) = struct.unpack_from("<H", data, at + 12)
        elif name == b"data":
            if not wanted:
                raise Bad("empty: no sound in it")
            if (had := min(wanted, len(data) - at)) != wanted:
                raise Bad(f"truncated: {had} of {wanted} bytes of sound")
            if not frame or wanted % frame:
                raise Bad(f"undecodable: {wanted} bytes of sound in frames of {frame}")
            return
        at += wanted + wanted % 2
    raise Bad("truncated: no sound follows its header")


def _array(data: bytes) -> None:
    import numpy as np

    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise Bad("unsafe: it holds Python objects, which are not loaded")
    wanted, had = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if had != wanted:
        raise Bad(f"truncated: {had} of {wanted} bytes of values")
    if not wanted:
        raise Bad("empty: no values in it")


def _arrays(data: bytes) -> None:
    """An ``.npz``: a zip archive of arrays, each with a checksum of its own."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > LARGEST_SAMPLE:
            raise Bad(f"too_large: it unpacks to more than {LARGEST_SAMPLE >> 20} MiB")
        if not members:
            raise Bad("empty: no array in it")
        for member in members:
            _array(archive.read(member))


_CONTENT: Mapping[str, Callable[[bytes], object]] = {
    ".jpg": _image, ".jpeg": _image, ".png": _image, ".wav": _sound, ".npy": _array, ".npz": _arrays,
    ".json": json.loads, ".txt": bytes.decode, ".cls": bytes.decode,
}  # fmt: skip


def decode(suffix: str, data: bytes) -> None:
    if not data:
        raise Bad(f"empty: its {suffix or 'content'} is empty")
    if suffix in _CONTENT:
        _CONTENT[suffix](data)
