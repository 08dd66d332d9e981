"""TCP throughput, UDP jitter and loss: iperf3 in interleaved rounds, and what its figures amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.judge.statistics import median_interval
from bench.measure.jsonl import decoded
from bench.measure.probe import Context
from probes.common.iperf3 import (
    Datagrams,
    Flow,
    NoCongestionControl,
    NoSocketBuffer,
    Server,
    mean_segment,
    tcp_arguments,
    tcp_flows,
    udp_arguments,
    udp_datagrams,
)
from probes.loads.peer_counters import parse as parse_counters
from probes.network.plan import Plan
from probes.peer.link import Link, rate_option

DIRECTIONS = ("send", "receive")
#: One stream measures a link most exactly, if it fills it; a long path, or many cores, needs more.
STREAMS = (1, 4, 8)
#: More streams are used only if they bring so much more.
MORE_BY = 1.03
#: Without one named, the two ends could run different ones, and the figure would depend on a sysctl.
CONGESTION = "cubic"
#: A UDP test at a rate that no link of a GPU node should feel, and never more than half of what TCP reached.
UDP_BITS_PER_SECOND = 10e6
UDP_SHARE = 0.5
UDP_PAYLOAD = 1400
SOCKET_BUFFER = 2 << 20


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """All rounds of both directions, with the number of streams that was chosen and the segment size (bytes)."""

    flows: tuple[Flow, ...]
    streams: Mapping[str, int]
    segment: int | None

    def rates(self, direction: str) -> list[float]:
        return [flow.bytes_per_second for flow in self.flows if flow.direction == direction]

    def median(self, direction: str) -> float:
        """Bytes per second of payload."""
        return median_interval(self.rates(direction))[0]


def streams_next(tried: Mapping[int, Sequence[float]]) -> int:
    """How many streams the next round should have: the fewest that no larger number beats by `MORE_BY`."""
    best = {streams: max(rates) for streams, rates in tried.items()}
    for fewer, more in pairwise(STREAMS):
        if fewer not in best:
            return fewer
        if more not in best:
            return more
        if best[more] <= MORE_BY * best[fewer]:
            return fewer
    return STREAMS[-1]


def measure_tcp(link: Link, plan: Plan) -> Bandwidth:
    """Rounds of send and receive in turn, so that a change in the network strikes both.

    The first round of each number of streams tries whether it fills the link; the figures are those of the number that
    was settled on.
    """
    found: dict[str, dict[int, list[Flow]]] = {direction: {} for direction in DIRECTIONS}
    docs = []
    for number in range(plan.tcp_rounds):
        for direction, flows in found.items():
            link.ctx.progress(f"{link.name}: TCP, {direction}", 0.1 + 0.35 * number / plan.tcp_rounds)
            streams = streams_next(_rates(flows)) if plan.tcp_rounds > len(STREAMS) else STREAMS[1]
            docs.append(_tcp(link, plan, direction, streams))
            flows.setdefault(streams, []).extend(tcp_flows(docs[-1], direction))
    settled = {direction: streams_settled(_rates(flows)) for direction, flows in found.items()}
    kept = tuple(flow for direction, flows in found.items() for flow in flows[settled[direction]])
    return Bandwidth(kept, settled, mean_segment(docs))


def _rates(flows: Mapping[int, Sequence[Flow]]) -> dict[int, list[float]]:
    return {streams: [flow.bytes_per_second for flow in some] for streams, some in flows.items()}


def streams_settled(tried: Mapping[int, Sequence[float]]) -> int:
    """Of the numbers that were tried, the one that `streams_next` would go on with."""
    wanted = streams_next(tried)
    return wanted if wanted in tried else max(tried, key=lambda streams: max(tried[streams]))


def measure_both(link: Link, plan: Plan, streams: int) -> list[Flow]:
    """Both directions at once. iperf3 3.9 and 3.10 may not say what arrived; there is no figure then."""
    flows: list[Flow] = []
    for _ in range(plan.both_rounds):
        flows += tcp_flows(_tcp(link, plan, "both", streams), "both")
    return flows


def _tcp(link: Link, plan: Plan, direction: str, streams: int) -> dict[str, object]:
    seconds = plan.tcp_seconds + plan.tcp_omit

    def arguments(congestion: str) -> dict[str, object]:
        return link.iperf(
            f"tcp-{direction}",
            lambda server: tcp_arguments(server, direction, plan.tcp_seconds, plan.tcp_omit, streams, congestion),
            seconds,
        )

    try:
        return arguments(CONGESTION)
    except NoCongestionControl:
        link.ctx.warn(f"{link.name}: {CONGESTION} is not to be had; the kernel's own congestion control was used")
        return arguments("")


def measure_udp(link: Link, plan: Plan, capacity: Mapping[str, float]) -> tuple[list[Datagrams], dict[str, int]]:
    """UDP both ways; ``capacity`` in bytes per second. Also how many datagrams the receiver's own sockets dropped."""
    results: list[Datagrams] = []
    before = {"send": _peer_overflows(link), "receive": _overflows(link.ctx)}
    for number in range(plan.udp_rounds):
        for direction in DIRECTIONS:
            link.ctx.progress(f"{link.name}: UDP, {direction}", 0.5 + 0.1 * number / plan.udp_rounds)
            asked = rate_option(link.ctx, "udp_rate", UDP_BITS_PER_SECOND)
            rate = min(asked, UDP_SHARE * 8 * capacity[direction])
            results.append(_udp(link, plan, direction, rate))
    lost = {direction: any(one.lost for one in results if one.direction == direction) for direction in DIRECTIONS}
    overflows = {
        "send": _peer_overflows(link) - before["send"] if lost["send"] else 0,
        "receive": _overflows(link.ctx) - before["receive"] if lost["receive"] else 0,
    }
    return results, overflows


def _udp(link: Link, plan: Plan, direction: str, rate: float, buffer: int = SOCKET_BUFFER) -> Datagrams:
    def arguments(server: Server) -> list[str]:
        return udp_arguments(server, direction, plan.udp_seconds, rate, UDP_PAYLOAD, buffer)

    try:
        return udp_datagrams(link.iperf(f"udp-{direction}", arguments, plan.udp_seconds), direction)
    except NoSocketBuffer:
        if not buffer:
            raise
        return _udp(link, plan, direction, rate, 0)


def _overflows(ctx: Context) -> int:
    """Datagrams that this node's UDP sockets have dropped because they were full, since boot."""
    done = ctx.tools.run(["cat", "/proc/net/snmp"], name="udp-counters", timeout=5)
    return parse_counters(done.stdout, "Udp").get("RcvbufErrors", 0)


def _peer_overflows(link: Link) -> int:
    """The same of the peer, if it is a `bench peer` on another node; 0 from any other, which does not tell."""
    if not link.leased or "stand_in" in link.labels:
        return 0
    words = ["--host", link.iperf3.host, "--port", str(link.control_port)]
    words += ["--key-file", link.key_file] if link.key_file else []
    done = link.ctx.tools.python("probes.loads.peer_ask", *words, name="peer-counters", timeout=20)
    found = decoded(done.stdout) or {}
    counters = found.get("udp")
    value = counters.get("RcvbufErrors", 0) if isinstance(counters, dict) else 0
    return value if isinstance(value, int) else 0
