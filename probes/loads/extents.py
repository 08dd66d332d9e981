"""Bytes of a file that no disk holds: a reader of them measures the kernel's zeros."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_FS_IOC_FIEMAP = 0xC020660B
_FIEMAP_UNWRITTEN = 0x800
_FIEMAP_LAST = 0x1


def unwritten_bytes(path: str) -> int:
    """Bytes of a file that no disk holds: holes, and extents that were allocated but never written.

    Holes by SEEK_HOLE; unwritten extents by FIEMAP, where the file system answers it (ext4, xfs, btrfs).
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        return _holes(fd, size) + _unwritten_extents(fd)
    finally:
        os.close(fd)


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
