"""One node's side of a test: a member of a run of stand-in commands, as ``bench fleet member`` is of a real one.

``python -m tests.fleet.attend FOLDER OPTIONS``: the options, as JSON, are those of `tests.fleet.drive`, with ``hosts``,
``wait``, and ``silent_beats``. Slurm says which host this is. Progress goes to ``FOLDER/../HOST.log``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.fleet import mail
from bench.fleet.errors import FleetError
from bench.fleet.jobs import Note
from bench.fleet.launcher import host_of, hosts_of, own_address
from bench.fleet.member import Member
from bench.fleet.plan import HostVars
from bench.measure.probe import Interrupted
from bench.measure.tools import Signals
from tests.fleet.drive import plan_of
from tests.fleet.make import judgement

NETWORK = "10.77.0.0/16"  # named, because no name server answers on the hosts, and that takes seconds


def main() -> int:
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    profile, wait = options.pop("profile", None), options.pop("wait", 60.0)
    mail.SILENT_BEATS = options.pop("silent_beats", mail.SILENT_BEATS)
    hosts = hosts_of(options.pop("hosts", None), folder)
    host = host_of(hosts, None, None)
    variables = dict.fromkeys(hosts, HostVars("", sys.executable))
    began = time.monotonic()
    with (folder.parent / f"{host}.log").open("a", buffering=1) as log, Signals() as signals:

        def listen(note: Note) -> None:
            log.write(f"{time.monotonic() - began:.2f} {note.phase} {note.host} {note.state} {note.reason}\n")

        member = Member(
            folder=folder, hosts=tuple(hosts), host=host, variables=HostVars(own_address(NETWORK), sys.executable),
            plan=lambda found: plan_of(folder, dict(found) or variables, options),
            by=judgement(profile) if profile else judgement(), signals=signals, wait=wait, listen=listen,
        )  # fmt: skip
        try:
            fleet = member.take_part()
        except FleetError as error:
            log.write(f"error: {error}\n")
            return 2
        except Interrupted as error:
            return 128 + error.signum
        log.write(f"{time.monotonic() - began:.2f} over{': I led' if fleet else ''}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
