"""TCP throughput, UDP jitter and loss: iperf3 in interleaved rounds, and what its figures amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.judge.statistics import binomial_interval, median_interval
from bench.measure.jsonl import record
from bench.measure.probe import Context, Failed
from bench.model import Code, Measurement
from probes.common import iperf3
from probes.common.iperf3 import Datagrams, Document, Flow
from probes.common.metrics import of_repeats
from probes.network.plan import NetworkPlan
from probes.peer.link import Link, client_words
from probes.peer.protocol import Interface, PeerAnswer, counters

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

    def of(self, direction: str) -> list[Flow]:
        return [flow for flow in self.flows if flow.direction == direction]

    def median(self, direction: str) -> float:
        """Bytes per second of payload."""
        return median_interval(_rates(self.of(direction)))[0]


def _rates(flows: Sequence[Flow]) -> list[float]:
    return [flow.bytes_per_second for flow in flows]


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


def measure_tcp(link: Link, plan: NetworkPlan) -> Bandwidth:
    """Rounds of send and receive in turn, so that a change in the network strikes both.

    The first round of each number of streams tries whether it fills the link; the figures are those of the number that
    was settled on.
    """
    found: dict[str, dict[int, list[Flow]]] = {direction: {} for direction in DIRECTIONS}
    docs = []
    for number in range(plan.tcp_rounds):
        for direction, flows in found.items():
            link.ctx.progress(f"{link.name}: TCP, {direction}", 0.1 + 0.35 * number / plan.tcp_rounds)
            streams = streams_next(_by_streams(flows)) if plan.tcp_rounds > len(STREAMS) else STREAMS[1]
            docs.append(_tcp(link, plan, direction, streams))
            flows.setdefault(streams, []).extend(iperf3.tcp_flows(docs[-1], direction))
    settled = {direction: streams_settled(_by_streams(flows)) for direction, flows in found.items()}
    kept = tuple(flow for direction, flows in found.items() for flow in flows[settled[direction]])
    return Bandwidth(kept, settled, iperf3.mean_segment(docs))


def _by_streams(flows: Mapping[int, Sequence[Flow]]) -> dict[int, list[float]]:
    return {streams: _rates(some) for streams, some in flows.items()}


def streams_settled(tried: Mapping[int, Sequence[float]]) -> int:
    """Of the numbers that were tried, the one that `streams_next` would go on with."""
    wanted = streams_next(tried)
    return wanted if wanted in tried else max(tried, key=lambda streams: max(tried[streams]))


def measure_both(link: Link, plan: NetworkPlan, streams: int) -> list[Flow]:
    """Both directions at once. iperf3 3.9 and 3.10 may not say what arrived; there is no figure then."""
    docs = [_tcp(link, plan, "both", streams) for _ in range(plan.both_rounds)]
    return [flow for doc in docs for flow in iperf3.tcp_flows(doc, "both")]


def _tcp(link: Link, plan: NetworkPlan, direction: str, streams: int, congestion: str = CONGESTION) -> Document:
    seconds, omit = plan.tcp_seconds, plan.tcp_omit
    try:
        argv = iperf3.tcp_arguments(link.iperf3, direction, seconds, omit, streams, congestion)
        return link.iperf(f"tcp-{direction}", argv, seconds + omit)
    except Failed as error:
        if error.code is not Code.CONGESTION_CONTROL or not congestion:
            raise
        link.ctx.warn(f"{link.name}: {CONGESTION} is not to be had; the kernel's own congestion control was used")
        return _tcp(link, plan, direction, streams, "")


def measure_udp(link: Link, plan: NetworkPlan, capacity: Mapping[str, float]) -> tuple[list[Datagrams], dict[str, int]]:
    """UDP both ways; ``capacity`` in bytes per second. Also how many datagrams the receiver's own sockets dropped."""
    results: list[Datagrams] = []
    before = {"send": _peer_overflows(link), "receive": _overflows(link.ctx)}
    for number in range(plan.udp_rounds):
        for direction in DIRECTIONS:
            link.ctx.progress(f"{link.name}: UDP, {direction}", 0.5 + 0.1 * number / plan.udp_rounds)
            rate = min(link.ctx.option("udp_rate"), UDP_SHARE * 8 * capacity[direction])
            results.append(_udp(link, plan, direction, rate))
    lost = {direction: any(one.lost for one in results if one.direction == direction) for direction in DIRECTIONS}
    overflows = {
        "send": _peer_overflows(link) - before["send"] if lost["send"] else 0,
        "receive": _overflows(link.ctx) - before["receive"] if lost["receive"] else 0,
    }
    return results, overflows


def _udp(link: Link, plan: NetworkPlan, direction: str, rate: float, buffer: int = SOCKET_BUFFER) -> Datagrams:
    argv = iperf3.udp_arguments(link.iperf3, direction, plan.udp_seconds, rate, UDP_PAYLOAD, buffer)
    try:
        return iperf3.udp_datagrams(link.iperf(f"udp-{direction}", argv, plan.udp_seconds), direction)
    except Failed as error:
        if error.code is not Code.SOCKET_BUFFER or not buffer:
            raise
        return _udp(link, plan, direction, rate, 0)


def _overflows(ctx: Context) -> int:
    """Datagrams that this node's UDP sockets have dropped because they were full, since boot."""
    done = ctx.tools.run(["cat", "/proc/net/snmp"], name="udp-counters", timeout=5)
    return counters(done.stdout, "Udp").get("RcvbufErrors", 0)


def _peer_overflows(link: Link) -> int:
    """The same of the peer, if it is a `bench peer` on another node; 0 from any other, which does not tell."""
    if not link.leased or "stand_in" in link.labels:
        return 0
    words = client_words(link.ctx, link.name)
    done = link.ctx.tools.python("probes.peer.client", "counters", *words, name="peer-counters", timeout=20)
    answer = record(done.stdout, PeerAnswer)
    return answer.udp.get("RcvbufErrors", 0) if answer is not None else 0


#: One core busy to this share is the limit, not the link (iperf3 before 3.16 is one thread).
CPU_LIMIT = 0.95
CEILING_SHARE = 0.85


def throughput(bandwidth: Bandwidth, labels: Mapping[str, str], ceiling_bits: float) -> list[Measurement]:
    """Goodput at the receiver, the median of the rounds; and how often TCP had to send again."""
    found: list[Measurement] = []
    for direction in DIRECTIONS:
        flows = bandwidth.of(direction)
        named = {**labels, "direction": direction}
        own = {"congestion": flows[0].congestion} if flows and flows[0].congestion else {}
        own |= {"limited_by": "cpu"} if is_cpu_limited(flows) else {}
        held = _by_ceiling(flows, ceiling_bits)
        found.append(of_repeats("network_throughput_bytes_per_second", _rates(flows), {**named, **own}, held))
        found += _retransmits(flows, named, bandwidth.segment)
    return found


def is_cpu_limited(flows: Sequence[Flow]) -> bool:
    """The busier end used a whole core in most rounds: the figure is that core's, and the link may do more."""
    return bool(flows) and sorted(max(f.cpu_local, f.cpu_remote) for f in flows)[len(flows) // 2] >= CPU_LIMIT


def _by_ceiling(flows: Sequence[Flow], ceiling_bits: float) -> str | None:
    if not ceiling_bits or max(_rates(flows)) * 8 < CEILING_SHARE * ceiling_bits:
        return None
    return f"{Code.RATE_CEILING}: the test was held to {ceiling_bits / 1e6:.0f} Mbit/s, so the link may do more"


def _retransmits(flows: Sequence[Flow], labels: Mapping[str, str], segment: int | None) -> list[Measurement]:
    """Segments sent again in a round (median), and their share of all segments.

    The share is what can be compared: a clean 12 Gbit/s test retransmits thousands.
    """
    counted = [flow for flow in flows if flow.retransmits is not None]
    if not counted:
        return []
    found = [of_repeats("network_retransmits", [float(flow.retransmits or 0) for flow in counted], labels)]
    if segment:
        segments = [max(flow.bytes_per_second * flow.seconds / segment, 1.0) for flow in counted]
        shares = [min(1.0, (f.retransmits or 0) / s) for f, s in zip(counted, segments, strict=True)]
        found.append(of_repeats("network_retransmit_ratio", shares, labels, most=1.0))
    return found


def utilization(bandwidth: Bandwidth, interface: Interface, labels: Mapping[str, str]) -> list[Measurement]:
    """Goodput over what this node's own link could carry of it; nothing where no real device tells its speed.

    On the wire each segment has TCP's and IPv4's 52 bytes with time stamps, and Ethernet's 38 with preamble and gap.
    """
    speed, mtu = interface.bits_per_second or 0, interface.mtu or 0
    if speed <= 0 or mtu <= 52:
        return []
    most = speed / 8 * (mtu - 52) / (mtu + 38)
    shares = {direction: [rate / most for rate in _rates(bandwidth.of(direction))] for direction in DIRECTIONS}
    return [
        of_repeats("network_link_utilization_ratio", some, {**labels, "direction": d}) for d, some in shares.items()
    ]


def both_ways(flows: Sequence[Flow], labels: Mapping[str, str]) -> list[Measurement]:
    """Throughput of each direction while the other one is full as well."""
    rates = {d: _rates([flow for flow in flows if flow.direction == d]) for d in DIRECTIONS}
    name = "network_duplex_throughput_bytes_per_second"
    return [of_repeats(name, values, {**labels, "direction": d}) for d, values in rates.items() if values]


def datagrams(
    results: Sequence[Datagrams], labels: Mapping[str, str], overflows: Mapping[str, int]
) -> list[Measurement]:
    """RFC 3550 jitter (the median of what was reported) and the share of datagrams lost, all rounds pooled.

    Loss that the receiver's own full socket explains is no loss of the network: the figure is invalid then.
    """
    found: list[Measurement] = []
    for direction in DIRECTIONS:
        chosen = [one for one in results if one.direction == direction]
        if not chosen:
            continue
        named = {**labels, "direction": direction}
        found.append(of_repeats("network_jitter_seconds", [j for one in chosen for j in one.jitter_seconds], named))
        found.append(_loss(chosen, named, overflows.get(direction, 0)))
    return found


def _loss(results: Sequence[Datagrams], labels: Mapping[str, str], overflow: int) -> Measurement:
    packets, lost = sum(one.packets for one in results), sum(one.lost for one in results)
    reason = f"{overflow} datagrams were dropped by the receiver's own full socket, {lost} lost in all"
    return Measurement(
        metric="network_loss_ratio", value=lost / packets, interval=binomial_interval(lost, packets), samples=packets,
        labels=dict(labels), invalid=f"{Code.RECEIVER_SOCKET}: {reason}" if lost and overflow >= 0.1 * lost else None,
    )  # fmt: skip
