"""The collective from its nodes' own lines, read with suspicion: all ranks' bandwidth, and who arrives last.

A node is one outcome, however many ranks (GPUs) it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.fleet.errors import FleetError
from bench.fleet.files import read_json
from bench.fleet.hosts import small_file
from bench.judge.fleet.model import Collective, State
from bench.judge.statistics import median
from bench.store.errors import one_line, why

COLLECTIVE = "collective"
_MOST_BYTES = 1 << 20
_MOST_RANKS = 1024  # of one node
_LATE_SHARE = 0.1  # of the all-reduce's own time: less is the scatter of a sound fleet

Told = Mapping[str, tuple[State, str]]
Rows = Sequence[tuple[str, State, str | None]]


class Rank(NamedTuple):
    """``name`` says which of the host's ranks it is: ``GPU 3``; empty for an only one. Seconds."""

    host: str
    name: str
    seconds: float
    wait: float


def collective_in(folder: Path, hosts: Sequence[str], told: Told) -> Collective | None:
    """None where none was asked for. It passes when every node has a line, and all lines are of one collective."""
    asked = read_json(folder / COLLECTIVE / "ranks.json")
    if not isinstance(asked, dict) or not isinstance(asked.get("hosts"), list):
        return None
    nodes = tuple(host for host in hosts if host in asked["hosts"])
    rows: list[tuple[str, State, str | None]] = []
    found: dict[str, dict[str, Any]] = {}
    for host in nodes:
        try:
            found[host] = _line(folder / COLLECTIVE / f"{host}.json")
            rows.append((host, State.PASS, None))
        except FleetError as error:
            state, reason = told.get(host, (State.NOT_RUN, ""))
            rows.append((host, state, reason or str(error)))
    bad = [(host, state, reason) for host, state, reason in rows if state is not State.PASS]
    if bad or not found:
        who = f"{len(bad)} of {len(nodes)} nodes without a result; {bad[0][0]}: {bad[0][2]}" if bad else "no node"
        return Collective(state=bad[0][1] if bad else State.NOT_RUN, reason=who, ranks=nodes, rows=tuple(rows))
    return _together(nodes, found, rows)


def _together(nodes: tuple[str, ...], found: Mapping[str, dict[str, Any]], rows: Rows) -> Collective:
    """The slowest rank's time counts, and n of the bus bandwidth is all ranks (nccl-tests, PERFORMANCE.md)."""
    ranks = [rank for host, entry in found.items() for rank in _ranks(host, entry)]
    n, sizes = len(ranks), {int(entry["message_bytes"]) for entry in found.values()}
    if len(sizes) > 1 or {int(entry.get("world", n)) for entry in found.values()} != {n}:
        reason = f"bad_result: the nodes' lines are not of one collective of {n} ranks"
        return Collective(state=State.BAD_RESULT, reason=reason, ranks=nodes, rows=tuple(rows))
    seconds = max(rank.seconds for rank in ranks)
    last, late = _last(ranks, seconds)
    return Collective(
        state=State.PASS,
        ranks=nodes,
        world=n,
        message_bytes=min(sizes),
        bus_bytes_per_second=min(sizes) / seconds * 2 * (n - 1) / n,
        straggler=last,
        straggler_late_seconds=late,
        rows=tuple(rows),
    )


def _last(ranks: Sequence[Rank], seconds: float) -> tuple[str | None, float]:
    """Who arrives last waits least: its wait is compared with the median rank's. Where all ranks of a node are late it
    is the node, else its GPU; nobody when the last is hardly later than the others.
    """
    usual = median([rank.wait for rank in ranks])
    last = min(ranks, key=lambda rank: rank.wait)
    late = [rank for rank in ranks if usual - rank.wait > _LATE_SHARE * seconds]
    whole = all(rank in late for rank in ranks if rank.host == last.host)
    name = last.host if whole or not last.name else f"{last.host} {last.name}"
    return (name if late else None), usual - last.wait


def _ranks(host: str, entry: Mapping[str, Any]) -> list[Rank]:
    word = "GPU" if entry.get("backend") == "nccl" else "rank"
    own = entry.get("ranks") or [entry]
    named = len(own) > 1
    return [
        Rank(host, f"{word} {number}" if named else "", float(one["seconds"]), float(one["wait_seconds"]))
        for number, one in enumerate(own)
    ]


def _line(path: Path) -> dict[str, Any]:
    """A node's line. Raises FleetError when it is absent or is none."""
    try:
        entry = json.loads(small_file(path, _MOST_BYTES))
    except OSError as error:
        raise FleetError(one_line(f"no_result: {why(error)}")) from error
    except (ValueError, RecursionError) as error:
        raise FleetError(one_line(f"bad_result: {path.name} is not JSON")) from error
    trouble = trouble_of_line(entry)
    if trouble:
        raise FleetError(trouble)
    return dict(entry)


def trouble_of_line(entry: object) -> str | None:
    """Why the object is no node's result, None if it is one."""
    if not isinstance(entry, dict):
        return "bad_result: is no object"
    own = entry.get("ranks", [])
    if not isinstance(own, list) or len(own) > _MOST_RANKS or not all(isinstance(one, dict) for one in own):
        return "bad_result: ranks is not a list of a node's ranks"
    if not _number(entry.get("message_bytes")) or not _number(entry.get("world", 0)):
        return "bad_result: message_bytes or world is not a number from 0"
    for one in (entry, *own):
        for name in ("seconds", "wait_seconds"):
            if not _number(one.get(name)):
                return f"bad_result: {name} is not a number from 0"
        if not one["seconds"] > 0:
            return "bad_result: seconds is zero"
    return None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
