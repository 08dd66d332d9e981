"""Files of our own to read: fully written, incompressible, on the device, and the blocks in which they are read.

A file that was only allocated, or is sparse, or still lies in the page cache, reads faster than any disk (62 GB/s was
seen); so every byte is written with random data, past the cache where the file system allows it, and flushed.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from probes.common import io_counters

#: O_DIRECT wants offsets, lengths and addresses in logical blocks; 4096 is a multiple of every one in use.
ALIGN = 4096
_CHUNK_BYTES = 4 << 20
_WRITERS = 4
_LARGEST_READ = 4 << 20
_COALESCED_READ = 1 << 20
#: More files than that are not laid out: each costs the file system a creation.
_MOST_FILES = 8192


@dataclass(frozen=True, slots=True)
class Block:
    """One read: where, how many bytes (aligned), and how many samples (a part of one, if that is large) it brings."""

    file: int
    offset: int
    read_bytes: int
    samples: float


@dataclass(frozen=True, slots=True)
class DataSet:
    """Files and the blocks in which they are read. ``direct``: past the page cache; else through its read-ahead.

    ``apart``: each sample is a file of its own, which a loader opens for every read; to a file server that is most of
    the work where samples are small.
    """

    paths: tuple[str, ...]
    blocks: tuple[Block, ...]
    direct: bool
    bytes: int
    seconds: float
    apart: bool = False


def _aligned(size: float) -> int:
    return max(ALIGN, -(-int(size) // ALIGN) * ALIGN)


def sizes_of_samples(mean: int, deviation: int, count: int, seed: int) -> list[int]:
    """Sizes in bytes: normal, cut at a quarter and at twice the mean, and scaled to the published mean."""
    if deviation <= 0:
        return [mean] * count
    drawn = np.random.default_rng(seed).normal(mean, deviation, count).clip(mean / 4, mean * 2)
    return [max(1, int(size)) for size in drawn * (mean / drawn.mean())]


def plan_blocks(sample_bytes: int, deviation: int, per_file: int, total: int, files: int, seed: int) -> list[Block]:
    """The reads of about ``total`` bytes over ``files`` files of equal length.

    Small samples that share a file are read together, about 1 MiB at once, as a record reader does; a large sample is
    read in pieces of 4 MiB; a small one that has a file of its own has one here too, and is one read.
    """
    if per_file > 1 and sample_bytes * 2 <= _COALESCED_READ:
        each = max(1, _COALESCED_READ // sample_bytes)
        size, samples = _aligned(each * sample_bytes), float(each)
    elif is_apart(sample_bytes, per_file):
        sizes = sizes_of_samples(sample_bytes, deviation, max(files, min(_MOST_FILES, total // sample_bytes)), seed)
        mean = sum(sizes) / len(sizes)
        return [Block(number, 0, _aligned(size), size / mean) for number, size in enumerate(sizes)]
    elif sample_bytes <= _LARGEST_READ and deviation <= 0:
        size, samples = _aligned(sample_bytes), 1.0
    else:
        return _sample_blocks(sizes_of_samples(sample_bytes, deviation, max(files, total // sample_bytes), seed), files)
    return [*_whole_blocks(dict.fromkeys(range(files), max(total // files, size)), size, samples)]


def is_apart(sample_bytes: int, per_file: int) -> bool:
    """Whether each sample lies in a file of its own; of large ones the opening costs nothing beside the reading."""
    return per_file == 1 and sample_bytes <= _LARGEST_READ


def _sample_blocks(sizes: Sequence[int], files: int) -> list[Block]:
    """A large sample in pieces. A piece counts by its bytes over the mean sample's, so that a window in which large
    samples happen to come is no slower window."""
    blocks, ends, mean = [], [0] * files, sum(sizes) / len(sizes)
    for number, size in enumerate(sizes):
        file = number % files
        for start in range(0, size, _LARGEST_READ):
            length = min(_LARGEST_READ, size - start)
            blocks.append(Block(file, ends[file], _aligned(length), length / mean))
            ends[file] += _aligned(length)
    return blocks


def _ends(blocks: Sequence[Block]) -> dict[int, int]:
    """How many bytes of each file the blocks reach."""
    ends: dict[int, int] = {}
    for block in blocks:
        ends[block.file] = max(ends.get(block.file, 0), block.offset + block.read_bytes)
    return ends


def _whole_blocks(ends: Mapping[int, int], size: int, samples: float) -> tuple[Block, ...]:
    """Reads of ``size`` bytes over files of those lengths, the rest of each left out."""
    return tuple(
        Block(file, start, size, samples) for file, end in ends.items() for start in range(0, end - size + 1, size)
    )


def write(folder: str, blocks: Sequence[Block], seed: int, deadline: float, apart: bool = False) -> DataSet:
    """Lay the blocks' bytes out. Past ``deadline`` (monotonic seconds) the rest is left out, if an eighth is there.

    Raises OSError as the file system does (no space, an I/O error).
    """
    started = time.monotonic()
    lengths = sorted(_ends(blocks).items())
    paths = {file: os.path.join(folder, f"data.{file}") for file, _ in lengths}
    files = iter([(paths[file], length) for file, length in lengths])
    job = WriteJob(files, can_be_direct(folder), apart, deadline, sum(length for _, length in lengths) // 8)
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(job.run, range(seed, seed + _WRITERS)))
    kept = tuple(block for block in blocks if block.offset + block.read_bytes <= job.written.get(paths[block.file], 0))
    there = {file: number for number, file in enumerate(sorted({block.file for block in kept}))}
    return DataSet(
        tuple(map(paths.__getitem__, there)), tuple(replace(block, file=there[block.file]) for block in kept),
        job.direct, sum(job.written.values()), time.monotonic() - started, apart,
    )  # fmt: skip


@dataclass(slots=True)
class WriteJob:
    """What several threads write together: files yet to be begun (path, length), and how far each has come."""

    files: Iterator[tuple[str, int]]
    direct: bool
    apart: bool
    deadline: float
    least: int
    written: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, seed: int) -> None:
        """Write files of random bytes, one after another, and flush them. Several threads do."""
        random = np.random.default_rng([seed, os.getpid(), time.time_ns()])
        while (file := self._next()) is not None:
            self._write(*file, random)

    def _next(self) -> tuple[str, int] | None:
        with self.lock:
            return None if self._is_late() else next(self.files, None)

    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline and sum(self.written.values()) >= self.least

    def _write(self, path: str, length: int, random: np.random.Generator) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | (os.O_DIRECT if self.direct else 0), 0o600)
        try:
            self._fill(fd, path, length, random)
            if not (self.direct and self.apart):  # thousands of flushes would take longer than the reading
                os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    def _fill(self, fd: int, path: str, length: int, random: np.random.Generator) -> None:
        done = 0
        with mmap.mmap(-1, min(_CHUNK_BYTES, length)) as memory, memoryview(memory) as chunk:
            while done < length and not (done and self._is_late()):
                chunk[:] = random.bytes(len(chunk))
                with chunk[: length - done] as data:
                    if os.pwrite(fd, data, done) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
                    done += len(data)
                self.written[path] = done


def existing(paths: Sequence[str], block_bytes: int, samples: float) -> DataSet:
    """Files that are already there, read whole blocks at a time."""
    sizes = dict(enumerate(map(os.path.getsize, paths)))
    blocks = _whole_blocks(sizes, block_bytes, samples)
    if not blocks:
        raise OSError(errno.EINVAL, f"no file holds {block_bytes} bytes", paths[0] if paths else "")
    return DataSet(tuple(paths), blocks, can_be_direct(paths[0]), sum(sizes.values()), 0.0)


def cut(data: DataSet, block_bytes: int, sample_bytes: int) -> tuple[Block, ...]:
    """The same files in blocks of another size."""
    return _whole_blocks(_ends(data.blocks), block_bytes, block_bytes / sample_bytes)


def can_be_direct(path: str) -> bool:
    """Whether a file opens past the page cache; of a folder, whether a block can be written past it there."""
    try:
        if os.path.isdir(path):
            io_counters.try_direct(path)
        else:
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP_UNWRITTEN = 0x800
_FIEMAP_LAST = 0x1


def unwritten_bytes(path: str) -> int:
    """Bytes of a file that no disk holds: holes, and extents that were allocated but never written.

    Holes by SEEK_HOLE; unwritten extents by FIEMAP, where the file system answers it (ext4, xfs, btrfs).
    """
    with open(path, "rb", buffering=0) as file:
        return _holes(file.fileno(), os.path.getsize(path)) + _unwritten_extents(file.fileno())


def _holes(fd: int, size: int) -> int:
    total = position = 0
    try:
        while position < size:
            hole = os.lseek(fd, position, os.SEEK_HOLE)
            if hole >= size:
                break
            try:
                position = os.lseek(fd, hole, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                position = size
            total += position - hole
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return total


def _unwritten_extents(fd: int) -> int:
    total, start = 0, 0
    while True:
        # struct fiemap: start, length, flags, mapped, count, reserved; then extents of 56 bytes each.
        request = bytearray(struct.pack("=QQIIII", start, (1 << 64) - 1 - start, 0, 0, 128, 0) + bytes(56 * 128))
        try:
            fcntl.ioctl(fd, _FS_IOC_FIEMAP, request)
        except OSError:
            return 0  # not known here: the bytes that came from the device are the second witness
        mapped = struct.unpack_from("=I", request, 20)[0]
        for index in range(mapped):
            logical, _, length = struct.unpack_from("=QQQ", request, 32 + 56 * index)
            flags = struct.unpack_from("=I", request, 32 + 56 * index + 40)[0]
            total += length if flags & _FIEMAP_UNWRITTEN else 0
            start = logical + length
        if mapped == 0 or flags & _FIEMAP_LAST:
            return total
