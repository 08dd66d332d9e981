"""The collective from its nodes' own lines, read with suspicion. A node is one outcome, however many ranks it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from bench.fleet.errors import FleetError
from bench.fleet.files import read_json
from bench.fleet.hosts import small_file
from bench.judge.collective import NodeTimes, fleet_collective
from bench.judge.fleet.model import Collective, State
from bench.store.errors import one_line, why

COLLECTIVE = "collective"
_MOST_BYTES = 1 << 20


def collective_in(folder: Path, hosts: Sequence[str], told: Mapping[str, tuple[State, str]]) -> Collective | None:
    """None where none was asked for. It passes when every node has a line, and all lines are of one collective."""
    asked = read_json(folder / COLLECTIVE / "ranks.json")
    if not isinstance(asked, dict) or not isinstance(asked.get("hosts"), list):
        return None
    nodes = tuple(host for host in hosts if host in asked["hosts"])
    rows: list[tuple[str, State, str | None]] = []
    found: dict[str, NodeTimes] = {}
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
    return fleet_collective(nodes, found, rows)


def _line(path: Path) -> NodeTimes:
    """A node's line. Raises FleetError when it is absent or is none."""
    try:
        entry = json.loads(small_file(path, _MOST_BYTES))
    except OSError as error:
        raise FleetError(one_line(f"no_result: {why(error)}")) from error
    except (ValueError, RecursionError) as error:
        raise FleetError(one_line(f"bad_result: {path.name} is not JSON")) from error
    if trouble := trouble_of_line(entry):
        raise FleetError(trouble)
    return NodeTimes.model_validate(entry)


def trouble_of_line(entry: object) -> str | None:
    """Why the object is no node's result, None if it is one."""
    try:
        NodeTimes.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return one_line(f"bad_result: {'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}")
    return None
