"""The controller's side of a test: a fleet run of stand-in commands, begun or resumed, its document on stdout.

``python -m tests.fleet.drive FOLDER OPTIONS``: the options, as JSON, are the plan's fields, and ``node``: words for
every ``tests/fleet/node.py sweep``; ``port``: of the pairs; ``transport`` and ``inventory``: as
`bench.fleet.transport.connect` has them; ``limit``: the hosts. Progress goes to standard error, one line a step with
the seconds since the start.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import bench
from bench.fleet import staging
from bench.fleet.controller import FleetRun
from bench.fleet.plan import FleetPlan, HostVars, host_vars, load
from bench.fleet.transport import connect
from bench.measure.tools import Signals
from bench.show.terminal.progress import Note
from tests.fleet.make import judgement

NODE = Path(__file__).with_name("node.py")
STAND_IN = shlex.join([sys.executable, str(NODE)])  # for a line of sh


def plan_of(
    folder: Path, variables: dict[str, HostVars], options: dict[str, Any], transport: str = "ansible", where: str = ""
) -> FleetPlan:
    """The plan of stand-in commands for these hosts; ``options`` are what differs from it."""
    rest = dict(options)
    words = shlex.join(rest.pop("node", []))
    pair_bytes, port = rest.pop("pair_bytes", 1 << 20), rest.pop("port", 5201)
    if rest.pop("torn_bundle", False):
        tear_bundles()
    values: dict[str, Any] = {
        "id": f"{folder.name}-{os.urandom(3).hex()}", "transport": transport, "inventory": (where,),
        "hosts": tuple(variables), "variables": variables,
        "sweep": f"exec {STAND_IN} sweep {words}", "budget": 15.0,
        "pair_client": f"exec {STAND_IN} pair {{address}} --port {port} --bytes {pair_bytes}", "pair_budget": 20.0,
        "pair_server": f"exec {STAND_IN} serve {{address}} --port {port}", "pair_ready": "peer: ready",
        "confirm": False,
    }  # fmt: skip
    return FleetPlan(**(values | rest))


def tear_bundles() -> None:
    """What is sent to the nodes is not what its digest says; and it is small."""
    made = staging.made

    def torn(folder: Path, bundle: str = "") -> staging.Bundle:
        sent = made(folder, bundle)
        with sent.path.open("ab") as file:
            file.write(b"x")
        return sent

    staging._files = lambda: {"bench/__init__.py": Path(bench.__file__)}
    staging.made = torn


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
            hosts = transport.hosts(limit)
            variables = {host: host_vars(host, values, {}, sys.executable) for host, values in hosts.items()}
            plan = plan_of(folder, variables, options, kind, where)
            plan.save(folder)
        fleet = FleetRun(folder, plan, transport, listen).run(judgement(profile) if profile else judgement())
    sys.stdout.write(fleet.model_dump_json(by_alias=True))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
