"""Which machine this is: facts that explain a figure, and the fingerprint of those that identify it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import __version__
from bench.measure import tools
from bench.measure.probe import ProbeError
from bench.measure.procfs import boot_id, read
from bench.model import Node, Source

TOOLS = ("fio", "iperf3")
_NVIDIA = Path("/proc/driver/nvidia")
_PACKAGES = ("torch", "nvidia-ml-py")
#: Of the product: what decides a figure or a verdict.
_OURS = (".py", ".toml", ".json", ".j2", ".css")
_OCTAL = re.compile(r"\\([0-7]{3})")
#: What makes it another machine for whoever compares figures. Load, free memory, boot time do not, nor what is mounted.
_IDENTITY = ("kernel", "architecture", "cpu", "governor", "memory_bytes", "gpus", "nvidia_driver", "versions")


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a path lives. ``device`` is ``major:minor`` as the kernel prints it (``0:45`` for network and memory)."""

    point: str
    source: str
    fstype: str
    device: str
    options: str
    super_options: str = ""


def mount_of(path: Path, mountinfo: str | None = None) -> Mount | None:
    """The mount that holds ``path`` (the last longest match wins, as in the kernel). None where /proc is absent."""
    if mountinfo is None:
        mountinfo = read("/proc/self/mountinfo")
    real, best = os.path.realpath(path), None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 6 or len(tail) < 2:
            continue
        point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, tail[1], tail[0], fields[2], fields[5], " ".join(tail[2:]))
    return best


def _told(mount: Mount) -> dict[str, str]:
    """As a fact: without the file system's own options, which may name a user."""
    return {name: value for name, value in asdict(mount).items() if name != "super_options"}


def _found(pattern: str, path: str | Path) -> str | None:
    """What the group of a pattern matches in a file; None where there is no such file or line."""
    found = re.search(pattern, read(path), re.M)
    return found[1].strip() if found else None


def tool_version(tool: str, timeout: float = 10) -> str | None:
    """The first line that the tool prints of itself, None if it is not there or does not answer."""
    with suppress(ProbeError):
        done = tools.run([tools.require(tool), "--version"], timeout=timeout)
        return next((line.strip()[:100] for line in (done.stdout or done.stderr).splitlines()), None)
    return None


def nvidia_driver() -> str | None:
    """The version of the NVIDIA driver that is loaded."""
    return _found(r"Module\s+(\d[\d.]+)", _NVIDIA / "version")


def versions(timeout: float = 10) -> dict[str, str]:
    """Tools and packages that make the numbers, by name; what is absent is left out. Nothing is imported for it.

    ``timeout``: how many seconds each tool may take to answer.
    """
    found = {"bench": __version__, "python": platform.python_version()}
    found |= {tool: version for tool in TOOLS if (version := tool_version(tool, timeout))}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def sources() -> tuple[Source, ...]:
    """What figures are made by, with digests: this product, file by file, and the tools that it runs."""
    root = Path(__file__).resolve().parents[2]
    files = (path for package in ("bench", "probes") for path in (root / package).rglob("*") if path.suffix in _OURS)
    named = sorted((str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)
    product = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in named).encode()).hexdigest()
    found = [Source(kind="product", name=f"aiready-bench {__version__}", sha256=product)]
    for tool in TOOLS:
        with suppress(ProbeError, OSError):
            path = Path(tools.require(tool))
            found.append(Source(kind="tool", name=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    return tuple(found)


def _cards() -> list[Path]:
    """What the kernel says of each GPU: no library and no permission needed."""
    return sorted(_NVIDIA.glob("gpus/*/information"))


def identity() -> str | None:
    """Digest of what is this machine's alone: its machine-id and its GPUs, whichever way they are numbered.

    None where it has neither, as in a container: then nothing says which machine it is.
    """
    uuids = sorted(_found(r"^GPU UUID:\s*(\S+)", card) or "" for card in _cards())
    words = [read("/etc/machine-id").strip(), *uuids]
    if not any(words):
        return None
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def facts(storage: Sequence[Path] = (), told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything known about the node, JSON-able. Absent facts are null or left out, never guessed.

    ``told``: what a driver says, where the kernel does not know, as in a container; the longer list of ``gpus`` counts,
    because a card that gives no answer is still this node's.
    """
    said = dict(told or {})
    release: dict[str, str] = {}
    with suppress(OSError):
        release = platform.freedesktop_os_release()
    model = _found(r"^model name\s*:\s*(.+)$", "/proc/cpuinfo") or platform.processor() or platform.machine()
    memory = _found(r"^MemTotal:\s*(\d+) kB", "/proc/meminfo")
    gpus = [_found(r"^Model:\s*(.+)$", card) or "unknown" for card in _cards()]
    return {
        "kernel": platform.release(),
        "os": release.get("PRETTY_NAME", "unknown"),
        "architecture": platform.machine(),
        "cpu": {"model": model, "logical": os.cpu_count(), "usable": len(os.sched_getaffinity(0))},
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "memory_bytes": memory and int(memory) * 1024,
        "gpus": max(gpus, said.get("gpus") or [], key=len),
        "nvidia_driver": nvidia_driver() or said.get("nvidia_driver"),
        "versions": versions(),
        "mounts": {str(path): _told(mount) for path in storage if (mount := mount_of(path))},
        "virtual": _found(r"^flags\s*:.*\b(hypervisor)\b", "/proc/cpuinfo") is not None,
        "boot_id": boot_id() or None,
        "machine_id": hashlib.sha256(read("/etc/machine-id").strip().encode()).hexdigest()[:16],
        "identity": identity(),
    }


def fingerprint(known: dict[str, Any]) -> str:
    """16 hex digits over the facts that identify the machine; what parts two runs of a series is finer."""
    identity = {name: known.get(name) for name in _IDENTITY}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def this_node(storage: Sequence[Path] = (), told: Mapping[str, Any] | None = None) -> Node:
    """``told``: as of `facts`."""
    known = facts(storage, told)
    return Node(hostname=socket.gethostname() or "localhost", fingerprint=fingerprint(known), facts=known)
