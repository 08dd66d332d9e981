"""Whether reads really came from a device: its counters, the page cache, and file systems that are memory."""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.measure import procfs

#: statfs(2) magic numbers of file systems whose data lives in memory: there is no storage to measure.
_IN_MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs", 0x958458F6: "hugetlbfs"}
_ZFS = 0x2FC12FC1
FIRST_DIRECT_ZFS = (2, 3)  # OpenZFS takes O_DIRECT since 0.8, and goes round its cache (the ARC) since 2.3
ARC = "zfs-arc"
_SECTOR_BYTES = 512  # of /sys/dev/block/*/stat, whatever the device's own sectors are (kernel: block/stat.rst)
_BLOCK_BYTES = 4096
_PROBE_DISTANCE = 128 << 10
_INFINIBAND = Path("/sys/class/infiniband")


def device_of(path: str) -> str | None:
    """``major:minor`` of the block device below a path; None for a file system without one (NFS, overlay).

    `ARC` for a ZFS that answers O_DIRECT from its own cache, and counts that as read.
    """
    if _type_of_file_system(path) == _ZFS and zfs_version() < FIRST_DIRECT_ZFS:
        return ARC
    number = os.stat(path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    return name if Path(f"/sys/dev/block/{name}").exists() else None


def block_counters(device: str | None) -> str:
    """The kernel's counters of a block device, as text; empty where there are none (NFS, btrfs)."""
    return procfs.read(f"/sys/dev/block/{device}/stat") if re.fullmatch(r"\d+:\d+", device or "") else ""


def parse_block_counters(text: str) -> tuple[int, int] | None:
    """(bytes read, bytes written) by the whole node since boot; None where the kernel counts nothing.

    Raises ValueError or IndexError on garbage.
    """
    fields = text.split()
    return (int(fields[2]) * _SECTOR_BYTES, int(fields[6]) * _SECTOR_BYTES) if fields else None


def network_read_bytes() -> int:
    """Bytes that this node's network cards have received since boot, the loopback's left out.

    Of devices on top of each other (bonds, bridges, VLANs) the lowest counts. RDMA bypasses the network devices and
    is counted by the InfiniBand ports in words of four bytes; where a port carries both, the larger of the two sums.
    """
    cards = {name: received for name, (received, _) in procfs.link_bytes().items() if name != "lo"}
    lowest = sum(count for name, count in cards.items() if not any(Path("/sys/class/net", name).glob("lower_*")))
    words = (int(procfs.read(path) or 0) for path in _INFINIBAND.glob("*/ports/*/counters/port_rcv_data"))
    return max(lowest, 4 * sum(words))


class Delivered:
    """Bytes that came from below a file system since this was made, by the nearest witness that it has.

    The process's own count; where a file system keeps none (FUSE, Lustre) its block device's; else the network's. A
    loop device delivers what the page cache holds of its file: there only the disk that holds the file is a witness.
    A ZFS that reads from its own cache has none.
    """

    def __init__(self, device: str | None) -> None:
        self._cached = is_loop(device) or device == ARC
        self._device = below_loop(device)
        self._begin = self._now()

    def _now(self) -> tuple[int, int | None, int]:
        device = parse_block_counters(block_counters(self._device))
        return procfs.read_bytes(), device and device[0], network_read_bytes()

    def each(self, own: int | None = None) -> tuple[int, int | None, int]:
        """By the process itself (``own``: by its children), by the block device (None without one), by the network."""
        (began, device, network), now = self._begin, self._now()
        own = now[0] - began if own is None else own
        below = None if device is None or now[1] is None else now[1] - device
        if self._cached:
            below = below or 0
            own = min(own, below)
        return own, below, now[2] - network

    def best(self) -> int:
        own, device, network = self.each()
        return own if own > 0 else network if device is None else device


def is_loop(device: str | None) -> bool:
    return device is not None and Path(f"/sys/dev/block/{device}/loop").is_dir()


def below_loop(device: str | None) -> str | None:
    """The device that holds a loop device's file; None where that is memory, or cannot be seen from here."""
    if device is None or not is_loop(device):
        return device
    try:
        file = Path(f"/sys/dev/block/{device}/loop/backing_file").read_text(encoding="utf-8").rstrip("\n")
        return below_loop(device_of(file))
    except OSError:
        return None


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds spent by everybody on this node since boot, and by this process and its children."""
    return procfs.cpu_ticks().busy / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def memory_file_system(path: str) -> str | None:
    """The name of the file system or block device in memory that holds ``path``, or None. Raises OSError as statfs."""
    return _IN_MEMORY.get(_type_of_file_system(path)) or memory_device(device_of(path))


def _type_of_file_system(path: str) -> int:
    """The magic number that statfs(2) tells. Raises OSError as it does."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), buffer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return int(struct.unpack_from("=q", buffer.raw)[0] & 0xFFFFFFFF)


def zfs_version() -> tuple[int, ...]:
    """Of the loaded module; (0,) where there is none."""
    found = re.match(r"(\d+)\.(\d+)", procfs.read("/sys/module/zfs/version"))
    return (int(found[1]), int(found[2])) if found else (0,)


def memory_device(device: str | None) -> str | None:
    """The name of a block device that is memory (``zram0``, ``ram0``), None for any other."""
    name = "" if device is None else Path(f"/sys/dev/block/{device}").resolve().name
    return name if re.fullmatch(r"z?ram\d+", name) else None


def resident_ratio(paths: Sequence[str], probes: int = 256) -> float | None:
    """The share of evenly spaced positions that the page cache could answer at once, by ``preadv2(RWF_NOWAIT)``.

    Needs no privilege. Recent kernels begin to read what they could not answer, so the positions are far apart, no
    read-ahead is asked for, and what was brought in is dropped again. None where the file system cannot say.
    """
    asked = hits = 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            fd = file.fileno()
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
                size = os.fstat(fd).st_size
                hop = max(_PROBE_DISTANCE, size * len(paths) // probes)
                for position in range(hop // 2, size, hop):
                    asked += 1
                    hits += _is_resident(fd, position)
                if not hits:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                return None
    return hits / asked if asked else None


def _is_resident(fd: int, position: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def evict(paths: Sequence[str]) -> None:
    """Drop the files' pages from the page cache; needs no privilege. Only clean pages go, so flush first."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def try_direct(folder: str) -> None:
    """Write and read one block round the page cache, and leave nothing. Raises OSError where that does not work."""
    fd = _nameless(folder)
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            os.pwritev(fd, [block], 0)
            os.preadv(fd, [block], 0)
    finally:
        os.close(fd)


def _nameless(folder: str) -> int:
    """A file opened with O_DIRECT that leaves no name behind, whatever happens to this process."""
    with suppress(OSError):
        return os.open(folder, os.O_TMPFILE | os.O_DIRECT | os.O_RDWR, 0o600)
    fd, name = tempfile.mkstemp(prefix=".aiready-bench-direct-", dir=folder)
    os.close(fd)
    try:
        return os.open(name, os.O_DIRECT | os.O_RDWR)
    finally:
        os.unlink(name)
