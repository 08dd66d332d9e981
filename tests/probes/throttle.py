"""A limit of known size on a disk, by cgroup v1 (blkio): the truth that a storage figure is held against. Root only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TOP = Path("/sys/fs/cgroup/blkio")


def why_not(folder: Path) -> str | None:
    """Why a limit cannot be put on the disk below ``folder``; None where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not (_TOP / "blkio.throttle.read_bps_device").exists():
        return "needs cgroup v1 with blkio"
    device = os.stat(folder).st_dev
    if not Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists():
        return f"{folder} is not on a block device of its own"
    return None


@contextmanager
def throttled(folder: Path, bytes_per_second: int) -> Iterator[None]:
    """This process and what it starts may read so much from the disk below ``folder``."""
    device = os.stat(folder).st_dev
    group = _TOP / f"aiready-test-{os.getpid()}"
    group.mkdir()
    try:
        limit = f"{os.major(device)}:{os.minor(device)} {bytes_per_second}"
        (group / "blkio.throttle.read_bps_device").write_text(limit)
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (_TOP / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()
