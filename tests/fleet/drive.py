"""The controller's side of a test: a fleet run of stand-in commands, begun or resumed, its document on stdout.

``python -m tests.fleet.drive FOLDER OPTIONS``: the options, as JSON, are the plan's fields, and ``node``: words for
every ``tests/fleet/node.py sweep``; ``transport`` and ``inventory``: as `bench.fleet.transport.connect` has them;
``limit``: the hosts. Progress goes to standard error, one line a step with the seconds since the start.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import bench
from bench.fleet import staging as stage
from bench.fleet.files import make_folder
from bench.fleet.plan import HostVars, Plan, host_vars, load
from bench.fleet.run import Session
from bench.fleet.transport import connect
from bench.measure.tools import Signals
from bench.show.terminal.progress import Note
from tests.fleet.make import judgement

NODE = Path(__file__).with_name("node.py")
STAND_IN = shlex.join([sys.executable, str(NODE)])  # for a line of sh


def plan_of(
    folder: Path, variables: dict[str, HostVars], options: dict[str, Any], transport: str = "ansible", where: str = ""
) -> Plan:
    """The plan of stand-in commands for these hosts; ``options`` are what differs from it."""
    rest = dict(options)
    words = shlex.join(rest.pop("node", []))
    pair_bytes = rest.pop("pair_bytes", 1 << 20)
    if rest.pop("torn_archive", False):
        tear_archives()
    values: dict[str, Any] = {
        "id": folder.name, "transport": transport, "inventory": (where,),
        "hosts": tuple(variables), "variables": variables,
        "sweep": f"exec {STAND_IN} sweep {words}", "budget": 15.0,
        "pair_client": f"exec {STAND_IN} pair {{address}} --bytes {pair_bytes}", "pair_budget": 20.0,
        "pair_server": f"exec {STAND_IN} serve {{address}}", "pair_ready": "peer: ready",
        "needs_bench": False, "confirm": False,
    }  # fmt: skip
    return Plan(**(values | rest))


def tear_archives() -> None:
    """What is sent to the nodes is not what its digest says; and it is small."""
    pack = stage.pack

    def torn(folder: Path) -> stage.Archive:
        archive = pack(folder)
        with archive.path.open("ab") as file:
            file.write(b"x")
        return archive

    stage._files = lambda: {"bench/__init__.py": Path(bench.__file__)}
    stage.pack = torn


def main() -> int:
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    profile = options.pop("profile", None)
    kind, where = options.pop("transport", "ansible"), options.pop("inventory", "")
    limit = options.pop("limit", "all")
    began = time.monotonic()

    def listen(note: Note) -> None:
        sys.stderr.write(f"{time.monotonic() - began:.2f} {note.phase} {note.host} {note.state} {note.reason}\n")
        sys.stderr.flush()

    with Signals() as signals:
        transport = connect(kind, [where], signals)
        if (folder / "plan.json").exists():
            plan = load(folder)
        else:
            make_folder(folder)
            hosts = transport.hosts(limit)
            variables = {host: host_vars(host, values, {}, sys.executable) for host, values in hosts.items()}
            plan = plan_of(folder, variables, options, kind, where)
            plan.save(folder)
        fleet = Session(folder, plan, transport, listen).run(judgement(profile) if profile else judgement())
    sys.stdout.write(fleet.model_dump_json(by_alias=True))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
