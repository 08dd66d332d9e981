"""A shallow and a deep queue with the same bandwidth: the loaded p99 follows each, and so does voice-safe headroom."""

from __future__ import annotations

import json

from tests.accuracy._network import Claims, drive, hosts, main, pick
from tests.probes.network.testbed import Net

BITS = 100e6
QUEUES = {"shallow": 0.005, "deep": 0.1}
PLAN = {
    "tcp_rounds": 4, "tcp_seconds": 2, "tcp_omit": 1, "udp_rounds": 1, "udp_seconds": 1, "idle_packets": 150,
    "loads": (0.5, 0.8), "loaded_packets": 600,
}  # fmt: skip


def demonstrate(claims: Claims) -> None:
    rates = {}
    for name, latency in QUEUES.items():
        with hosts("a", "b") as net:
            _switch(net, latency)
            net.peer("b", "10.96.0.2")
            answer = drive(net, "whole", "10.96.0.2", json.dumps(PLAN))
        (rates[name],) = (m["value"] for m in pick(answer, "network_throughput_bytes_per_second", direction="send"))
        (loaded,) = pick(answer, "network_round_trip_seconds", state="loaded", statistic="p99")
        # What a full bucket holds (its limit: rate x latency + burst) takes so long to leave.
        full = latency + _burst() * 8 / BITS
        claims.check(
            abs(loaded["value"] / full - 1) <= 0.15,
            f"{name}: loaded p99 {loaded['value'] * 1e3:.1f} ms, a full queue takes {full * 1e3:.1f} ms (15 %)",
        )
        for m in pick(answer, "network_voice_safe_load_ratio"):
            low, high = m["interval"]
            right = m["value"] == 1.0 if name == "shallow" else low >= 0.5 and high <= 1.0 and m["value"] < 1.0
            way, doubt = m["labels"]["direction"], m["invalid"]
            text = f"{name}, {way}: voice stays safe up to {m['value']:.0%} of the link (at most {high:.0%})"
            # A starved host sends its UDP load in bursts; the probe must then say that the figure decides nothing.
            claims.check(right or doubt is not None, f"{text}; {doubt}" if doubt else text)
    ratio = rates["shallow"] / rates["deep"]
    claims.check(abs(ratio - 1) <= 0.03, f"bandwidth alone cannot tell them apart: {ratio:.3f}")


def _burst() -> int:
    return 16_000


def _switch(net: Net, latency: float) -> None:
    """The bottleneck stands in the switch, where no host's own back-pressure keeps its queue from filling."""
    net.switch(("a", "b"))
    for host in ("a", "b"):
        net.shape("switch", BITS, latency, device=f"p-{host}", burst=_burst())


if __name__ == "__main__":
    main(demonstrate)
