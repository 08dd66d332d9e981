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
from probes.common import io_counters
from probes.feed.load.reader import CannotFeed, Feed, ReadyBlock, clock, decoder
from probes.feed.plan import Spec

_MOST_BATCH_BYTES = 64 << 20
_MOST_DATA_BYTES = 1 << 30
_SHARD_BYTES = 32 << 20


class Loader:
    """A format's files below the spec's folder, and DataLoaders over them. Raises CannotFeed without the package."""

    def __init__(self, spec: Spec, batch: int) -> None:
        self.format = format_named(spec.loader or "")
        self.name, self.workers = self.format.name, min(spec.readers, max(2, len(os.sched_getaffinity(0))))
        self.batch = max(1, min(batch, _MOST_BATCH_BYTES // spec.sample_bytes))
        self.spec = spec
        folder = Path(spec.folder) / "loader"
        folder.mkdir()
        self.files = self.format.write(folder, spec.sample_bytes, min(spec.data_bytes, _MOST_DATA_BYTES), spec.seed)
        self._epoch = 0

    def open(self) -> LoaderFeed:
        self._epoch += 1
        io_counters.evict(self.files)
        return LoaderFeed(self, self._epoch)


def _dataset(loader: Loader, epoch: int) -> Any:
    """An endless torch IterableDataset: each worker takes its share of the files, shuffled anew in each pass."""
    from torch.utils.data import IterableDataset, get_worker_info

    decode = decoder(loader.spec.decode, 1.0)

    class Samples(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            info = get_worker_info()
            rank, total = (info.id, info.num_workers) if info is not None else (0, 1)
            rng = random.Random(loader.spec.seed * 1_000_003 + epoch * 1009 + rank)
            mine = loader.files[rank::total] or loader.files
            while True:
                rng.shuffle(mine)
                for file in mine:
                    for sample in loader.format.read(Path(file)):
                        if decode is not None:
                            decode(memoryview(sample.numpy()))
                        yield sample
                    io_counters.evict([file])

    return Samples()


class LoaderFeed(Feed):
    """A DataLoader at work: batches are taken at once and stamped, as a training loop's `next` would find them."""

    nothing = "the loader gave nothing"

    def __init__(self, loader: Loader, epoch: int) -> None:
        from torch.utils.data import DataLoader

        data = DataLoader(
            _dataset(loader, epoch), batch_size=loader.batch, num_workers=loader.workers, prefetch_factor=2
        )
        super().__init__(queue.Queue(maxsize=2))
        self._iterator = iter(data)
        self.started = clock()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        try:
            while not self._stopping:
                batch = next(self._iterator)
                data = memoryview(batch.numpy()).cast("B")
                self._put(ReadyBlock(clock(), float(len(batch)), batch.numel(), data))
        except (OSError, RuntimeError, StopIteration) as error:
            self._put(OSError(5, f"the loader ended: {error}"))

    def _put(self, item: ReadyBlock | OSError) -> None:
        while not self._stopping:
            with suppress(queue.Full):
                self._ready.put(item, timeout=0.2)
                return

    def get(self, timeout: float) -> ReadyBlock:
        item = super().get(timeout)
        self.read_bytes += item.read_bytes
        return item

    def close(self, timeout: float) -> float:
        self._stopping = True
        ran = clock() - self.started
        workers = getattr(self._iterator, "_workers", [])
        self.device_bytes = sum(read_bytes(process.pid) for process in workers)
        self._thread.join(timeout)
        shut_down = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        return ran


@dataclass(frozen=True, slots=True)
class Format:
    """How a shard is written (file, samples as bytes) and read back (samples as uint8 tensors)."""

    name: str
    suffix: str
    write_shard: Callable[[Path, list[bytes]], None]
    read: Callable[[Path], Iterator[Any]]
    needs: str = "torch"

    def write(self, folder: Path, sample_bytes: int, total: int, seed: int) -> list[str]:
        """Shards of about 32 MiB, random bytes, flushed to the device."""
        each = max(1, _SHARD_BYTES // sample_bytes)
        rng = np.random.default_rng([seed, os.getpid()])
        files = []
        for index in range(max(4, total // (each * sample_bytes))):
            file = folder / f"shard-{index:06d}{self.suffix}"
            self.write_shard(file, [rng.bytes(sample_bytes) for _ in range(each)])
            with file.open("rb") as written:
                os.fsync(written.fileno())
            files.append(str(file))
        return files


def format_named(name: str) -> Format:
    """Raises CannotFeed when the name is not known or the format's package is not installed."""
    formats = {found.name: found for found in _FORMATS}
    if name not in formats:
        raise CannotFeed("unknown_loader", f"{name!r} is no loader; known are {', '.join(formats)}")
    _need("torch")
    _need(formats[name].needs)
    return formats[name]


def _need(module: str) -> None:
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        package = module.partition(".")[0]
        raise CannotFeed("package_missing", f"the loader needs the package {package}: {error}") from error


def _tensor(data: Any) -> Any:
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
    with importlib.import_module("pyarrow.parquet").ParquetFile(str(file)) as source:
        for group in range(source.num_row_groups):
            for value in source.read_row_group(group, columns=["data"]).column("data"):
                yield _tensor(value.as_buffer())


_FORMATS = (
    Format("torch", ".bin", _write_raw, _read_raw),
    Format("webdataset", ".tar", _write_tar, _read_tar, "webdataset"),
    Format("safetensors", ".safetensors", _write_safetensors, _read_safetensors, "safetensors.torch"),
    Format("parquet", ".parquet", _write_parquet, _read_parquet, "pyarrow.parquet"),
)
