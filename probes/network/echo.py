"""The echo against a peer: on an idle link, at a fine pace, and beside what batch inference would send."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

from bench.judge.statistics import median
from bench.measure.probe import Failed, TimedOut
from bench.model import Code, Measurement, Series
from probes.common.iperf3 import document, tcp_arguments, tcp_flows, udp_arguments, udp_datagrams
from probes.common.metrics import figure, of_repeats
from probes.network.bandwidth import CONGESTION, DIRECTIONS, SOCKET_BUFFER, UDP_PAYLOAD, Bandwidth
from probes.network.echo_parse import Echo, LoadEnded, idle_or_loaded, parse, quantiles, usual_times
from probes.network.plan import FINE_INTERVAL, LOADED_INTERVAL, NetworkPlan
from probes.peer.link import Link, key_words

#: G.711 voice in RTP: 160 bytes of sound and 12 of header, every 20 ms.
VOICE_BYTES = 172
SATURATING_STREAMS = 8
#: A batch load is safe while it adds at most so much to the round trip's p99, and loses at most so many packets.
SAFE_ADDED_SECONDS, SAFE_LOSS_RATIO = 0.020, 0.01
_MOST_POINTS = 2000
TCP = "tcp8"


class Loaded(NamedTuple):
    """One echo beside one load. ``share``: of the measured capacity; 1 for TCP streams, which take all."""

    direction: str
    load: str
    share: float
    echo: Echo
    bytes_per_second: float


def unloaded(link: Link, plan: NetworkPlan) -> tuple[Echo, Echo | None]:
    """The voice stream on a link that carries nothing else of ours; and at a tenth of its interval: shorter stalls."""
    link.ctx.progress(f"{link.name}: paced echo, idle", 0.05)
    quiet = paced(link, "echo-idle", plan.idle_packets, plan.idle_interval)
    if not plan.fine_packets:
        return quiet, None
    link.ctx.progress(f"{link.name}: paced echo, every 2 ms", 0.1)
    return quiet, paced(link, "echo-fine", plan.fine_packets, FINE_INTERVAL)


def loaded(link: Link, plan: NetworkPlan, bandwidth: Bandwidth, quiet: Echo) -> list[Loaded]:
    """The echo beside each load, one direction at a time: UDP at shares of the capacity, and eight TCP streams.

    A UDP load that is not safe is tried once more, and the calmer one counts: iperf3 makes up for every moment in
    which this host held it up, and such a burst is the host's, not the load's.
    """
    found: list[Loaded] = []
    levels = [*((f"{share:.0%}", share) for share in plan.loads), (TCP, 1.0)] if plan.loaded_packets else []
    for number, (name, share) in enumerate(levels):
        for direction in DIRECTIONS:
            link.ctx.progress(f"{link.name}: paced echo beside {name} load, {direction}", 0.65 + 0.3 * number / 4)
            one = _beside(link, plan, bandwidth, name, share, direction)
            if name != TCP and not is_safe(one, quiet):
                again = _beside(link, plan, bandwidth, name, share, direction)
                one = min(one, again, key=lambda tried: tried.echo.p99)
            found.append(one)
    return found


def _beside(link: Link, plan: NetworkPlan, bandwidth: Bandwidth, name: str, share: float, direction: str) -> Loaded:
    seconds = plan.load_seconds
    if name == TCP:
        words = tcp_arguments(link.iperf3, direction, seconds, 0, SATURATING_STREAMS, CONGESTION)
    else:
        # The UDP payload rate that fills the link as TCP did: from goodput to the bits of whole frames by TCP's headers
        # (Ethernet 14, IPv4 20, TCP with time stamps 32), and back by UDP's (14 + 20 + 8).
        segment = bandwidth.segment or 1448
        frames = median(bandwidth.rates(direction)) * 8 * (segment + 66) / segment
        rate = share * (frames * UDP_PAYLOAD / (UDP_PAYLOAD + 42))
        words = udp_arguments(link.iperf3, direction, seconds, rate, UDP_PAYLOAD, SOCKET_BUFFER)
    title = f"echo-{name.rstrip('%')}-{direction}"
    echo = paced(link, title, plan.loaded_packets, LOADED_INTERVAL, words, seconds, plan.settle_seconds)
    doc = document(echo.load, link.iperf3)  # raises when the load broke off
    came = tcp_flows(doc, direction)[0] if name == TCP else udp_datagrams(doc, direction)
    return Loaded(direction, name, share, echo, came.bytes_per_second)


def paced(
    link: Link, name: str, packets: int, interval: float,
    load: Sequence[str] = (), load_seconds: float = 0.0, settle_seconds: float = 0.0,
) -> Echo:  # fmt: skip
    """``packets`` of a voice packet's size, ``interval`` seconds apart; with a load, beside it once it has settled.

    Raises Failed or TimedOut with one line that names the peer.
    """
    link.runs += 1
    words = [
        "--host", link.iperf3.host, "--port", str(link.echo_port), "--token", str(link.token), "--run", str(link.runs),
        "--interval", str(round(interval * 1e9)), "--count", str(packets), "--size", str(VOICE_BYTES),
        *key_words(link.ctx),
    ]  # fmt: skip
    if load:
        words += ["--load", json.dumps(list(load)), "--settle", str(settle_seconds)]
    try:
        timeout = packets * interval + load_seconds + 30.0
        done = link.ctx.tools.python("probes.network.echo_child", *words, name=name, timeout=timeout)
    except TimedOut as late:
        raise TimedOut(Code.PEER_TIMED_OUT, f"the echo against {link.name} did not end in time") from late
    if done.returncode and not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Failed(Code.ECHO_FAILED, f"{link.name}: {last[:300]}")
    try:
        return parse(done.stdout)
    except LoadEnded as ended:
        document(ended.output, link.iperf3)  # raises with iperf3's own reason
        raise Failed(Code.LOAD_FAILED, f"the load against {link.name} ended at once") from ended


# --- figures


def figures(link: Link, quiet: Echo, quick: Echo | None, beside: Sequence[Loaded]) -> list[Measurement]:
    """Everything that the echoes say."""
    usual, idle, busy = usual_times(quiet), {**link.labels, "state": "idle"}, {**link.labels, "state": "loaded"}
    link.ctx.series.append(time_line(quiet, idle))
    found = idle_or_loaded([quiet], usual, idle)
    if quick is not None:
        found += quantiles("network_fine_round_trip_seconds", quick.times("round_trip"), link.labels, quick.doubt)
    if full := [one.echo for one in beside if one.load == TCP]:
        found += idle_or_loaded(full, usual, busy)
        link.ctx.series.append(time_line(max(full, key=lambda echo: echo.p99), busy))
    for one in beside:
        found += _beside_figures(one, quiet, link.labels)
    for direction in DIRECTIONS if beside else ():
        found += _headroom([one for one in beside if one.direction == direction], quiet, link.labels)
    return found


def _beside_figures(one: Loaded, quiet: Echo, labels: Mapping[str, str]) -> list[Measurement]:
    named = {**labels, "direction": one.direction, "load": one.load}
    found = quantiles("network_load_round_trip_seconds", one.echo.times("round_trip"), named, one.echo.doubt)
    both = [*found, *quantiles("network_round_trip_seconds", quiet.times("round_trip"), {})]
    p99s = [m for m in both if m.labels["statistic"] == "p99"]
    for now, before in pairwise(p99s):
        added, doubt = now.value - before.value, one.echo.doubt or quiet.doubt
        interval = (now.interval[0] - before.interval[1], now.interval[1] - before.interval[0])
        found.append(figure("network_added_delay_seconds", added, named, interval, now.samples, doubt))
    return [*found, of_repeats("network_load_bytes_per_second", [one.bytes_per_second], named)]


def is_safe(one: Loaded, quiet: Echo) -> bool:
    """Do the real-time limits still hold beside this load?"""
    lost = one.echo.lost_sending + one.echo.lost_receiving
    return one.echo.p99 - quiet.p99 <= SAFE_ADDED_SECONDS and lost <= SAFE_LOSS_RATIO * len(one.echo.packets)


def _headroom(beside: Sequence[Loaded], quiet: Echo, labels: Mapping[str, str]) -> list[Measurement]:
    """Voice-safe headroom of one direction: the largest load, as a share of the capacity, that is safe with all below.

    The truth lies between it and the next load that was tried and was not safe: that is its interval.
    """
    tried = sorted(beside, key=lambda one: one.share)
    shares = [0.0, *(one.share for one in tried), 1.0]
    safe = len(list(takewhile(lambda one: is_safe(one, quiet), tried)))
    if len(tried) == 1 and not safe:
        return []  # eight TCP streams are too much; whether half of that is was not tried
    doubts = dict.fromkeys(one.echo.doubt for one in tried if one.echo.doubt)
    named, interval = {**labels, "direction": beside[0].direction}, (shares[safe], shares[safe + 1])
    doubt = "; ".join(doubts) or None
    return [figure("network_voice_safe_load_ratio", shares[safe], named, interval, len(tried), doubt)]


def time_line(echo: Echo, labels: Mapping[str, str]) -> Series:
    """Round trips over the time; of many, the largest of each stretch is kept, so that no spike is lost to a plot."""
    trips = [p.round_trip if p is not None and p.stamped == echo.stamped else None for p in echo.packets]
    step = math.ceil(len(trips) / _MOST_POINTS)
    points = [
        (at * echo.interval, max(known))
        for at in range(0, len(trips), step)
        if (known := [trip for trip in trips[at : at + step] if trip is not None])
    ]
    return Series(
        metric="network_round_trip_seconds", labels=dict(labels),
        seconds=tuple(second for second, _ in points), values=tuple(value for _, value in points),
    )  # fmt: skip
