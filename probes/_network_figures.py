"""What iperf3's figures amount to, as measurements. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.judge.statistics import binomial_interval, median_interval
from bench.measure.probe import Failed
from bench.model import Measurement
from probes.common.iperf3 import Datagrams, Flow
from probes.network.bandwidth import DIRECTIONS, Bandwidth

#: One core busy to this share is the limit, not the link (iperf3 before 3.16 is one thread).
CPU_LIMIT = 0.95
CEILING_SHARE = 0.85


def throughput(bandwidth: Bandwidth, labels: Mapping[str, str], ceiling_bits: float) -> list[Measurement]:
    """Goodput at the receiver, the median of the rounds; and how often TCP had to send again."""
    found: list[Measurement] = []
    for direction in DIRECTIONS:
        flows = [flow for flow in bandwidth.flows if flow.direction == direction]
        named = {**labels, "direction": direction}
        limited = {"limited_by": "cpu"} if is_cpu_limited(flows) else {}
        congestion = {"congestion": flows[0].congestion} if flows and flows[0].congestion else {}
        found.append(
            of_repeats(
                "network_throughput_bytes_per_second",
                [flow.bytes_per_second for flow in flows],
                {**named, **congestion, **limited},
                invalid=_by_ceiling(flows, ceiling_bits),
            )
        )
        found += _retransmits(flows, named, bandwidth.segment)
    return found


def is_cpu_limited(flows: Sequence[Flow]) -> bool:
    """The busier end used a whole core in most rounds: the figure is that core's, and the link may do more."""
    return bool(flows) and sorted(max(f.cpu_local, f.cpu_remote) for f in flows)[len(flows) // 2] >= CPU_LIMIT


def _by_ceiling(flows: Iterable[Flow], ceiling_bits: float) -> str | None:
    reached = max(flow.bytes_per_second for flow in flows) * 8
    if not ceiling_bits or reached < CEILING_SHARE * ceiling_bits:
        return None
    return f"rate_ceiling: the test was held to {ceiling_bits / 1e6:.0f} Mbit/s, so the link may do more"


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


def utilization(bandwidth: Bandwidth, interface: Mapping[str, Any], labels: Mapping[str, str]) -> list[Measurement]:
    """Goodput over what this node's own link could carry of it; nothing where no real device tells its speed.

    On the wire each segment has TCP's and IPv4's 52 bytes with time stamps, and Ethernet's 38 with preamble and gap.
    """
    speed, mtu = interface.get("bits_per_second"), interface.get("mtu")
    if not isinstance(speed, int) or not isinstance(mtu, int) or speed <= 0 or mtu <= 52:
        return []
    most = speed / 8 * (mtu - 52) / (mtu + 38)
    return [
        of_repeats("network_link_utilization_ratio", [rate / most for rate in bandwidth.rates(direction)],
                   {**labels, "direction": direction})
        for direction in DIRECTIONS
    ]  # fmt: skip


def both_ways(flows: Sequence[Flow], labels: Mapping[str, str]) -> list[Measurement]:
    """Throughput of each direction while the other one is full as well."""
    rates = {d: [f.bytes_per_second for f in flows if f.direction == d] for d in DIRECTIONS}
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
    reason = f"receiver_socket: {overflow} datagrams were dropped by the receiver's own full socket, {lost} lost in all"
    return Measurement(
        metric="network_loss_ratio",
        value=lost / packets,
        interval=binomial_interval(lost, packets),
        samples=packets,
        labels=dict(labels),
        invalid=reason if lost and overflow >= 0.1 * lost else None,
    )


def of_repeats(
    metric: str,
    values: Sequence[float],
    labels: Mapping[str, str],
    invalid: str | None = None,
    most: float = math.inf,
) -> Measurement:
    """The median of repeats with its interval, cut at 0 and at ``most``. Raises Failed for none."""
    if not values:
        raise Failed(f"empty: nothing was measured for {metric}")
    value, (low, high) = median_interval(values)
    return Measurement(
        metric=metric, value=value, interval=(max(low, 0.0), min(high, most)), samples=len(values),
        labels=dict(labels), repeats=tuple(values), invalid=invalid,
    )  # fmt: skip
