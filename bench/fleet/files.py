"""The folder of a fleet run: which hosts were named, what was planned, what came. Everything is in files, so that a run
whose controller was killed is joined, or resumed, from what lies there.

::

    plan.json         what was asked for: expected hosts, commands, limits        (written first, once)
    roster.json       what each host calls itself, and which machine it is        (after contact)
    log.jsonl         one line a start or an outcome, appended                    (`bench.fleet.jobs`)
    nodes/HOST.json   the node's run, checked before it is stored
    pairs.json        the rounds;  pairs/CLIENT--SERVER.json  the client's run
    fleet.json        what was concluded

Another launcher leaves the nodes' runs alone, and names the hosts in ``hosts.txt``.
"""

from __future__ import annotations

import ipaddress
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import UserError, why
from bench.measure.regular_files import NotReadable, read_regular
from bench.store import atomic
from bench.store.errors import one_line

PLAN, ROSTER, LOG, FLEET, HOSTS_FILE = "plan.json", "roster.json", "log.jsonl", "fleet.json", "hosts.txt"
NODES, AGAIN = "nodes", "again"
_MAX_HOSTS_BYTES, _MAX_JSON_BYTES, _MAX_LOG_BYTES = 8 << 20, 64 << 20, 512 << 20


def small_file(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes. Raises OSError; UserError when it is something else."""
    try:
        return read_regular(path, most)
    except NotReadable as error:
        raise UserError(one_line(f"{path}: {error}")) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file of ours; empty when it is absent, or no object. Raises UserError when it cannot
    be read.
    """
    try:
        found = json.loads(small_file(path, _MAX_JSON_BYTES).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(one_line(f"{path}: {why(error)}")) from error
    except (ValueError, RecursionError) as error:
        raise UserError(one_line(f"{path}: is damaged: {error}; start the fleet run anew")) from error
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: Any) -> None:
    """Put it there atomically, in place of what is there. Raises UserError."""
    write_bytes(path, json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Put it there atomically, with the folders above it. Raises UserError."""
    atomic.make_folder(path.parent)
    with atomic.opened(path.parent) as fd:
        atomic.replace(path.parent, fd, path.name, data)


def entries(folder: Path) -> list[dict[str, Any]]:
    """The log's lines in order. A torn last line, of a controller that was killed, is left out."""
    try:
        text = small_file(folder / LOG, _MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


def hostnames_in(folder: Path) -> dict[str, str]:
    """What each host calls itself, of those that were asked."""
    roster = read_object(folder / ROSTER)
    pairs = ((host, entry.get("hostname")) for host, entry in roster.items() if isinstance(entry, dict))
    return {host: name for host, name in pairs if isinstance(name, str) and name}


# --- which hosts were named: without that list nobody can say what is missing, so nothing is joined without it


def expected_in(folder: Path) -> list[str]:
    """The hosts that the folder itself names: its plan, or its ``hosts.txt``. Raises UserError when it names none."""
    if plan := read_object(folder / PLAN):
        hosts = plan.get("hosts")
        if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
            raise UserError(one_line(f"{folder / PLAN}: hosts: is not a list of names; start the fleet run anew"))
        return checked(hosts, str(folder / PLAN))
    if (folder / HOSTS_FILE).exists():
        return read_hosts(folder / HOSTS_FILE)
    why = f"does not say which hosts were named; list them in its {HOSTS_FILE}, or with --expect FILE"
    raise UserError(one_line(f"{folder}: {why}"))


def read_hosts(path: Path) -> list[str]:
    """One host a line; blank lines and what follows ``#`` are left out. Raises UserError for none, or one twice."""
    try:
        text = small_file(path, _MAX_HOSTS_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(one_line(f"{path}: {why(error)}; give the expected hosts with --expect FILE")) from error
    except UnicodeDecodeError as error:
        raise UserError(one_line(f"{path}: byte {error.start}: not UTF-8; give one host a line")) from error
    return checked([line.partition("#")[0].strip() for line in text.splitlines()], str(path))


def checked(words: Sequence[str], where: str) -> list[str]:
    """The hosts, in the order named. Raises UserError for none, for one named twice, for what is no host name."""
    hosts = [word for word in words if word]
    if not hosts:
        raise UserError(one_line(f"{where}: names no host; give one host a line"))
    for host in hosts:
        if len(host) > 255 or any(c.isspace() or not c.isprintable() or c in "/\\" for c in host):
            raise UserError(one_line(f"{where}: {host!r} is not a host name; give one host a line", 200))
    if twice := sorted(host for host, times in Counter(hosts).items() if times > 1):
        raise UserError(one_line(f"{where}: {twice[0]} is named twice; name each host once"))
    return hosts


def same_host(expected: str, hostname: str) -> bool:
    """Whether a result that says it is of ``hostname`` can be of the host named ``expected``: equal, or equal up to the
    first dot when one of them is a short name. An address names no host, so it must be equal.
    """
    a, b = expected.lower(), hostname.lower()
    if a == b:
        return True
    if ("." in a and "." in b) or _is_address(a) or _is_address(b):
        return False
    return a.partition(".")[0] == b.partition(".")[0]


def _is_address(word: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(word))
    return False
