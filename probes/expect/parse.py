"""What is there against what should be: one figure for each expectation, 0 where it is met."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator

from bench.measure import jsonl
from bench.measure.probe import Failed, Tools
from bench.model import Code, Measurement
from bench.units import human
from probes.common.metrics import figure
from probes.expect.inventory import Inventory
from probes.expect.plan import Expectation, Gpus, within

METRIC = "node_mismatches"
_SECONDS = 60.0  # a driver without persistence mode starts each card anew
#: What is wrong with one part: how many of it, and in words.
Wrong = tuple[int, str]


def taken(tools: Tools) -> Inventory:
    """What is on this node. Raises ProbeError."""
    done = tools.python("probes.expect.inventory", name="inventory", timeout=_SECONDS)
    found = jsonl.records(done.stdout, "the inventory", {"inventory": Inventory})
    if len(found) != 1:
        raise Failed(Code.TOOL_OUTPUT, f"the inventory has {len(found)} lines in place of one")
    return found[0]


def compared(wanted: Expectation, found: Inventory) -> list[tuple[str, Wrong]]:
    """Each expected part by name with what is wrong with it; ``(0, "")`` where it is as it should be."""
    parts: list[tuple[str, Wrong]] = []
    if wanted.gpus is not None:
        parts += _cards(wanted.gpus, found)
    if wanted.driver is not None:
        known = found.driver is not None and within(found.driver, wanted.driver)
        parts.append(("driver", (0, "") if known else (1, f"driver {found.driver or 'none'}, not {wanted.driver}")))
    if wanted.memory_bytes is not None:
        enough = found.memory_bytes is not None and found.memory_bytes >= wanted.memory_bytes
        parts.append(("memory", (0, "") if enough else (1, _less("memory", found.memory_bytes, wanted.memory_bytes))))
    return parts + [(f"port {port.name}", _port(port.name, port.bytes_per_second, found)) for port in wanted.port]


def _cards(wanted: Gpus, found: Inventory) -> Iterator[tuple[str, Wrong]]:
    cards = found.gpus or []
    there = f"{len(cards)} of {wanted.count} GPUs" + (f" ({found.why})" if found.why else "")
    yield "gpus", (abs(len(cards) - wanted.count), "" if len(cards) == wanted.count else there)
    if wanted.name is not None:
        others = Counter(card.name for card in cards if card.name != wanted.name)
        named = ", ".join(f"{times} x {name}" for name, times in others.items())
        yield "gpu name", (others.total(), f"{named}, not {wanted.name}" if others else "")
    if (least := wanted.memory_bytes) is not None:
        small = [card for card in cards if card.memory_bytes is None or card.memory_bytes < least]
        yield "gpu memory", (len(small), _less("a GPU", small[0].memory_bytes, least) if small else "")


def _port(name: str, least: float | None, found: Inventory) -> Wrong:
    if name not in found.ports:
        return 1, f"port {name} is not there, or down"
    rate = found.ports[name]
    if least is None or (rate is not None and rate >= least):
        return 0, ""
    return 1, _less(f"port {name}", rate, least, "fabric_link_bytes_per_second")


def _less(what: str, value: float | None, least: float, metric: str = "memory_bytes") -> str:
    has = "an unknown amount" if value is None else human(value, metric, 4)
    return f"{what} has {has}, not {human(least, metric, 4)}"


def figures(parts: list[tuple[str, Wrong]]) -> list[Measurement]:
    """One figure a part; what is wrong stands in the label ``found``."""
    return [figure(METRIC, float(many), {"part": part, "found": text[:500]}) for part, (many, text) in parts]


def written(found: Inventory) -> str:
    """The file that expects a node like this one; memory may be 2 % less: kernels, BIOSes and drivers reserve some.

    Cards of several kinds have no one name.
    """
    lines = [f"# What a node like {socket.gethostname()} should be. bench run --expect FILE; see docs/expect.md"]
    if version := re.match(r"\d+(\.\d+){0,3}", found.driver or "", re.ASCII):
        lines.append(f'driver = ">={version[0]}"')
    if found.memory_bytes:
        lines.append(f"memory_bytes = {found.memory_bytes * 98 // 100}")
    if found.gpus:
        names, memory = {card.name for card in found.gpus}, min(card.memory_bytes or 0 for card in found.gpus)
        lines += ["", "[gpus]", f"count = {len(found.gpus)}"]
        lines += [f"name = {json.dumps(name)}" for name in names if len(names) == 1]
        lines += [f"memory_bytes = {memory * 98 // 100}"] if memory else []
    for name, rate in found.ports.items():
        lines += ["", "[[port]]", f"name = {json.dumps(name)}"] + ([f"bytes_per_second = {rate:.0f}"] if rate else [])
    return "\n".join(lines) + "\n"
