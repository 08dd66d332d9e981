"""SIGSTOP of 250 ms, five times each, on the peer, on the relay, on the client: each is laid at the right door."""

from __future__ import annotations

import json
import time

from tests.accuracy._network import Claims, hosts, main
from tests.probes.network.test_truth import child_of, stall
from tests.probes.network.truth import PEER, compare, start_echo

TIMES, STALL, PAUSE = 5, 0.25, 0.8
DOORS = {"peer": "peer", "relay": "network", "client": "host"}


def demonstrate(claims: Claims) -> None:
    for whom, place in DOORS.items():
        with hosts("a", "b") as net:
            relay = net.relay("a", "b", {"delay": 0.002})
            peer = net.peer("b", PEER)
            packets = round(TIMES * (STALL + PAUSE) / 0.02) + 200
            running = start_echo(net, packets, 0.02)
            client = child_of(running.pid, "probes.network.echo_child ")
            time.sleep(1.5)  # until it sends
            for _ in range(TIMES):
                stall({"peer": peer.pid, "relay": relay.process.pid, "client": client}[whom], STALL)
                time.sleep(PAUSE)
            out, _ = running.communicate(timeout=120)
            found = compare(json.loads(out), relay).events(0.15)
            claims.check(dict(found) == {place: TIMES}, f"{TIMES} stalls of the {whom}: {dict(found)}")


if __name__ == "__main__":
    main(demonstrate)
