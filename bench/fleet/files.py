"""The folder of a fleet run: what was planned, what came, what is known beside the files. Everything is in files, so
that a run whose controller was killed is joined, or resumed, from what lies there.

::

    plan.json         what was asked for: expected hosts, commands, limits        (written first, once)
    roster.json       what each host calls itself, and which machine it is        (after contact)
    log.jsonl         one line a start or an outcome, appended                    (the engine)
    nodes/HOST.json   the node's run, checked before it is stored
    pairs.json        the rounds;  pairs/CLIENT--SERVER.json  the client's run
    fleet.json        what was concluded
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.fleet.errors import FleetError
from bench.fleet.hosts import HOSTS_FILE, checked, read_hosts, small_file
from bench.fleet.join.join import Judgement, Known, join
from bench.judge.fleet.model import Fleet, State
from bench.store import atomic as writing
from bench.store.errors import StoreError, one_line, why

PLAN, ROSTER, LOG, FLEET, NODES, AGAIN = (
    "plan.json",
    "roster.json",
    "log.jsonl",
    "fleet.json",
    "nodes",
    "again",
)
_MAX_LOG_BYTES = 512 << 20


def read_json(path: Path) -> Any:
    """A small JSON file of ours, None when it is absent. Raises FleetError when it cannot be used."""
    try:
        return json.loads(small_file(path, 64 << 20).decode("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FleetError(one_line(f"{path}: {why(error)}")) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FleetError(one_line(f"{path}: is damaged: {error}; start the fleet run anew")) from error


def write_json(path: Path, value: Any) -> None:
    """Put it there atomically, in place of what is there. Raises FleetError."""
    data = json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> None:
    try:
        writing.make_folder(path.parent)
        with writing.opened(path.parent) as fd:
            writing.replace(path.parent, fd, path.name, data)
    except StoreError as error:
        raise FleetError(str(error)) from error


def make_folder(folder: Path) -> None:
    """Raises FleetError."""
    try:
        writing.make_folder(folder)
    except StoreError as error:
        raise FleetError(str(error)) from error


def expected_in(folder: Path) -> list[str]:
    """The hosts that the folder itself names: its plan, or its ``hosts.txt``. Raises FleetError when it names none."""
    plan = read_json(folder / PLAN)
    if isinstance(plan, dict):
        hosts = plan.get("hosts")
        if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
            raise FleetError(one_line(f"{folder / PLAN}: hosts: is not a list of names; start the fleet run anew"))
        return checked(hosts, str(folder / PLAN))
    if (folder / HOSTS_FILE).exists():
        return read_hosts(folder / HOSTS_FILE)
    raise FleetError(one_line(f"{folder}: does not say which hosts were named; give them with --expect FILE"))


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

    Raises FleetError.
    """
    if not folder.is_dir():
        raise FleetError(one_line(f"{folder}: is not a folder; name the one with the nodes' run documents"))
    for other in (against, again):
        if other is not None and not other.is_dir():
            raise FleetError(one_line(f"{other}: is not a folder; name that of another fleet run"))
    hosts = list(expected) if expected is not None else expected_in(folder)
    known = known_in(folder, hosts)
    known.before, known.again = against, again or known.again
    return join(folder, hosts, by, known, newest=newest)


def known_in(folder: Path, hosts: Sequence[str]) -> Known:
    """What the engine wrote beside the files; nothing for another launcher. Raises FleetError."""
    from bench.fleet.join import pairs as extras
    from bench.fleet.join.collective import collective_in

    known = Known(hostnames=hostnames_in(folder), again=folder / AGAIN)
    pairs: dict[tuple[str, str], tuple[State, str]] = {}
    ranks: dict[str, tuple[State, str]] = {}
    for entry in entries(folder):
        _learn(entry, known, pairs, ranks)
    found = extras.pairs_in(folder, known.hostnames, pairs)
    known.pairs, known.network = found.outcomes, found.network
    known.collective = collective_in(folder, hosts, ranks)
    known.shared = extras.shared_in(folder, hosts)
    return known


def _learn(
    entry: dict[str, Any],
    known: Known,
    pairs: dict[tuple[str, str], tuple[State, str]],
    ranks: dict[str, tuple[State, str]],
) -> None:
    """One line of the log. What was said last counts; a job that only began is lost until it is said otherwise."""
    phase, host, attempt = str(entry.get("phase")), str(entry.get("host")), entry.get("attempt")
    word, reason = entry.get("state"), str(entry.get("reason") or "")
    told = (_state(word), reason) if word is not None else (State.LOST, "lost: it was started, and nothing came back")
    if phase == "contact" and word is None:
        known.states.pop(host, None)  # it is here: whatever was said of it before is over
    elif phase in ("contact", "sweep"):
        known.states[host] = told
    elif phase == "pairs":
        client, _, server = str(entry.get("key")).removesuffix(".json").partition("--")
        pairs[client, server] = told
    elif phase.startswith("collective"):
        ranks[host] = told
    if phase == "sweep" and isinstance(attempt, int):
        known.attempts[host] = attempt


def _state(word: Any) -> State:
    """``answered``, and what a newer version may write, say nothing here: the file does, or it is lost."""
    try:
        return State(word)
    except ValueError:
        return State.LOST


def hostnames_in(folder: Path) -> dict[str, str]:
    roster = read_json(folder / ROSTER)
    roster = roster if isinstance(roster, dict) else {}
    pairs = ((host, entry.get("hostname")) for host, entry in roster.items() if isinstance(entry, dict))
    return {host: name for host, name in pairs if isinstance(name, str) and name}


def entries(folder: Path) -> list[dict[str, Any]]:
    """The log's lines in order. A torn last line, of a controller that was killed, is left out."""
    try:
        text = small_file(folder / LOG, _MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found
