"""One echo of any length and pace against a peer, through the probe's own code.

usage: driver.py PEER PACKETS INTERVAL_SECONDS FOLDER. Prints one JSON object: ``measurements`` and each packet's
round trip (``trips``, null when lost).
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from bench.measure.probe import Context
from bench.measure.recording import LiveTools, Recorder
from bench.model import Effort, Request
from probes._echo import base, events
from probes._echo_figures import idle_or_loaded
from probes._network_echo import paced
from probes._network_link import connected


def main() -> None:
    peer, packets, interval, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    end = time.monotonic() + 600
    context = Context(
        request=Request(effort=Effort.STANDARD, probes=("network",), peers=(peer,)),
        tools=LiveTools("network", Recorder(folder)),
        seconds=600,
        remaining=lambda: end - time.monotonic(),
        workspace=lambda *_: nullcontext(folder),
        stage=lambda _: nullcontext(),
        progress=lambda *_: None,
    )
    with connected(context, peer, {}, 600) as link:
        echo = paced(link, "echo", packets, interval)
    usual = base(echo)
    found = idle_or_loaded([echo], usual, {"peer": peer, "state": "idle"})
    answer = {
        "measurements": [m.model_dump() for m in found],
        "trips": [p.round_trip if p else None for p in echo.packets],
        "events": [[e.place, e.first, e.last, e.excess] for e in events(echo, usual, 0.02)],
        "doubt": echo.doubt,
        "lost": [echo.lost_sending, echo.lost_receiving],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
