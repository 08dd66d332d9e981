"""How long each part of the network probe takes, by effort: its courtesy towards everybody else on the link."""

from __future__ import annotations

import math
from typing import NamedTuple

from bench.model import Effort

#: Seconds between echo packets: a voice stream's (RTP, G.711), a tenth of it, and beside loads.
VOICE_INTERVAL, FINE_INTERVAL, LOADED_INTERVAL = 0.020, 0.002, 0.005
#: A UDP test at a rate that no link of a GPU node should feel, and never more than half of what TCP reached: 5,357
#: datagrams a second, so that a second with none lost shows a loss under 0.1 %, and three seconds with eight.
UDP_BITS_PER_SECOND = 60e6


class NetworkPlan(NamedTuple):
    """Whole seconds for iperf3. ``loads``: shares of the measured capacity that are offered as UDP.

    ``settle_seconds``: how long a load runs before the echo beside it begins, so that its queues are full.
    """

    tcp_rounds: int
    tcp_seconds: int
    tcp_omit: int
    udp_rounds: int
    udp_seconds: int
    idle_packets: int
    both_rounds: int = 0
    fine_packets: int = 0
    loads: tuple[float, ...] = ()
    loaded_packets: int = 0
    idle_interval: float = VOICE_INTERVAL
    settle_seconds: float = 2.0

    @property
    def bandwidth_seconds(self) -> int:
        """How long TCP runs as fast as it can, both directions together, loads beside the echo not counted."""
        return (self.tcp_seconds + self.tcp_omit) * (2 * self.tcp_rounds + self.both_rounds)

    @property
    def load_seconds(self) -> int:
        """How long one load runs beside an echo: its queues fill, the echo takes its time, and a second is left."""
        return math.ceil(self.settle_seconds + self.loaded_packets * LOADED_INTERVAL + 1) if self.loaded_packets else 0

    @property
    def link_seconds(self) -> float:
        """Seconds at the link's full rate that all tests together amount to, at most."""
        shares = sum(self.loads) + 1.0
        return self.bandwidth_seconds + self.both_rounds * self.tcp_seconds + 2 * shares * self.load_seconds

    @property
    def seconds(self) -> float:
        """About how long the whole takes, starts of programs included."""
        echo = self.idle_packets * self.idle_interval + self.fine_packets * FINE_INTERVAL + 1.5
        loaded = 2 * (len(self.loads) + 1) * (self.load_seconds + 0.5) if self.loaded_packets else 0.0
        return self.bandwidth_seconds * 1.1 + 2 * self.udp_rounds * (self.udp_seconds + 0.4) + echo + loaded


#: Each fits its row of `bench.measure.budget`. A p99 needs 368 packets, and 505 where it is looked at four times. At
#: standard TCP runs for a second at a time, after the one left out: where that does not decide, further rounds do.
PEER_PLANS = {
    Effort.QUICK: NetworkPlan(4, 1, 0, 1, 1, 380, loaded_packets=390, settle_seconds=1.0),
    Effort.STANDARD: NetworkPlan(
        5, 1, 1, 3, 1, 520, both_rounds=1, fine_packets=1000, loads=(0.8,), loaded_packets=600
    ),
    Effort.THOROUGH: NetworkPlan(
        7, 8, 2, 3, 8, 12000, both_rounds=3, fine_packets=10000, loads=(0.5, 0.8, 0.95), loaded_packets=2000
    ),
}
#: Nobody speaks over the loopback: its packets need no voice stream's pace.
_SHORT = NetworkPlan(2, 1, 0, 1, 1, 380, idle_interval=LOADED_INTERVAL)
_LONGER = NetworkPlan(3, 1, 0, 2, 1, 600, fine_packets=500, idle_interval=LOADED_INTERVAL)
LOOPBACK_PLANS = {Effort.QUICK: _SHORT, Effort.STANDARD: _LONGER, Effort.THOROUGH: _LONGER}


def for_peers(effort: Effort, peers: int, seconds: float) -> NetworkPlan:
    """The most thorough plan up to ``effort`` with which all peers fit into ``seconds``; the quick one at least."""
    order = list(PEER_PLANS)
    fitting = [e for e in order[: order.index(effort) + 1] if PEER_PLANS[e].seconds * peers <= seconds]
    return PEER_PLANS[fitting[-1] if fitting else Effort.QUICK]
