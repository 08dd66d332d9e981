"""The way people load: torch's DataLoader with worker processes over samples, tar shards, safetensors or Parquet.

They feed the same accelerator as the yardstick reader, from data of their own format in the same directory, through
the page cache as they always do; behind each read the cache is told to forget, so that every epoch is cold. What they
lose against the yardstick on the same path is software's, not the hardware's.
"""

from __future__ import annotations

import importlib
import io
import os
import queue
import random
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure.procfs import read_bytes
from probes.feed.load import decode as decoding
from probes.feed.load.reader import Buffer, Ready, clock
from probes.feed.load.spec import Refused, Spec

_MOST_BATCH_BYTES = 64 << 20
_MOST_DATA_BYTES = 1 << 30


class Loader:
    """A format's files below the spec's folder, and DataLoaders over them. Raises Refused when a package is missing."""

    def __init__(self, spec: Spec, batch: int) -> None:
        self.format = by_name(spec.loader or "")
        self.name, self.workers = self.format.name, min(spec.readers, max(2, cores()))
        self.batch = max(1, min(batch, _MOST_BATCH_BYTES // spec.sample_bytes))
        self._spec = spec
        folder = Path(spec.folder) / "loader"
        folder.mkdir()
        bytes_wanted = min(spec.data_bytes, _MOST_DATA_BYTES)
        self.files = self.format.write(folder, spec.sample_bytes, bytes_wanted, spec.seed)
        self._epoch = 0

    def open(self) -> Running:
        self._epoch += 1
        for file in self.files:
            forget(file)
        return Running(self, self._spec, self._epoch)

    def dataset(self, epoch: int) -> Any:
        return _samples_of(self, self._spec, epoch)


def _samples_of(loader: Loader, spec: Spec, epoch: int) -> Any:
    """An endless torch IterableDataset: each worker takes its share of the files, shuffled anew in each pass."""
    from torch.utils.data import IterableDataset, get_worker_info

    decode = decoding.by_name(spec.decode, 1.0)

    class Samples(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            info = get_worker_info()
            rank, total = (info.id, info.num_workers) if info is not None else (0, 1)
            rng = random.Random(spec.seed * 1_000_003 + epoch * 1009 + rank)
            mine = loader.files[rank::total] or loader.files
            while True:
                rng.shuffle(mine)
                for file in mine:
                    yield from self._of(file)

        def _of(self, file: Path) -> Iterator[Any]:
            for sample in loader.format.read(file):
                if decode is not None:
                    decode(memoryview(sample.numpy()))
                yield sample
            forget(file)

    return Samples()


class Running:
    """A DataLoader at work: batches are taken at once and stamped, as a training loop's `next` would find them."""

    def __init__(self, loader: Loader, spec: Spec, epoch: int) -> None:
        from torch.utils.data import DataLoader

        data = DataLoader(loader.dataset(epoch), batch_size=loader.batch, num_workers=loader.workers, prefetch_factor=2)
        self.read_bytes = 0
        self.cpu_seconds = 0.0
        self.wait_seconds: list[float] = []
        self.device_bytes: int | None = 0
        self._size = spec.sample_bytes
        self._ready: queue.Queue[Ready | OSError] = queue.Queue(maxsize=2)
        self._stopping = False
        self._iterator = iter(data)
        self.started = clock()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        try:
            while not self._stopping:
                batch = next(self._iterator)
                self._put(Ready(clock(), float(len(batch)), batch.numel(), memoryview(batch.numpy()).cast("B")))
        except (OSError, RuntimeError, StopIteration) as error:
            self._put(OSError(5, f"the loader ended: {error}"))

    def _put(self, item: Ready | OSError) -> None:
        while not self._stopping:
            with suppress(queue.Full):
                self._ready.put(item, timeout=0.2)
                return

    def get(self, timeout: float) -> Ready:
        try:
            item = self._ready.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"the loader gave nothing for {timeout:.0f} s") from None
        if isinstance(item, OSError):
            raise item
        self.read_bytes += item.read_bytes
        return item

    def give_back(self, buffer: Buffer) -> None:
        return None

    def close(self, timeout: float) -> float:
        self._stopping = True
        ran = clock() - self.started
        workers = [process.pid for process in getattr(self._iterator, "_workers", [])]
        self.device_bytes = sum(read_bytes(pid) for pid in workers)
        self._thread.join(timeout)
        shut_down = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        return ran


def check(name: str) -> None:
    """Raises Refused when the format or a package that it needs is not there."""
    if name not in NAMES:
        raise Refused("unknown_loader", f"{name!r}; known are {', '.join(NAMES)}")
    by_name(name)


def cores() -> int:
    return len(os.sched_getaffinity(0))


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
