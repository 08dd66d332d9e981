"""TCP throughput, UDP jitter and loss: iperf3 in interleaved rounds, and what its figures amount to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.judge.statistics import median
from bench.measure.jsonl import record
from bench.measure.probe import Failed
from bench.model import Code, Measurement
from probes.common import iperf3
from probes.common.iperf3 import Datagrams, Document, Flow
from probes.common.metrics import Labels, of_counts, of_repeats
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

    def rates(self, direction: str) -> list[float]:
        """Bytes per second of payload, one for each round."""
        return [flow.bytes_per_second for flow in self.of(direction)]


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


def streams_settled(tried: Mapping[int, Sequence[float]]) -> int:
    """Of the numbers that were tried, the one that `streams_next` would go on with."""
    wanted = streams_next(tried)
    return wanted if wanted in tried else max(tried, key=lambda streams: max(tried[streams]))


def measure_tcp(link: Link, plan: NetworkPlan) -> Bandwidth:
    """Rounds of send and receive in turn, so that a change in the network strikes both.

    The first round of each number of streams tries whether it fills the link; the figures are those of the number that
    was settled on.
    """
    rates: dict[str, dict[int, list[float]]] = {direction: {} for direction in DIRECTIONS}
    docs, flows = [], []
    for number in range(plan.tcp_rounds):
        for direction, tried in rates.items():
            link.ctx.progress(f"{link.name}: TCP, {direction}", 0.1 + 0.35 * number / plan.tcp_rounds)
            streams = streams_next(tried) if plan.tcp_rounds > len(STREAMS) else STREAMS[1]
            docs.append(_tcp(link, plan, direction, streams))
            for flow in iperf3.tcp_flows(docs[-1], direction):
                flows.append((streams, flow))
                tried.setdefault(streams, []).append(flow.bytes_per_second)
    settled = {direction: streams_settled(tried) for direction, tried in rates.items()}
    kept = tuple(flow for streams, flow in flows if streams == settled[flow.direction])
    return Bandwidth(kept, settled, iperf3.mean_segment(docs))


def both_ways(link: Link, plan: NetworkPlan, streams: int) -> list[Measurement]:
    """Throughput of each direction while the other one is full as well.

    iperf3 3.9 and 3.10 may not say what arrived; there is no figure then.
    """
    docs = [_tcp(link, plan, "both", streams) for _ in range(plan.both_rounds)]
    flows = [flow for doc in docs for flow in iperf3.tcp_flows(doc, "both")]
    rates = {way: [flow.bytes_per_second for flow in flows if flow.direction == way] for way in DIRECTIONS if flows}
    name = "network_duplex_throughput_bytes_per_second"
    return [of_repeats(name, some, {**link.labels, "direction": way}) for way, some in rates.items()]


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


def measure_udp(link: Link, plan: NetworkPlan, tcp: Bandwidth) -> tuple[list[Datagrams], dict[str, int]]:
    """UDP both ways, and how many datagrams the receiver's own sockets dropped in each direction that lost some."""
    results: list[Datagrams] = []
    before = {direction: _overflows(link, direction) for direction in DIRECTIONS}
    for number in range(plan.udp_rounds):
        for direction in DIRECTIONS:
            link.ctx.progress(f"{link.name}: UDP, {direction}", 0.5 + 0.1 * number / plan.udp_rounds)
            rate = min(link.ctx.option("udp_rate"), UDP_SHARE * 8 * median(tcp.rates(direction)))
            results.append(_udp(link, plan, direction, rate))
    lossy = {one.direction for one in results if one.lost}
    return results, {way: _overflows(link, way) - since for way, since in before.items() if way in lossy}


def _udp(link: Link, plan: NetworkPlan, direction: str, rate: float, buffer: int = SOCKET_BUFFER) -> Datagrams:
    argv = iperf3.udp_arguments(link.iperf3, direction, plan.udp_seconds, rate, UDP_PAYLOAD, buffer)
    try:
        return iperf3.udp_datagrams(link.iperf(f"udp-{direction}", argv, plan.udp_seconds), direction)
    except Failed as error:
        if error.code is not Code.SOCKET_BUFFER or not buffer:
            raise
        return _udp(link, plan, direction, rate, 0)


def _overflows(link: Link, direction: str) -> int:
    """Datagrams that the receiving end's UDP sockets have dropped because they were full, since boot.

    0 from any peer but a `bench peer` on another node, which does not tell.
    """
    found: Mapping[str, int] = {}
    if direction == "receive":
        done = link.ctx.tools.run(["cat", "/proc/net/snmp"], name="udp-counters", timeout=5)
        found = counters(done.stdout, "Udp")
    elif link.leased and "stand_in" not in link.labels:
        words = client_words(link.ctx, link.name)
        done = link.ctx.tools.python("probes.peer.client", "counters", *words, name="peer-counters", timeout=20)
        answer = record(done.stdout, PeerAnswer)
        found = answer.udp if answer is not None else {}
    return found.get("RcvbufErrors", 0)


#: A thread that is busy to this share of its core is the limit, not the link.
CPU_LIMIT = 0.95
#: What one core's worth of CPU time may read at most: more of it is the work of several threads.
ONE_CORE = 1.05
CEILING_SHARE = 0.85
#: Bytes per second that no port exceeds whose speed is not known: 1.6 Tbit/s, Ethernet's fastest (IEEE 802.3dj).
FASTEST_PORT = 2e11


def throughput(
    bandwidth: Bandwidth, labels: Mapping[str, str], ceiling_bits: float, interface: Interface
) -> list[Measurement]:
    """Goodput at the receiver, the median of the rounds; and how often TCP had to send again.

    What a CPU held back is a lower bound: its interval goes up to what this node's link can carry.
    """
    found: list[Measurement] = []
    for direction in DIRECTIONS:
        flows, rates, held = bandwidth.of(direction), bandwidth.rates(direction), None
        named = {**labels, "direction": direction}
        own = {"congestion": flows[0].congestion} if flows[0].congestion else {}
        if ceiling_bits and max(rates) * 8 >= CEILING_SHARE * ceiling_bits:
            limit = f"the test was held to {ceiling_bits / 1e6:.0f} Mbit/s"
            held = f"{Code.RATE_CEILING}: {limit}, so the link may do more"
        measured = of_repeats("network_throughput_bytes_per_second", rates, named | own, held)
        if 2 * sum(full(flow, bandwidth.streams[direction]) for flow in flows) >= len(flows):
            low, high = measured.interval
            most = max(high, (interface.bits_per_second or 0) / 8 or FASTEST_PORT)
            limited = {**measured.labels, "limited_by": "cpu"}
            wide = "a CPU held it back, and the link may carry more"
            measured = measured.model_copy(update={"interval": (low, most), "labels": limited, "wide": wide})
        found.append(measured)
        found += _retransmits(flows, named, bandwidth.segment)
    return found


def full(flow: Flow, streams: int) -> bool:
    """Whether the threads of one end were as busy as they can be: a thread a stream, or a single one.

    The other end's version is not known: one full core is then taken for a single thread.
    """
    all_of_them = CPU_LIMIT * streams
    other = flow.cpu_remote >= all_of_them or CPU_LIMIT <= flow.cpu_remote <= ONE_CORE
    return other or flow.cpu_local >= (all_of_them if flow.threaded else CPU_LIMIT)


def _retransmits(flows: Sequence[Flow], labels: Labels, segment: int | None) -> Iterator[Measurement]:
    """Segments sent again in a round (median), and their share of all segments.

    The share is what can be compared: a clean 12 Gbit/s test retransmits thousands.
    """
    if not (counted := [(flow, float(flow.retransmits)) for flow in flows if flow.retransmits is not None]):
        return
    yield of_repeats("network_retransmits", [again for _, again in counted], labels)
    if segment:
        sent = [max(flow.bytes_per_second * flow.seconds / segment, 1.0) for flow, _ in counted]
        shares = [min(1.0, again / segments) for (_, again), segments in zip(counted, sent, strict=True)]
        yield of_repeats("network_retransmit_ratio", shares, labels, most=1.0)


def utilization(bandwidth: Bandwidth, interface: Interface, labels: Mapping[str, str]) -> list[Measurement]:
    """Goodput over what this node's own link could carry of it; nothing where no real device tells its speed.

    On the wire each segment has TCP's and IPv4's 52 bytes with time stamps, and Ethernet's 38 with preamble and gap.
    """
    speed, mtu = interface.bits_per_second or 0, interface.mtu or 0
    if speed <= 0 or mtu <= 52:
        return []
    most = speed / 8 * (mtu - 52) / (mtu + 38)
    name, shares = "network_link_utilization_ratio", {d: [r / most for r in bandwidth.rates(d)] for d in DIRECTIONS}
    return [of_repeats(name, some, {**labels, "direction": direction}) for direction, some in shares.items()]


def datagrams(results: Sequence[Datagrams], labels: Labels, overflows: Mapping[str, int]) -> list[Measurement]:
    """RFC 3550 jitter (the median of what was reported) and the share of datagrams lost, all rounds pooled.

    Loss that the receiver's own full socket explains is no loss of the network: the figure is invalid then.
    """
    found: list[Measurement] = []
    for direction in dict.fromkeys(one.direction for one in results):
        chosen = [one for one in results if one.direction == direction]
        named = {**labels, "direction": direction}
        found.append(of_repeats("network_jitter_seconds", [j for one in chosen for j in one.jitter_seconds], named))
        packets, lost = sum(one.packets for one in chosen), sum(one.lost for one in chosen)
        dropped = overflows.get(direction, 0)
        reason = f"{dropped} datagrams were dropped by the receiver's own full socket, {lost} lost in all"
        why = f"{Code.RECEIVER_SOCKET}: {reason}" if lost and dropped >= 0.1 * lost else None
        found.append(of_counts("network_loss_ratio", lost, packets, named, why))
    return found
