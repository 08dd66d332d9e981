"""Parts of the network probe through its own code, at any length: for truths that one run would not have time for.

usage: driver.py echo PEER FOLDER PACKETS INTERVAL_SECONDS
       driver.py tcp PEER FOLDER ROUNDS SECONDS
       driver.py whole PEER FOLDER PLAN_AS_JSON

Prints one JSON object: ``measurements``; ``echo`` also each packet's round trip (``trips``, null when lost), the
events and the losses.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bench.measure.probe import Context
from bench.measure.recording import LiveTools, Recorder
from bench.model import Effort, Request
from probes.network.bandwidth import measure_tcp, throughput
from probes.network.echo import paced
from probes.network.echo_parse import events, idle_or_loaded, usual_times
from probes.network.plan import NetworkPlan
from probes.network.probe import PROBE, measure_one
from probes.peer.link import connected


def context(peer: str, folder: Path) -> Context:
    end = time.monotonic() + 900
    return Context(
        probe=PROBE,
        request=Request(effort=Effort.STANDARD, probes=("network",), peers=(peer,)),
        tools=LiveTools("network", Recorder(folder)),
        seconds=600,
        remaining=lambda: end - time.monotonic(),
        workspace=lambda *_: nullcontext(folder),
        stage=lambda _: nullcontext(),
        progress=lambda *_: None,
    )


def echo(ctx: Context, peer: str, packets: str, interval: str) -> dict[str, Any]:
    with connected(ctx, peer, {}, 900) as link:
        got = paced(link, "echo", int(packets), float(interval))
    usual = usual_times(got)
    return {
        "measurements": [m.model_dump() for m in idle_or_loaded([got], usual, {"peer": peer, "state": "idle"})],
        "trips": [p.round_trip if p else None for p in got.packets],
        "events": [[e.place, e.first, e.last, e.excess] for e in events(got, usual, 0.02)],
        "doubt": got.doubt,
        "lost": [got.lost_sending, got.lost_receiving],
    }


def tcp(ctx: Context, peer: str, rounds: str, seconds: str) -> dict[str, Any]:
    with connected(ctx, peer, {}, 900) as link:
        done = measure_tcp(link, NetworkPlan(int(rounds), int(seconds), 1, 0, 0, 0))
        found = throughput(done, link.labels, 0.0, link.interface)
    return {"measurements": [m.model_dump() for m in found]}


def whole(ctx: Context, peer: str, plan: str) -> dict[str, Any]:
    settings = json.loads(plan)
    settings["loads"] = tuple(settings.get("loads", ()))
    return {"measurements": [m.model_dump() for m in measure_one(ctx, peer, {}, NetworkPlan(**settings))]}


def main() -> None:
    what, peer, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    parts: dict[str, Callable[..., dict[str, Any]]] = {"echo": echo, "tcp": tcp, "whole": whole}
    print(json.dumps(parts[what](context(peer, folder), peer, *sys.argv[4:])))


if __name__ == "__main__":
    main()
