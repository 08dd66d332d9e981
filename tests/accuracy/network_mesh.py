"""Four hosts on a switch: every link, a 4-rank all-reduce against theory, and one port shaped to a fifth, named."""

from __future__ import annotations

import json
from typing import Any

from tests.accuracy._network import Claims, hosts, main
from tests.probes.network.testbed import Net

NAMES = ("a", "b", "c", "d")
BITS, SLOW_BITS = 500e6, 100e6
GOODPUT = BITS / 8 * 1448 / 1514
LATENCY = 0.02


def build(net: Net) -> None:
    net.switch(NAMES)
    for host in NAMES:
        net.shape(host, BITS, LATENCY, burst=125_000)
        net.shape("switch", BITS, LATENCY, device=f"p-{host}", burst=125_000)
    for number, host in enumerate(NAMES[1:], 2):
        net.peer(host, f"10.96.0.{number}")


def run(net: Net) -> dict[str, Any]:
    words = [word for number in (2, 3, 4) for word in ("--peer", f"10.96.0.{number}")]
    argv = net.python("a", "bench", "run", "--probe", "collective", "--effort", "quick", "--accelerator", "cpu",
                      "--json", "--results", str(net.folder), *words)  # fmt: skip
    done = net.run(argv, 240)
    if not done.stdout.strip():
        raise RuntimeError(done.stderr[-1500:])
    (result,) = (r for r in json.loads(done.stdout)["results"] if r["probe"] == "collective")
    if result["outcome"] != "ok":
        raise RuntimeError(result["reason"])
    return dict(result)


def find(result: dict[str, Any], metric: str, **labels: str) -> list[dict[str, Any]]:
    return [m for m in result["measurements"] if m["metric"] == metric and labels.items() <= m["labels"].items()]


def demonstrate(claims: Claims) -> None:
    with hosts(*NAMES) as net:
        build(net)
        even = run(net)
        links = [m["value"] / GOODPUT for m in find(even, "collective_link_bytes_per_second")]
        claims.check(len(links) == 12, f"{len(links)} of 12 links measured")
        spread = f"{min(links):.3f} to {max(links):.3f}"
        claims.check(min(links) >= 0.9 and max(links) <= 1.1, f"every link carries {spread} of its port (10 %)")
        (bus,) = find(even, "collective_bus_bytes_per_second", size_bytes=str(16 << 20))
        share = bus["value"] / GOODPUT
        claims.check(abs(share - 1) <= 0.1, f"all-reduce of 16 MiB by 4 ranks: {share:.3f} of theory (10 %)")
        claims.check(not find(even, "collective_straggler_info"), "no straggler among equals")
        for way in ("receive", "send"):
            where = ("switch", "p-c") if way == "receive" else ("c", "e0")
            net.shape(where[0], SLOW_BITS, LATENCY, device=where[1], burst=125_000)
            uneven = run(net)
            net.shape(where[0], BITS, LATENCY, device=where[1], burst=125_000)
            named = [(m["labels"]["host"], m["labels"]["cause"]) for m in find(uneven, "collective_straggler_info")]
            claims.check(named == [("10.96.0.3", f"slow_{way}")], f"port of host 3 shaped to a fifth ({way}): {named}")
            (port,) = find(uneven, "collective_port_ratio", host="10.96.0.3", direction=way)
            claims.check(
                0.17 <= port["value"] <= 0.23, f"in the matrix its {way} carries {port['value']:.3f} of the others"
            )


if __name__ == "__main__":
    main(demonstrate)
