"""The fabric watcher: InfiniBand, RoCE and Ethernet ports by sysfs, while everything else runs.

A cable that drops bits, a port that came up at a fifth of its rate, a link that flaps once an hour: none of it needs a
test, the kernel counts it. Error counters and flaps are what was added during the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.measure import budget
from bench.measure.probe import Check, Context, Probe, Tools, Unsupported
from bench.model import Code, Measurement, Request
from probes.common.metrics import figure, metrics
from probes.common.ports import SYSFS, Port, ports

#: Link layers of verbs that NCCL and perftest use as they come. EFA's is none of them.
_RDMA = ("infiniband", "ethernet")


class FabricWatch:
    """One object a sample: every port's state and counters as they stand."""

    def __init__(self, root: Path = SYSFS) -> None:
        self.root = root
        if not (root / "net").is_dir():
            raise Unsupported(Code.NO_PORTS, f"{root}/net does not show this node's ports")

    def sample(self, event: str) -> Mapping[str, Any]:
        return {"ports": {name: asdict(port) for name, port in self.ports().items()}}

    def ports(self) -> dict[str, Port]:
        return ports(self.root)

    def close(self) -> None:
        return None


def parse(samples: Sequence[Mapping[str, Any]], ctx: Context) -> list[Measurement]:
    """What each port was, what was added to its counters, and whether there is RDMA to train over.

    A port that was never up is a warning and no figure of its own.
    """
    from pydantic import TypeAdapter

    from bench.measure.jsonl import understood

    with understood("the watcher of the ports"):
        listed = TypeAdapter(dict[str, Port])
        seen = [listed.validate_python(sample["ports"]) for sample in samples if isinstance(sample.get("ports"), dict)]
    found: list[Measurement] = []
    for name in dict.fromkeys(name for sample in seen for name in sample):
        states = [sample[name] for sample in seen if name in sample]
        if any(state.active for state in states):
            found += _port(name, states, len(seen))
        else:
            ctx.warn(f"port {name} was down for the whole run")
    return found + _rdma(seen)


def _rdma(seen: Sequence[Mapping[str, Port]]) -> list[Measurement]:
    """InfiniBand ports whatever their state, for they have no other use; RoCE ports only if they were up, for others
    may be an Ethernet card's spare ones. NCCL takes all of these before it takes sockets.
    """
    verbs = [{name: port for name, port in ports.items() if "/" in name and port.kind in _RDMA} for ports in seen]
    there = {name for ports in verbs for name, port in ports.items() if port.kind == "infiniband" or port.active}
    if not seen:
        return []
    found = [figure("fabric_rdma_ports", len(there), {}, n=len(seen))]
    if there:
        active = min(sum(port.active for port in ports.values()) for ports in verbs)
        found.append(figure("fabric_active_rdma_ports", active, {}, n=len(seen)))
    return found


def _port(name: str, states: Sequence[Port], samples: int) -> Iterator[Measurement]:
    labels = {"port": name, "kind": states[0].kind}
    yield figure("fabric_up_ratio", sum(state.active for state in states) / samples, labels, n=samples)
    for metric, field in (("fabric_link_bytes_per_second", "bytes_per_second"), ("fabric_link_lanes", "lanes")):
        if values := [value for state in states if (value := getattr(state, field)) is not None]:
            yield figure(metric, min(values), labels, n=samples)
    if (flaps := _added([state.flaps for state in states])) is not None:
        yield figure("fabric_flaps", flaps, labels, n=samples)
    for counter in dict.fromkeys(counter for state in states for counter in state.errors):
        if (errors := _added([state.errors.get(counter) for state in states])) is not None:
            yield figure("fabric_errors", errors, {**labels, "counter": counter}, n=samples)


def _added(values: Sequence[int | None]) -> float | None:
    """What a counter grew by; one that fell was cleared, and what it shows since then counts. None if never read."""
    known = [value for value in values if value is not None]
    steps = itertools.pairwise(known)
    return float(sum(after - before if after >= before else after for before, after in steps)) if known else None


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Which ports there are, and which of them are up."""
    try:
        ports = FabricWatch().ports()
    except Unsupported as error:
        return [Check("fabric", False, error.reason)]
    named = [f"{name} {'up' if port.active else 'down'}" for name, port in ports.items()]
    detail = ", ".join(named) or "this node has no network port of real hardware"
    return [Check("fabric", any(port.active for port in ports.values()), detail)]


_METRICS = (
    *metrics(
        ("fabric_up_ratio", "Share of the run in which the port was up.", "", "higher"),
        ("fabric_link_bytes_per_second", "The rate that the link came up at, the lowest seen.", "", "higher"),
        ("fabric_link_lanes", "The width of an InfiniBand link, in lanes.", "", "higher"),
        ("fabric_flaps", "Times that the link went down, during the run.", "", "lower"),
        ("fabric_errors", "What the port's error counter grew by, during the run.", "counter", "lower"),
        first="port kind",
    ),
    *metrics(
        ("fabric_rdma_ports", "InfiniBand ports, and RoCE ports that were up: what NCCL trains over.", "", "none"),
        ("fabric_active_rdma_ports", "How many of them were up at once, the fewest seen.", "", "higher"),
    ),
)

PROBE = Probe(
    name="fabric",
    help="Watches each InfiniBand, RoCE and Ethernet port by sysfs: rate, width, errors and flaps during the run.",
    metrics=_METRICS,
    seconds=budget.NONE,
    watch=lambda ctx: FabricWatch(),
    parse=parse,
    doctor=doctor,
)
