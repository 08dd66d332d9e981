"""Which of this node's network interfaces an address belongs to, and what that link says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def interface_of(address: str) -> dict[str, Any]:
    """``name``, ``mtu`` and, when a real device says so, ``bits_per_second``; empty when no interface has it.

    Virtual interfaces (veth, tun, bridge) report speeds that nobody keeps, so only a device on a bus counts.
    """
    import psutil

    plain = address.partition("%")[0].removeprefix("::ffff:")
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == plain for entry in addresses):
            return _facts(name)
    return {}


def _facts(name: str) -> dict[str, Any]:
    folder = Path("/sys/class/net") / name
    facts: dict[str, Any] = {"name": name, "mtu": _number(folder / "mtu"), "physical": (folder / "device").exists()}
    megabits = _number(folder / "speed") if facts["physical"] else None
    if megabits and megabits > 0:
        facts["bits_per_second"] = megabits * 1_000_000
    return facts


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
