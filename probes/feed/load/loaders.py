"""The way people load: torch's DataLoader with worker processes over samples, tar shards, safetensors or Parquet.

They feed the same accelerator as the yardstick reader, from data of their own format in the same directory, through
the page cache as they always do; behind each read the cache is told to forget, so that every epoch is cold. What they
lose against the yardstick on the same path is software's, not the hardware's.
"""

from __future__ import annotations

import os
import queue
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from probes.feed.load import decode as decoding
from probes.feed.load.reader import Buffer, Ready, clock
from probes.feed.load.spec import Refused, Spec
from probes.loads import loader_formats

_MOST_BATCH_BYTES = 64 << 20
_MOST_DATA_BYTES = 1 << 30


class Loader:
    """A format's files below the spec's folder, and DataLoaders over them. Raises Refused when a package is missing."""

    def __init__(self, spec: Spec, batch: int) -> None:
        self.format = loader_formats.by_name(spec.loader or "")
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
            loader_formats.forget(file)
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
            loader_formats.forget(file)

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
        self.device_bytes = sum(_read_bytes(pid) for pid in workers)
        self._thread.join(timeout)
        shut_down = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()
        return ran


def _read_bytes(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    return 0


def check(name: str) -> None:
    """Raises Refused when the format or a package that it needs is not there."""
    if name not in loader_formats.NAMES:
        raise Refused("unknown_loader", f"{name!r}; known are {', '.join(loader_formats.NAMES)}")
    loader_formats.by_name(name)


def cores() -> int:
    return len(os.sched_getaffinity(0))
