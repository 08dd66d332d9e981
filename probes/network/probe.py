"""The network as the workloads feel it: how much it carries, and how late it delivers, against each named peer.

Training wants throughput, real-time inference wants no late packet, batch inference must not take either from the
others. Without a peer the loopback is measured, which says nothing about a network and is labelled as a stand-in.
Bandwidth tests go only to addresses that the operator named, for a time set by the effort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.measure import budget
from bench.measure.probe import Check, Context, Failed, Option, Probe, ProbeError, Tools, python_argv
from bench.model import Code, Measurement, Request
from probes.common.metrics import BETWEEN_HOSTS, Between, metrics, of_counts
from probes.network.plan import LOOPBACK_PLANS, PEER_PLANS, UDP_BITS_PER_SECOND, NetworkPlan, for_peers
from probes.peer.options import KEY_FILE, MAX_RATE, bits

if TYPE_CHECKING:
    from probes.peer.protocol import Interface

_SLACK_SECONDS = 30.0


def measure(ctx: Context) -> Sequence[Measurement]:
    """Every peer in turn; one that fails is a warning as long as another one answered."""
    ctx.tools.require("iperf3")
    if not ctx.request.peers:
        return _loopback(ctx)
    plan = for_peers(ctx.effort, len(ctx.request.peers), ctx.remaining() - _SLACK_SECONDS)
    return ctx.each(ctx.request.peers, lambda _, peer: measure_one(ctx, peer, {}, plan))


def _loopback(ctx: Context) -> list[Measurement]:
    from bench.measure.jsonl import record
    from probes.peer.protocol import LOOPBACK, LoopbackLine

    ctx.warn("no --peer was named: only the loopback was measured, which is not a network")
    argv = python_argv("probes.peer.server")
    with ctx.tools.serve(argv, name="loopback", ready='{"loopback"', timeout=20) as line:
        if (own := record(line, LoopbackLine)) is None:
            raise Failed(Code.LOOPBACK_FAILED, f"no peer of our own could be started ({line[:80]!r})")
        labels = {"stand_in": "loopback", "peer": "loopback"}
        return measure_one(ctx, f"{LOOPBACK}:{own.loopback}", labels, LOOPBACK_PLANS[ctx.effort])


def measure_one(ctx: Context, peer: str, labels: Mapping[str, str], plan: NetworkPlan) -> list[Measurement]:
    """The idle echo first, while nothing of ours is in any queue; the loads last."""
    from probes.network import bandwidth, echo
    from probes.peer.link import connected

    with connected(ctx, peer, labels, plan.seconds * 2 + _SLACK_SECONDS) as link:
        ceiling = link.iperf3.max_bits_per_second
        ctx.progress(f"{peer}: {announcement(plan, ceiling, link.interface)}", 0.0)  # courtesy: before it is sent
        quiet, quick = echo.unloaded(link, plan) if link.echo_port else (None, None)
        tcp = bandwidth.measure_tcp(link, plan)
        found = bandwidth.throughput(tcp, link.labels, ceiling, link.interface)
        found += bandwidth.utilization(tcp, link.interface, link.labels)
        found += bandwidth.both_ways(link, plan, max(tcp.streams.values()))
        udp, overflows = bandwidth.measure_udp(link, plan, tcp)
        found += bandwidth.datagrams(udp, link.labels, overflows)
        if quiet is None:
            plain = f"{peer} is a plain iperf3 server"
            ctx.warn(f"{plain}: no round trips, no spikes; start `bench peer` there to have them")
            return found
        return found + echo.figures(link, quiet, quick, echo.loaded(link, plan, tcp, quiet))


def best(request: Request) -> list[Measurement]:
    """Nothing lost, and nothing late, of as many datagrams and packets as are planned."""
    from probes.network.bandwidth import UDP_PAYLOAD
    from probes.network.echo_parse import quantiles

    plan = (PEER_PLANS if request.peers else LOOPBACK_PLANS)[request.effort]
    sent = plan.udp_rounds * plan.udp_seconds * PROBE.option(request, "udp_rate") / 8 / UDP_PAYLOAD
    found = [of_counts("network_loss_ratio", 0, max(1, int(sent)), {})]
    for state, packets in (("idle", plan.idle_packets), ("loaded", plan.loaded_packets)):
        found += quantiles("network_round_trip_seconds", [0.0] * packets, {"state": state}) if packets else []
    return found


def announcement(plan: NetworkPlan, ceiling: float, interface: Interface) -> str:
    """For people. Bytes at the ceiling, else at the link's own speed, else for each Gbit/s that the link carries."""
    most = f"{plan.link_seconds / 8:.1f} GB for each Gbit/s of the link"
    if speed := ceiling or interface.bits_per_second:
        most = f"up to {speed / 8 * plan.link_seconds / 1e9:.1f} GB"
    rate = f"at most {ceiling / 1e6:.0f} Mbit/s" if ceiling else "as fast as the link allows"
    return f"sends and receives {most}, {rate}, in about {plan.seconds:.0f} s"


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Is iperf3 there, and was a peer named?"""
    try:
        checks = [Check("iperf3", True, tools.require("iperf3"))]
    except ProbeError as error:
        checks = [Check("iperf3", False, error.reason, error.remedy)]
    named = ", ".join(request.peers)
    remedy = "run `bench peer --bind ADDRESS` on another node and name it with --peer HOST"
    return [*checks, Check("peer", bool(named), named or "no peer was named", None if named else remedy)]


#: A difference of two times has no scale of its own.
_DIFFERENCES = dict.fromkeys(("response_left_seconds", "network_added_delay_seconds"))
_BETWEEN = Between(
    BETWEEN_HOSTS.source, {**BETWEEN_HOSTS.spread, "network_link_utilization_ratio": 0.03, **_DIFFERENCES}
)
#: What a speaker waits for: `bench.judge.latency_budget` puts these round trips and the inference probe's times
#: together.
_RESPONSE = metrics(
    ("response_over_budget_ratio",
     "how likely an answer takes more than the budget of 200 ms", "budget_seconds", "lower"),
    ("response_seconds", "time of an answer: network and model put together", "statistic", "lower"),
    ("response_left_seconds", "what the budget leaves at the 99th percentile", "", "higher"),
    ("response_part_ratio", "share of one part in the mean time of an answer", "part", "none"),
    ("response_part_seconds",
     "of a server on another host: what the network to it takes, by the echo there or by connecting, and what it takes",
     "endpoint part statistic measured_by*", "none"),
    first="until", last="stand_in", between=_BETWEEN,
)  # fmt: skip
_OWN = metrics(
    ("network_throughput_bytes_per_second",
     "TCP payload that arrived a second (iperf3, cubic, as many streams as fill the link), the median of the rounds",
     "direction congestion* limited_by*", "higher"),
    ("network_link_utilization_ratio",
     "that throughput over what this node's link can carry of it, by its speed and MTU", "direction", "higher"),
    ("network_retransmits", "TCP segments sent again in one round (iperf3)", "direction", "lower"),
    ("network_retransmit_ratio", "share of TCP segments that were sent again (iperf3)", "direction", "lower"),
    ("network_duplex_throughput_bytes_per_second",
     "TCP payload that arrived a second while the other direction was full as well", "direction", "higher"),
    ("network_jitter_seconds", "UDP interarrival jitter at the receiver (iperf3, RFC 3550)", "direction", "lower"),
    ("network_loss_ratio", "share of UDP datagrams that did not arrive (iperf3)", "direction", "lower"),
    ("network_round_trip_seconds",
     "round trip of a voice packet by the kernels' time stamps, without either host's share (paced echo)",
     "state statistic stamps*", "lower"),
    ("network_application_round_trip_seconds",
     "the same as an application sees it, from the slot in which the packet was due", "state statistic", "lower"),
    ("network_delay_variation_seconds", "round trip less the smallest (RFC 5481)", "state statistic", "lower"),
    ("network_place_delay_seconds",
     "time a packet spent in this node's egress queue, on this host, on the peer's host",
     "state place statistic", "lower"),
    ("network_echo_loss_ratio", "share of the echo's packets lost on the way", "state direction", "lower"),
    ("network_lost_burst_packets", "the longest run of lost echo packets", "state", "lower"),
    ("network_reordered_packets", "echo packets that came back after a later one", "state", "lower"),
    ("network_duplicate_packets", "echo packets that came back twice", "state", "lower"),
    ("network_missed_send_slots", "echo packets that this host sent after the next one was due", "state", "lower"),
    ("network_spike_events",
     "runs of packets later than usual by more than the threshold, each laid at one place",
     "state place threshold_seconds", "lower"),
    ("network_spike_rate_upper_bound_per_second",
     "the largest rate of the network's own spikes above 20 ms that is still plausible (Poisson, 95 %)",
     "state", "lower"),
    ("network_fine_round_trip_seconds", "the idle round trip with a packet every 2 ms", "statistic stamps*", "lower"),
    ("network_load_round_trip_seconds",
     "round trip beside a load: UDP at a share of the capacity, or eight TCP streams",
     "direction load statistic", "lower"),
    ("network_added_delay_seconds", "what a load adds to the round trip's p99", "direction load", "lower"),
    ("network_load_bytes_per_second", "what the load itself brought across", "direction load", "none"),
    ("network_voice_safe_load_ratio",
     "voice-safe headroom: the largest batch load, as a share of the capacity, that adds at most 20 ms to p99",
     "direction", "higher"),
    first="peer", last="stand_in", between=_BETWEEN,
)  # fmt: skip
_UDP_HELP = "bit/s of the UDP test, 10M say, at most half of TCP's"
UDP_RATE = Option("udp_rate", _UDP_HELP, type=bits, default=UDP_BITS_PER_SECOND)

PROBE = Probe(
    name="network",
    help="Throughput, jitter, loss and round trips to each --peer (iperf3 and a paced echo); the loopback without one.",
    metrics=(*_OWN, *_RESPONSE),
    seconds=budget.LOOPBACK,
    peer_seconds=budget.NETWORK,
    measure=measure,
    doctor=doctor,
    best=best,
    guards_itself=True,
    order=40,
    options=(KEY_FILE, MAX_RATE, UDP_RATE),
    facts=("peers", "versions.iperf3", "versions.python"),
)
