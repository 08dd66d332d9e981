"""What the paced echo's rows say: where each packet's time went, and whether that may be trusted. Pure.

A packet's time has four places. *host*: how late it was sent, its way into and out of this kernel. *egress*: the
queue of this node's own interface. *peer*: from its kernel's receipt to its kernel's reply. *network*: all the rest.
The round trip counts network and egress, because a full queue is a full link wherever it stands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, NamedTuple

from pydantic import Field

from bench.judge.statistics import median, poisson_upper_bound, quantile
from bench.measure.jsonl import records
from bench.measure.probe import Failed
from bench.model import Code, Measurement
from probes.common.metrics import Labels, distribution, figure, needed, of_counts, of_distributions

PLACES = ("network", "egress", "host", "peer")  # the network's own first
#: When 1 % of the packets left later than this, the gaps between them are the host's: one slot of a voice stream.
LATE_SECONDS = 0.020
#: Or later than a quarter of that while work waited for a CPU nearly all the time (PSI "some"). Pressure alone spoils
#: nothing: at 0.9 the kernel's stamps still have a p99 under 50 us.
LATE_UNDER_PRESSURE_SECONDS, STARVED_PRESSURE = 0.005, 0.9
UNSTAMPED_SHARE = 0.01
_CLOCK_STEP_SECONDS, _CLOCK_SLEW = 0.001, 0.001
_NANO = 1e-9
#: What is usual, in seconds: each place's median when the link is idle. Spikes are excesses over it.
UsualTimes = Mapping[str, float]


# --- the program's records

_Row = tuple[int, int, int | None, int | None, int | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class EchoSummary:
    """The whole measurement: how many packets were sent, and what happened to this host meanwhile. Nanoseconds."""

    count: Annotated[int, Field(ge=1)]
    interval: Annotated[int, Field(ge=1)]
    peer_seen: Annotated[int, Field(ge=0)]
    reordered: int
    duplicates: int
    pressure_ratio: float | None = None
    clock_step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EchoRows:
    """Packets in the order of sending, by the columns of `probes.network.echo_child`; a lost one has its lateness."""

    rows: list[tuple[int] | _Row]


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """The load that ran beside it, or that could not be started: what it printed."""

    output: str


_KINDS: Mapping[str, type[object]] = {"echo": EchoSummary, "packets": EchoRows, "load": LoadRecord}


class LoadEnded(Failed):
    """The load could not be started, so that no echo was made. ``output`` is what it said."""

    def __init__(self, output: str) -> None:
        super().__init__(Code.LOAD_FAILED, "the load ended at once")
        self.output = output


# --- packets


class EchoPacket(NamedTuple):
    """Seconds; ``application`` from the slot it was due to the application's receipt. ``stamped``: kernel's stamps."""

    round_trip: float
    network: float
    egress: float
    host: float
    peer: float
    application: float
    stamped: bool


@dataclass(frozen=True, slots=True)
class Echo:
    """One measurement: its packets in the order of sending, None for a lost one; ``interval`` in seconds."""

    packets: tuple[EchoPacket | None, ...]
    late: tuple[float, ...]
    interval: float
    lost_sending: int
    lost_receiving: int
    reordered: int
    duplicates: int
    stamped: bool
    doubt: str | None
    load: str = ""

    @property
    def p99(self) -> float:
        """Of the round trips."""
        return quantile(self.times("round_trip"), 0.99)

    def times(self, of: str) -> list[float]:
        """That field of each `EchoPacket` that came back, or of those with the kernel's stamps where it gives any."""
        return [getattr(packet, of) for packet in self.packets if packet and packet.stamped == self.stamped]


def parse(text: str) -> Echo:
    """The echo program's output. Raises Failed when it is damaged or nothing came back, LoadEnded for a load alone."""
    said = records(text, "the echo", _KINDS)
    head = next((one for one in said if isinstance(one, EchoSummary)), None)
    load = next((one.output for one in said if isinstance(one, LoadRecord)), None)
    rows = [row for one in said if isinstance(one, EchoRows) for row in one.rows]
    if head is not None and len(rows) == head.count:
        return _echo(head, rows, load or "")
    if load is not None:
        raise LoadEnded(load)
    wanted = head.count if head is not None else "its"
    raise Failed(Code.TOOL_OUTPUT, f"the echo ended early, after {len(rows)} of {wanted} packets")


def _echo(head: EchoSummary, rows: Sequence[tuple[int] | _Row], load: str) -> Echo:
    late = tuple(row[0] * _NANO for row in rows)
    packets = tuple(_packet(row) if len(row) > 1 else None for row in rows)
    back = [p for p in packets if p is not None]
    if not back:
        text = "none of the echo's packets came back"
        raise Failed(Code.PEER_SILENT, text, "open the peer's UDP port in the firewall")
    unstamped = sum(not p.stamped for p in back) / len(back)
    stamped = unstamped < 0.5
    missing = len(packets) - len(back)
    sending = min(len(packets) - min(head.peer_seen, len(packets)), missing)
    return Echo(
        packets=packets,
        late=late,
        interval=head.interval * _NANO,
        lost_sending=sending,
        lost_receiving=missing - sending,
        reordered=head.reordered,
        duplicates=head.duplicates,
        stamped=stamped,
        doubt=_doubt(head, late, unstamped if stamped else 0.0),
        load=load,
    )


def _packet(row: _Row) -> EchoPacket:
    late, application, send, egress, trip, peer, receive = row
    whole = (late + application) * _NANO
    if send is None or trip is None or receive is None or peer is None or trip < peer or peer < 0:
        return EchoPacket(application * _NANO, application * _NANO, 0.0, late * _NANO, 0.0, whole, False)
    round_trip, host = trip - peer, late + max(send, 0) + max(receive, 0)
    queued = min(max(egress or 0, 0), round_trip)
    parts = (round_trip, round_trip - queued, queued, host, peer)
    return EchoPacket._make((*(nanoseconds * _NANO for nanoseconds in parts), whole, True))


def _doubt(head: EchoSummary, late: Sequence[float], unstamped: float) -> str | None:
    """Why the figures must not decide anything, or None."""
    pressure, step = head.pressure_ratio, abs(head.clock_step) * _NANO
    if step > _CLOCK_STEP_SECONDS + _CLOCK_SLEW * head.seconds:
        return f"{Code.CLOCK_SET}: this node's clock was set by {step:.3f} s in the middle of the measurement"
    latest = quantile(late, 0.99)
    if latest > LATE_SECONDS:
        return f"{Code.HOST_CONTENDED}: 1 % of the packets were sent {latest:.3f} s late or later"
    if pressure is not None and pressure > STARVED_PRESSURE and latest > LATE_UNDER_PRESSURE_SECONDS:
        return f"{Code.HOST_CONTENDED}: work waited for a CPU of this node in {pressure:.0%} of the time"
    if unstamped > UNSTAMPED_SHARE:
        return f"{Code.STAMPS_MISSING}: {unstamped:.1%} of the packets have no kernel time stamps"
    return None


def usual_times(echo: Echo) -> UsualTimes:
    """The medians: RFC 5481 measures from the least delay, but then usual jitter would count as a spike."""
    return {place: median(echo.times(place)) for place in PLACES}


class Spike(NamedTuple):
    """A run of late packets at one place: the first and last packet's number, and the largest excess in seconds."""

    place: str
    first: int
    last: int
    excess: float


#: On-time packets for less than this do not end an event: one stall whose end flickers around the threshold is one.
GAP_SECONDS = 0.060


def events(echo: Echo, usual: UsualTimes, threshold: float) -> list[Spike]:
    """Spikes above ``threshold`` seconds, each laid at one place.

    A packet is late at every place whose own excess is above the threshold, so that a stall of this host cannot hide
    one of the network at the same moment. When only the sum is, it is late at the place with the largest part.
    A lost packet neither makes nor ends an event.
    """
    gap = max(1, math.ceil(GAP_SECONDS / echo.interval - 1e-9))
    found: dict[str, list[Spike]] = {place: [] for place in PLACES}
    for number, packet in enumerate(echo.packets):
        if packet is None or (echo.stamped and not packet.stamped):
            continue
        for place, excess in _late_places(packet, usual, threshold):
            last = found[place][-1] if found[place] else None
            if last is not None and sum(p is not None for p in echo.packets[last.last + 1 : number]) <= gap:
                found[place][-1] = Spike(place, last.first, number, max(last.excess, excess))
            else:
                found[place].append(Spike(place, number, number, excess))
    return [event for place in PLACES for event in found[place]]


def _late_places(packet: EchoPacket, usual: UsualTimes, threshold: float) -> list[tuple[str, float]]:
    excesses = [(place, getattr(packet, place) - usual.get(place, 0.0)) for place in PLACES]
    alone = [(place, excess) for place, excess in excesses if excess > threshold]
    if alone or sum(excess for _, excess in excesses) <= threshold:
        return alone
    return [max(excesses, key=lambda pair: pair[1])]


#: Seconds: a voice packet's length, the network's share of the 200 ms budget, and half of that budget.
THRESHOLDS = (0.02, 0.05, 0.1)
STATISTICS = ("p50", "p99", "p99.9", "max")


def idle_or_loaded(echoes: Sequence[Echo], usual: UsualTimes, labels: Labels) -> list[Measurement]:
    """Everything that carries the label ``state``; of several echoes the one with the worst round trip leads.

    The network's round trip is from this node's egress queue to this kernel, less the peer's own time. Where the kernel
    gave no stamps it is the application's figure, with the label ``stamps``.
    """
    worst = max(echoes, key=lambda echo: echo.p99)
    named = labels if worst.stamped else {**labels, "stamps": "application"}
    found = quantiles("network_round_trip_seconds", worst.times("round_trip"), named, worst.doubt)
    found += quantiles("network_application_round_trip_seconds", worst.times("application"), labels)
    least = min(worst.times("round_trip"))  # RFC 5481, section 4.2
    variation = [trip - least for trip in worst.times("round_trip")]
    found += quantiles("network_delay_variation_seconds", variation, labels, worst.doubt)
    for place in PLACES[1:] if worst.stamped else ():
        found += quantiles("network_place_delay_seconds", worst.times(place), {**labels, "place": place})
    return [*found, *_losses(echoes, labels), *_spikes(echoes, usual, labels)]


def _losses(echoes: Sequence[Echo], labels: Labels) -> Iterator[Measurement]:
    sent = sum(len(echo.packets) for echo in echoes)
    losses = {"send": sum(e.lost_sending for e in echoes), "receive": sum(e.lost_receiving for e in echoes)}
    doubt = next((echo.doubt for echo in echoes if echo.doubt), None)
    for direction, lost in losses.items():
        named, why = {**labels, "direction": direction}, doubt if lost else None
        yield of_counts("network_echo_loss_ratio", lost, sent, named, why)
    runs = [(lost, len(list(run))) for echo in echoes for lost, run in groupby(p is None for p in echo.packets)]
    counts = {
        "network_lost_burst_packets": max((length for lost, length in runs if lost), default=0),
        "network_reordered_packets": sum(echo.reordered for echo in echoes),
        "network_duplicate_packets": sum(echo.duplicates for echo in echoes),
        "network_missed_send_slots": sum(late > echo.interval for echo in echoes for late in echo.late),
    }
    yield from (figure(name, value, labels, n=sent) for name, value in counts.items())


def _spikes(echoes: Sequence[Echo], usual: UsualTimes, labels: Labels) -> list[Measurement]:
    """Events by place and height; and what rate of the network's own is still plausible (Poisson, one-sided 95 %)."""
    packets = sum(len(echo.packets) for echo in echoes)
    doubt = next((echo.doubt for echo in echoes if echo.doubt), None)
    found = []
    for threshold in THRESHOLDS:
        seen = Counter(event.place for echo in echoes for event in events(echo, usual, threshold))
        for place in PLACES:
            named = {**labels, "place": place, "threshold_seconds": f"{threshold:g}"}
            why = doubt if seen[place] else None
            found.append(figure("network_spike_events", seen[place], named, n=packets, invalid=why))
    bound = poisson_upper_bound(int(found[0].value)) / sum(len(echo.packets) * echo.interval for echo in echoes)
    return [*found, figure("network_spike_rate_upper_bound_per_second", bound, labels, n=packets, invalid=doubt)]


def quantiles(metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None) -> list[Measurement]:
    """p50, p99, p99.9 and the largest, by nearest rank, with intervals by order statistics.

    Each only where there are values enough for its interval: of 300 packets the largest stands in for the upper end of
    p99.9's, which then holds it in one of four cases. The packets are taken as independent, which those of one full
    queue are not: their true intervals are wider.
    """
    rounds, stated = (distribution(values),), [name for name in STATISTICS if len(values) >= needed(name)]
    return [of_distributions(metric, rounds, name, labels, invalid) for name in stated]
