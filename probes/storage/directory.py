"""A directory before it is measured: is it storage, and how may it be asked? Also what ``bench doctor`` says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure.jsonl import decoded
from bench.measure.probe import Check, Completed, Failed, ProbeError, TimedOut, Tools, Unsupported
from bench.model import Code

ANOTHER = "give another directory: --storage DIR"
_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"))
_TIMEOUT = 15.0
_SECTOR_BYTES = 512  # of /sys/dev/block/*/stat, whatever the device's own sectors are (kernel: block/stat.rst)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that can be measured, as `directory_child` found it. ``label`` is its absolute path."""

    label: str
    fstype: str
    device: str
    free_bytes: int
    reserve_bytes: int
    direct: bool
    direct_error: str | None
    io_uring: bool
    io_uring_error: str | None
    cpus: int


def look(tools: Tools, directory: str) -> Place:
    """What is known of a directory. Raises Unsupported where it is no storage, TimedOut where it hangs."""
    _refuse_unprintable(directory)
    try:
        done = tools.python("probes.storage.directory_child", directory, name="place", timeout=_TIMEOUT)
    except TimedOut as error:
        raise TimedOut(Code.PATH_HANGS, f"{directory} did not answer within {_TIMEOUT:.0f} s", ANOTHER) from error
    known = _answer(done)
    if known.get("error"):
        raise Unsupported.told(str(known["error"]), ANOTHER)
    if known.get("fstype") in _MEMORY:
        raise Unsupported(Code.TMPFS, f"{directory} is memory ({known['fstype']}), not storage", ANOTHER)
    return _place(known)


def _refuse_unprintable(directory: str) -> None:
    if any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in directory):
        raise Unsupported(Code.REFUSED, f"{directory!a} has control characters or is not UTF-8", ANOTHER)


def _answer(done: Completed) -> dict[str, Any]:
    known = decoded(done.stdout)
    if done.returncode == 0 and known is not None:
        return known
    said = (done.stderr or done.stdout).strip()[-200:]
    raise Failed(Code.PLACE_OUTPUT, f"no answer on the directory (status {done.returncode}): {said!r}")


def _place(known: Mapping[str, Any]) -> Place:
    try:
        return Place(
            label=str(known["path"]),
            fstype=str(known["fstype"]),
            device=str(known["device"]),
            free_bytes=int(known["free_bytes"]),
            reserve_bytes=min(int(known["size_bytes"]) // 20, 1 << 30),
            direct=bool(known["direct"]),
            direct_error=known.get("direct_error"),
            io_uring=bool(known["io_uring"]),
            io_uring_error=known.get("io_uring_error"),
            cpus=max(1, int(known["cpus"])),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Failed(Code.PLACE_OUTPUT, f"the answer on the directory cannot be used: {error!r}") from error


def counters(device: str) -> str:
    """The kernel's counters of a block device (``major:minor``), as text; empty where there are none (NFS, btrfs)."""
    if re.fullmatch(r"\d+:\d+", device):
        with suppress(OSError):
            return Path(f"/sys/dev/block/{device}/stat").read_text(encoding="ascii")
    return ""


def parse_counters(text: str) -> tuple[int, int] | None:
    """(bytes read, bytes written) since boot; None where the kernel counts nothing. Raises Failed on garbage."""
    fields = text.split()
    if not fields:
        return None
    try:
        return int(fields[2]) * _SECTOR_BYTES, int(fields[6]) * _SECTOR_BYTES
    except (ValueError, IndexError) as error:
        raise Failed(Code.PLACE_OUTPUT, f"{text[:60]!r} are no counters of a block device") from error


def checks(tools: Tools, directory: str) -> list[Check]:
    """What ``bench doctor`` says of one directory."""
    name = f"storage {directory}"
    try:
        place = look(tools, directory)
    except ProbeError as error:
        return [Check(name, False, error.reason, error.remedy)]
    free = place.free_bytes / 1e9
    if not place.direct:
        detail = f"{place.fstype}, {free:.1f} GB free, no O_DIRECT ({place.direct_error}): reads may come from a cache"
        return [Check(name, False, detail, ANOTHER)]
    ring = "io_uring" if place.io_uring else f"libaio, because io_uring is forbidden ({place.io_uring_error})"
    return [Check(name, True, f"{place.fstype}, {free:.1f} GB free, O_DIRECT, {ring}")]
