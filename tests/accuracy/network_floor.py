"""The echo's own noise over a veth, beside irtt and sockperf in the same minute: p99 and p99.9 against irtt's."""

from __future__ import annotations

import json
import re
import shutil
import time

from tests.accuracy._network import Claims, hosts, main
from tests.probes.network.testbed import Net
from tests.probes.network.truth import echo

PACKETS, INTERVAL = 1500, 0.02


def at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def irtt(net: Net) -> tuple[float, float]:
    """Round trip p99 and p99.9, seconds."""
    net.start(net.command("b", "irtt", "server", "-b", "10.98.0.2:2112"))
    time.sleep(1)
    out = net.folder / "irtt.json"
    words = ["irtt", "client", "-i", "20ms", "-d", f"{PACKETS * INTERVAL:.0f}s", "-l", "172", "-q", "-o", str(out)]
    net.run(net.command("a", *words, "10.98.0.2:2112"), 120)
    trips = [t["delay"]["rtt"] / 1e9 for t in json.loads(out.read_text())["round_trips"] if t["lost"] == "false"]
    return at(trips, 0.99), at(trips, 0.999)


def sockperf(net: Net) -> tuple[float, float]:
    """It prints half of the round trip in microseconds."""
    net.start(net.command("b", "sockperf", "server", "-i", "10.98.0.2", "-p", "11111"))
    time.sleep(1)
    words = [
        "sockperf",
        "under-load",
        "-i",
        "10.98.0.2",
        "-p",
        "11111",
        "-t",
        "20",
        "--mps",
        "50",
        "-m",
        "172",
        "--reply-every",
        "1",
    ]
    done = net.run(net.command("a", *words), 120)
    found = {float(k): float(v) for k, v in re.findall(r"percentile ([\d.]+)\s*=\s*([\d.]+)", done.stdout)}
    return found[99.0] * 2e-6, found[99.9] * 2e-6


def demonstrate(claims: Claims) -> None:
    missing = [tool for tool in ("irtt", "sockperf") if shutil.which(tool) is None]
    if missing:
        print(f"not shown here: {', '.join(missing)} not installed (apt-get install {' '.join(missing)})")
        return
    with hosts("a", "b") as net:
        net.link("a", "b")
        net.peer("b", "10.98.0.2")
        trips = [trip for trip in echo(net, PACKETS, INTERVAL, "10.98.0.2")["trips"] if trip is not None]
        ours = (at(trips, 0.99), at(trips, 0.999))
        others = {"irtt": irtt(net), "sockperf": sockperf(net)}
        print(f"echo: p50 {at(trips, 0.5) * 1e6:.1f} us, p99 {ours[0] * 1e6:.1f} us, p99.9 {ours[1] * 1e6:.1f} us")
        for name, theirs in others.items():
            print(f"{name}: p99 {theirs[0] * 1e6:.0f} us, p99.9 {theirs[1] * 1e6:.0f} us")
        for number, share in enumerate(("p99", "p99.9")):
            ratio = others["irtt"][number] / ours[number]
            claims.check(ratio >= 10, f"{share}: irtt's is {ratio:.0f} times ours (10)")


if __name__ == "__main__":
    main(demonstrate)
