"""Links of known rates: TCP throughput against the rate less headers, and against iperf3 by hand, in turn."""

from __future__ import annotations

import json
from statistics import median

from tests.accuracy._network import Claims, drive, main, pick, shaped
from tests.probes.network.testbed import Net

RATES = (50e6, 200e6, 1000e6)
#: Payload of a full segment and the bytes that tbf counts for it: Ethernet 14, IPv4 20, TCP with time stamps 32.
SHARE = 1448 / 1514
TURNS = 2


def raw(net: Net, reverse: bool) -> float:
    words = ["iperf3", "-c", "10.98.0.2", "-p", "5999", "-J", "-C", "cubic", "-O", "1", "-t", "2"]
    done = net.run(net.command("a", *words, *(["-R"] if reverse else [])))
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 8


def demonstrate(claims: Claims) -> None:
    for bits in RATES:
        with shaped(bits, 0.03) as net:
            net.start(net.command("b", "iperf3", "-s", "-p", "5999"))
            by_hand: dict[str, list[float]] = {"send": [], "receive": []}
            ours: dict[str, list[float]] = {"send": [], "receive": []}
            for _ in range(TURNS):
                answer = drive(net, "tcp", "10.98.0.2", "4", "2")
                for direction, values in by_hand.items():
                    values += [raw(net, direction == "receive") for _ in range(2)]
                    (m,) = pick(answer, "network_throughput_bytes_per_second", direction=direction)
                    ours[direction] += m["repeats"]
            for direction in ours:
                got, hand, true = median(ours[direction]), median(by_hand[direction]), bits / 8 * SHARE
                name = f"{bits / 1e6:.0f} Mbit/s, {direction}"
                claims.check(abs(got / true - 1) <= 0.02, f"{name}: {got / true:.4f} of the rate less headers (2 %)")
                claims.check(abs(got / hand - 1) <= 0.01, f"{name}: {got / hand:.4f} of iperf3 by hand (1 %)")


if __name__ == "__main__":
    main(demonstrate)
