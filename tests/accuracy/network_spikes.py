"""10,000 packets at each of three heights through a relay with a log: spikes, p99, losses; also on a busy host."""

from __future__ import annotations

from tests.accuracy._network import Claims, hosts, main
from tests.network.test_truth import busy
from tests.network.testbed import Net
from tests.network.truth import PEER, Compared, compare, echo

PACKETS, INTERVAL, EVERY = 10_000, 0.004, 500
SETTINGS = {"delay": 0.004, "jitter": 0.002, "loss": 0.005}
HEIGHTS = (0.03, 0.1, 0.3)
BOUND = 0.05  # a realtime profile's limit on p99, seconds


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
    for height, limit_kept in ((0.03, True), (0.3, False)):
        with hosts("a", "b") as net, busy():
            got = through(net, height, 2500)
            p99 = got.quantile(got.trips, 0.99)
            verdict = "INCONCLUSIVE" if got.answer["doubt"] else ("GO" if p99 <= BOUND else "NO-GO")
            name = f"busy host, spikes of {height * 1e3:.0f} ms"
            right = verdict in (("GO", "INCONCLUSIVE") if limit_kept else ("NO-GO", "INCONCLUSIVE"))
            claims.check(right, f"{name}: p99 {p99 * 1e3:.1f} ms, the answer is {verdict}")
            claims.check(
                got.events()["network"] == got.spikes, f"{name}: {got.spikes} made, {dict(got.events())} found"
            )
            own = [m["value"] for m in got.answer["measurements"] if m["labels"].get("place") == "host"
                   and m["metric"] == "network_place_delay_seconds" and m["labels"]["statistic"] == "p99"]  # fmt: skip
            claims.check(
                own[0] > 0.001, f"{name}: the host's own p99 is {own[0] * 1e3:.1f} ms, and is said to be the host's"
            )


if __name__ == "__main__":
    main(demonstrate)
