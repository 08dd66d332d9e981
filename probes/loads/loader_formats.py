"""The files that people's loaders read: raw samples, WebDataset tar shards, safetensors, Parquet row groups."""

from __future__ import annotations

import importlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.feed.load.spec import Refused

NAMES = ("torch", "webdataset", "safetensors", "parquet")
_SHARD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """How a shard is written (file, samples as bytes) and read back (samples as uint8 tensors)."""

    name: str
    suffix: str
    write_shard: Callable[[Path, list[bytes]], None]
    read: Callable[[Path], Iterator[Any]]

    def write(self, folder: Path, sample_bytes: int, total: int, seed: int) -> list[Path]:
        """Shards of about 32 MiB, random bytes, flushed to the device and dropped from the cache."""
        each = max(1, _SHARD_BYTES // sample_bytes)
        rng = np.random.default_rng([seed, os.getpid()])
        files = []
        for index in range(max(4, total // (each * sample_bytes))):
            file = folder / f"shard-{index:06d}{self.suffix}"
            self.write_shard(file, [rng.bytes(sample_bytes) for _ in range(each)])
            with file.open("rb") as written:
                os.fsync(written.fileno())
            forget(file)
            files.append(file)
        return files


def forget(file: Path) -> None:
    """Drop a file from the page cache; needs no privilege."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def by_name(name: str) -> Format:
    """Raises Refused when the name is not known or the format's package is not installed."""
    _need("torch", "torch")
    if name == "torch":
        return Format("torch", ".bin", _write_raw, _read_raw)
    if name == "webdataset":
        _need("webdataset", "webdataset")
        return Format("webdataset", ".tar", _write_tar, _read_tar)
    if name == "safetensors":
        _need("safetensors.torch", "safetensors")
        return Format("safetensors", ".safetensors", _write_safetensors, _read_safetensors)
    if name == "parquet":
        _need("pyarrow.parquet", "pyarrow")
        return Format("parquet", ".parquet", _write_parquet, _read_parquet)
    raise Refused("unknown_loader", f"{name!r} is no loader; known are {', '.join(NAMES)}")


def _need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise Refused("package_missing", f"the loader needs the package {package}: {error}") from error


def _tensor(data: bytes) -> Any:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _write_raw(file: Path, samples: list[bytes]) -> None:
    file.write_bytes(b"".join([len(samples).to_bytes(8, "little"), *samples]))


def _read_raw(file: Path) -> Iterator[Any]:
    """A map-style dataset's access: one ``read`` a sample."""
    with file.open("rb", buffering=0) as source:
        count = int.from_bytes(source.read(8), "little")
        size = (os.fstat(source.fileno()).st_size - 8) // count
        for _ in range(count):
            yield _tensor(source.read(size))


def _write_tar(file: Path, samples: list[bytes]) -> None:
    with tarfile.open(file, "w") as shard:
        for index, sample in enumerate(samples):
            member = tarfile.TarInfo(f"{index:08d}.bin")
            member.size = len(sample)
            shard.addfile(member, io.BytesIO(sample))


def _read_tar(file: Path) -> Iterator[Any]:
    webdataset = importlib.import_module("webdataset")
    shards = webdataset.WebDataset(str(file), shardshuffle=False, nodesplitter=None, workersplitter=None)
    for sample in shards:  # each worker is given its own shards already, so nothing is split again
        yield _tensor(sample["bin"])


def _write_safetensors(file: Path, samples: list[bytes]) -> None:
    library = importlib.import_module("safetensors.torch")
    library.save_file({f"{index:08d}": _tensor(sample) for index, sample in enumerate(samples)}, str(file))


def _read_safetensors(file: Path) -> Iterator[Any]:
    """The clone touches every page: a lazy map alone has read nothing yet."""
    with importlib.import_module("safetensors").safe_open(str(file), framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a dict
            yield tensors.get_tensor(name).clone()


def _write_parquet(file: Path, samples: list[bytes]) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    table = arrow.table({"data": arrow.array(samples, arrow.binary())})
    group = max(1, len(samples) // 8)
    parquet.write_table(table, str(file), row_group_size=group, compression="none", use_dictionary=False)


def _read_parquet(file: Path) -> Iterator[Any]:
    source = importlib.import_module("pyarrow.parquet").ParquetFile(str(file))
    try:
        for group in range(source.num_row_groups):
            for value in source.read_row_group(group, columns=["data"]).column("data"):
                yield _tensor(value.as_buffer())
    finally:
        source.close()
