"""10,000 packets at each of three heights through a relay with a log: spikes, p99, losses; also on a busy host."""

from __future__ import annotations

from typing import Any

from bench.judge.gate import judge_gate
from bench.model import Effort, Measurement, Node, Outcome, ProbeResult, Request, Run
from bench.workflows.catalog import load_profiles
from probes import discover
from tests.accuracy._network import Claims, hosts, main
from tests.probes.network.test_truth import busy
from tests.probes.network.testbed import Net
from tests.probes.network.truth import PEER, Compared, compare, echo

PACKETS, INTERVAL, EVERY = 10_000, 0.004, 500
SETTINGS = {"delay": 0.004, "jitter": 0.002, "loss": 0.005}
HEIGHTS = (0.03, 0.1, 0.3)


def through(net: Net, height: float, packets: int) -> Compared:
    relay = net.relay("a", "b", {**SETTINGS, "every": EVERY, "height": height, "seed": round(height * 1000)})
    net.peer("b", PEER)
    return compare(echo(net, packets, INTERVAL), relay)


def shown(claims: Claims, got: Compared, name: str) -> None:
    found = got.events()
    claims.check(
        found["network"] + found["egress"] == got.spikes, f"{name}: {got.spikes} spikes made, {dict(found)} found"
    )
    claims.check(tuple(got.answer["lost"]) == got.lost, f"{name}: lost {got.lost}, found {got.answer['lost']}")
    for share in (0.5, 0.99):
        measured, true = got.quantile(got.trips, share), got.quantile(got.held, share)
        text = f"{name}: p{share * 100:.0f} {measured * 1e3:.3f} ms, in the log {true * 1e3:.3f} ms (1 ms)"
        claims.check(abs(measured - true) <= 0.001, text)


def demonstrate(claims: Claims) -> None:
    for height in HEIGHTS:
        with hosts("a", "b") as net:
            shown(claims, through(net, height, PACKETS), f"spikes of {height * 1e3:.0f} ms")
    for height, quiet in ((0.03, "pass"), (0.3, "fail")):
        with hosts("a", "b") as net, busy():
            got = through(net, height, 2500)
        name = f"busy host, spikes of {height * 1e3:.0f} ms"
        answer = verdict(got)
        text = f"{name}: {answer} (on a quiet host: {quiet}), {got.answer['doubt'] or 'no doubt'}"
        claims.check(answer in (quiet, "undecided"), text)
        claims.check(got.events()["network"] == got.spikes, f"{name}: {got.spikes} made, {dict(got.events())} found")
        own = next(m["value"] for m in got.answer["measurements"] if is_hosts_p99(m))
        claims.check(own > 0.001, f"{name}: the host's own p99 is {own * 1e3:.1f} ms, and is said to be the host's")


def verdict(got: Compared) -> str:
    """What the shipped profile's own gate says of the round trip."""
    (profile,) = load_profiles(["realtime-inference"], {m.name: m for probe in discover() for m in probe.metrics})
    (gate,) = (g for g in profile.gates if g.metric == "network_round_trip_seconds")
    measurements = tuple(Measurement.model_validate(m) for m in got.answer["measurements"])
    run = Run(
        id="r", started_at="2026-01-01T00:00:00Z", node=Node(hostname="a", fingerprint="f"),
        request=Request(effort=Effort.QUICK, probes=("network",), peers=(PEER,)),
        results=(ProbeResult(probe="network", outcome=Outcome.OK, measurements=measurements),),
    )  # fmt: skip
    return judge_gate(run, gate, {})[0].status.value


def is_hosts_p99(m: dict[str, Any]) -> bool:
    wanted = {"place": "host", "statistic": "p99"}
    return bool(m["metric"] == "network_place_delay_seconds" and wanted.items() <= m["labels"].items())


if __name__ == "__main__":
    main(demonstrate)
