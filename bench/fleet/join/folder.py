"""A fleet run's folder -> its fleet document, with what is known beside the nodes' files: the log, and the collective
from its nodes' own lines, read with suspicion. A node is one outcome, however many ranks it has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError, first_mistake, why
from bench.fleet.files import AGAIN, entries, expected_in, hostnames_in, read_object, small_file
from bench.fleet.join.join import Judgement, Known, join
from bench.fleet.join.pairs import pairs_in, shared_in
from bench.judge.collective import NodeTimes, figures, fleet_collective, of_backend, transports
from bench.judge.fleet.model import Collective, Fleet, State
from bench.model import Code, Outcome, ProbeResult
from bench.store.errors import one_line

COLLECTIVE = "collective"
_MOST_LINE_BYTES = 1 << 20
_STATES = {state.value: state for state in State}
Told = tuple[State, str]  # (state, reason)


def join_folder(
    folder: Path,
    expected: Sequence[str] | None,
    by: Judgement,
    *,
    newest: bool = False,
    against: Path | None = None,
    again: Path | None = None,
) -> Fleet:
    """The fleet document of a folder, from any launcher. ``against``: the folder of an earlier run of the same hosts;
    ``again``: that of a second, separate measurement of them, where it is not in the folder itself.

    Raises UserError.
    """
    if not folder.is_dir():
        raise UserError(one_line(f"{folder}: is not a folder; name the one with the nodes' run documents"))
    for other in (against, again):
        if other is not None and not other.is_dir():
            raise UserError(one_line(f"{other}: is not a folder; name that of another fleet run"))
    hosts = list(expected) if expected is not None else expected_in(folder)
    known = Known(hostnames=hostnames_in(folder), again=again or folder / AGAIN, before=against)
    pairs: dict[tuple[str, str], Told] = {}
    ranks: dict[str, Told] = {}
    for entry in entries(folder):  # of the controller; another launcher leaves none
        _learn(entry, known, pairs, ranks)
    known.pairs, known.found = pairs_in(folder, known.hostnames, pairs)
    known.collective = collective = collective_in(folder, hosts, ranks)
    if collective is not None:
        for host, result in _of_each(folder, collective).items():
            known.found.setdefault(host, []).append(result)
    known.shared = shared_in(folder, hosts)
    return join(folder, hosts, by, known, newest=newest)


def _learn(entry: dict[str, Any], known: Known, pairs: dict[tuple[str, str], Told], ranks: dict[str, Told]) -> None:
    """One line of the log. What was said last counts; a job that only began is lost until it is said otherwise, and so
    is one with ``answered``, or what a newer version may write, unless its file came.
    """
    phase, host, attempt = str(entry.get("phase")), str(entry.get("host")), entry.get("attempt")
    word, told = entry.get("state"), (State.LOST, "lost: it was started, and nothing came back")
    if word is not None:
        told = _STATES.get(str(word), State.LOST), str(entry.get("reason") or "")
    if phase == "contact" and word is None:
        known.states.pop(host, None)  # it is here: whatever was said of it before is over
    elif phase in ("contact", "sweep"):
        known.states[host] = told
    elif phase == "pairs":
        client, _, server = str(entry.get("key")).removesuffix(".json").partition("--")
        pairs[client, server] = told
    elif phase.startswith(COLLECTIVE):
        ranks[host] = told
    if phase == "sweep" and isinstance(attempt, int):
        known.attempts[host] = attempt


def collective_in(folder: Path, hosts: Sequence[str], told: Mapping[str, Told]) -> Collective | None:
    """None where none was asked for. It passes when every node has a line, and all lines are of one collective."""
    asked = read_object(folder / COLLECTIVE / "ranks.json").get("hosts")
    if not isinstance(asked, list):
        return None
    nodes = tuple(host for host in hosts if host in asked)
    lines = {host: _line(folder / COLLECTIVE / f"{host}.json") for host in nodes}
    found = {host: line for host, line in lines.items() if isinstance(line, NodeTimes)}
    rows: list[tuple[str, State, str | None]] = []
    for host, line in lines.items():
        state, reason = (State.PASS, None) if host in found else told.get(host, (State.NOT_RUN, ""))
        rows.append((host, state, None if isinstance(line, NodeTimes) else reason or line))
    bad = [(host, state, reason) for host, state, reason in rows if state is not State.PASS]
    if bad or not found:
        who = f"{len(bad)} of {len(nodes)} nodes without a result; {bad[0][0]}: {bad[0][2]}" if bad else "no node"
        return Collective(state=bad[0][1] if bad else State.NOT_RUN, reason=who, ranks=nodes, rows=tuple(rows))
    return fleet_collective(nodes, found, rows)


def _of_each(folder: Path, collective: Collective) -> dict[str, ProbeResult]:
    """The fleet's all-reduce as each node's own, as training runs at its pace on all of them; with what carried it."""
    lines = {host: _line(folder / COLLECTIVE / f"{host}.json") for host in collective.ranks}
    found = {host: line for host, line in lines.items() if isinstance(line, NodeTimes)}
    if collective.state is State.PASS and (of_all := tuple(figures([*found.values()]))):
        own = {host: transports(line.carried, of_backend(found.values())) for host, line in found.items()}
        return {
            host: ProbeResult(probe=COLLECTIVE, outcome=Outcome.OK, measurements=(*of_all, *more))
            for host, more in own.items()
        }
    missing = collective.reason or "its nodes are of an older version, which told of no size"
    reason = f"{Code.COLLECTIVE_FAILED}: {missing}"[:4000]
    failed = ProbeResult(probe=COLLECTIVE, outcome=Outcome.FAILED, reason=reason)
    return dict.fromkeys(collective.ranks, failed)


def _line(path: Path) -> NodeTimes | str:
    """A node's line, or why it has none."""
    try:
        entry = json.loads(small_file(path, _MOST_LINE_BYTES))
    except OSError as error:
        return one_line(f"no_result: {why(error)}")
    except UserError as error:
        return str(error)
    except (ValueError, RecursionError):
        return one_line(f"bad_result: {path.name} is not JSON")
    return trouble_of_line(entry) or NodeTimes.model_validate(entry)


def trouble_of_line(entry: object) -> str | None:
    """Why the object is no node's result, None if it is one."""
    try:
        NodeTimes.model_validate(entry)
    except ValidationError as error:
        place, wrong = first_mistake(error)
        return one_line(f"bad_result: {place or 'the line'}: {wrong}")
    return None
