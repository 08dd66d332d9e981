"""The ports of real hardware, InfiniBand, RoCE and Ethernet, as sysfs tells of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure.procfs import read

SYSFS = Path("/sys/class")
#: linux/Documentation/ABI/stable/sysfs-class-infiniband; ``link_downed`` counts flaps and is told apart.
_IB_ERRORS = (
    "symbol_error", "link_error_recovery", "port_rcv_errors", "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors", "port_xmit_discards", "port_xmit_constraint_errors",
    "port_rcv_constraint_errors", "local_link_integrity_errors", "excessive_buffer_overrun_errors",
)  # fmt: skip
_IB_HARDWARE = ("out_of_sequence", "packet_seq_err", "local_ack_timeout_err", "rnr_nak_retry_err",
                "rx_icrc_encapsulated")  # fmt: skip
#: linux/Documentation/ABI/testing/sysfs-class-net-statistics.
_NET_ERRORS = ("rx_errors", "tx_errors", "rx_crc_errors", "rx_fifo_errors", "tx_carrier_errors")
_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*Gb/sec(?:\s*\((\d{1,4})X)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Port:
    """One port as it stands. ``bytes_per_second`` and ``lanes`` of its link; ``flaps`` and ``errors`` since boot."""

    kind: str
    active: bool
    bytes_per_second: float | None
    lanes: int | None
    flaps: int | None
    errors: dict[str, int]


def ports(root: Path = SYSFS) -> dict[str, Port]:
    """By ``device/port`` of InfiniBand and RoCE, by the device's name of Ethernet."""
    fabric, cards = sorted(root.glob("infiniband/*/ports/*")), sorted(root.glob("net/*"))
    found = {f"{folder.parent.parent.name}/{folder.name}": _infiniband(folder) for folder in fabric}
    return found | {folder.name: _ethernet(folder) for folder in cards if (folder / "device").exists()}


def _infiniband(folder: Path) -> Port:
    rate, layer = _RATE.match(read(folder / "rate")), read(folder / "link_layer").strip().lower()
    return Port(
        kind=layer if layer.isascii() and layer.isalpha() else "infiniband",
        active="ACTIVE" in read(folder / "state"),
        bytes_per_second=float(rate[1]) * 1e9 / 8 if rate else None,
        lanes=int(rate[2]) if rate and rate[2] else None,
        flaps=_number(folder / "counters" / "link_downed"),
        errors=_counters(folder / "counters", _IB_ERRORS) | _counters(folder / "hw_counters", _IB_HARDWARE),
    )


def _ethernet(folder: Path) -> Port:
    speed = _number(folder / "speed")
    return Port(
        kind="ethernet",
        active=read(folder / "operstate").strip() == "up",
        bytes_per_second=speed * 1e6 / 8 if speed and speed > 0 else None,
        lanes=None,
        flaps=_number(folder / "carrier_changes"),
        errors=_counters(folder / "statistics", _NET_ERRORS),
    )


def _counters(folder: Path, names: Sequence[str]) -> dict[str, int]:
    return {name: value for name in names if (value := _number(folder / name)) is not None}


def _number(path: Path) -> int | None:
    text = read(path).strip()
    return int(text) if re.fullmatch(r"-?\d{1,20}", text, re.ASCII) else None
