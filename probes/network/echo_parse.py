"""What the paced echo's rows say: where each packet's time went, and whether that may be trusted. Pure.

A packet's time has four places. *host*: how late it was sent, its way into and out of this kernel. *egress*: the
queue of this node's own interface. *peer*: from its kernel's receipt to its kernel's reply. *network*: all the rest.
The round trip counts network and egress, because a full queue is a full link wherever it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.judge.statistics import median, quantile
from bench.measure.jsonl import objects, understood
from bench.measure.probe import Failed

PLACES = ("network", "egress", "host", "peer")
#: When 1 % of the packets left later than this, the gaps between them are the host's: one slot of a voice stream.
LATE_SECONDS = 0.020
#: Or later than a quarter of that while work waited for a CPU nearly all the time (PSI "some"). Pressure alone spoils
#: nothing: at 0.9 the kernel's stamps still have a p99 under 50 us.
LATE_UNDER_PRESSURE_SECONDS, STARVED_PRESSURE = 0.005, 0.9
_WHO = "the echo"
UNSTAMPED_SHARE = 0.01
_CLOCK_STEP_SECONDS, _CLOCK_SLEW = 0.001, 0.001
_NANO = 1e-9


@dataclass(frozen=True, slots=True)
class Packet:
    """Seconds; ``application`` from the slot it was due to the application's receipt. ``stamped``: kernel's stamps."""

    round_trip: float
    network: float
    egress: float
    host: float
    peer: float
    application: float
    stamped: bool

    def at(self, place: str) -> float:
        return float(getattr(self, place))


@dataclass(frozen=True, slots=True)
class Echo:
    """One measurement: its packets in the order of sending, None for a lost one; ``interval`` in seconds."""

    packets: tuple[Packet | None, ...]
    late: tuple[float, ...]
    interval: float
    lost_sending: int
    lost_receiving: int
    reordered: int
    duplicates: int
    stamped: bool
    pressure: float | None
    doubt: str | None
    load: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        return len(self.packets) * self.interval

    @property
    def received(self) -> list[Packet]:
        """Those that came back and whose times are to be had: all of them, or those with the kernel's stamps."""
        return [p for p in self.packets if p is not None and p.stamped == self.stamped]

    def times(self, of: Callable[[Packet], float]) -> list[float]:
        return [of(packet) for packet in self.received]


def parse(text: str) -> Echo:
    """The echo program's output. Raises Failed when it is damaged or when nothing came back."""
    head, rows, load = _read(text)
    with understood(_WHO):
        return _echo(head, rows, load)


def _echo(head: dict[str, Any], rows: list[list[Any]], load: dict[str, Any] | None) -> Echo:
    late = tuple(row[0] * _NANO for row in rows)
    packets = [_packet(row) for row in rows]
    back = [p for p in packets if p is not None]
    if not back:
        raise Failed("peer_silent: none of the echo's packets came back", "open the peer's UDP port in the firewall")
    unstamped = sum(not p.stamped for p in back) / len(back)
    stamped = unstamped < 0.5
    missing = len(packets) - len(back)
    arrived = min(int(head["peer_seen"]), len(packets))
    sending = min(len(packets) - arrived, missing)
    return Echo(
        packets=tuple(packets),
        late=late,
        interval=head["interval"] * _NANO,
        lost_sending=sending,
        lost_receiving=missing - sending,
        reordered=int(head["reordered"]),
        duplicates=int(head["duplicates"]),
        stamped=stamped,
        pressure=head.get("pressure_ratio"),
        doubt=_doubt(head, late, unstamped if stamped else 0.0),
        load=load,
    )


def _read(text: str) -> tuple[dict[str, Any], list[list[Any]], dict[str, Any] | None]:
    said = objects(text, _WHO, "kind")
    head: dict[str, Any] = next((one for one in said if one["kind"] == "echo"), {})
    load = next((one for one in said if one["kind"] == "load"), None)
    with understood(_WHO):
        rows: list[list[Any]] = [row for one in said if one["kind"] == "packets" for row in one["rows"]]
    if head and len(rows) == head.get("count") and rows:
        return head, rows, load
    if load is not None:
        return {}, [], load
    raise Failed(f"tool_output: the echo ended early, after {len(rows)} of {head.get('count', 'its')} packets")


def load_alone(text: str) -> str | None:
    """The load's own output when it could not be started, so that no echo was made; None when there is an echo."""
    head, _, load = _read(text)
    return str(load["output"]) if load is not None and not head else None


def _packet(row: Sequence[Any]) -> Packet | None:
    if len(row) < 7:
        return None
    late, application, send, egress, trip, peer, receive = row
    whole = (late + application) * _NANO
    if send is None or trip is None or receive is None or peer is None or trip < peer or peer < 0:
        return Packet(application * _NANO, application * _NANO, 0.0, late * _NANO, 0.0, whole, False)
    round_trip = trip - peer
    queued = min(max(egress or 0, 0), round_trip)
    host = late + max(send, 0) + max(receive, 0)
    return Packet(
        round_trip * _NANO, (round_trip - queued) * _NANO, queued * _NANO, host * _NANO, peer * _NANO, whole, True
    )


def _doubt(head: dict[str, Any], late: Sequence[float], unstamped: float) -> str | None:
    """Why the figures must not decide anything, or None."""
    pressure = head.get("pressure_ratio")
    step = abs(head.get("clock_step") or 0) * _NANO
    if step > _CLOCK_STEP_SECONDS + _CLOCK_SLEW * float(head.get("seconds") or 0.0):
        return f"clock_set: this node's clock was set by {step:.3f} s in the middle of the measurement"
    latest = quantile(late, 0.99)
    if latest > LATE_SECONDS:
        return f"host_contended: 1 % of the packets were sent {latest:.3f} s late or later"
    if pressure is not None and pressure > STARVED_PRESSURE and latest > LATE_UNDER_PRESSURE_SECONDS:
        return f"host_contended: work waited for a CPU of this node in {pressure:.0%} of the time"
    if unstamped > UNSTAMPED_SHARE:
        return f"stamps_missing: {unstamped:.1%} of the packets have no kernel time stamps"
    return None


@dataclass(frozen=True, slots=True)
class Base:
    """What is usual, in seconds: each place's median when the link is idle. Spikes are excesses over it."""

    network: float = 0.0
    egress: float = 0.0
    host: float = 0.0
    peer: float = 0.0

    def at(self, place: str) -> float:
        return float(getattr(self, place))


def base(echo: Echo) -> Base:
    """The medians: RFC 5481 measures from the least delay, but then usual jitter would count as a spike."""
    return Base(*(median(echo.times(lambda p, place=place: p.at(place))) for place in PLACES))  # type: ignore[misc]


def variation(echo: Echo) -> list[float]:
    """Packet delay variation, RFC 5481 section 4.2: each round trip less the smallest."""
    trips = echo.times(lambda packet: packet.round_trip)
    least = min(trips)
    return [trip - least for trip in trips]


def loss_bursts(echo: Echo) -> list[int]:
    """Lengths of the runs of lost packets."""
    bursts, run = [], 0
    for packet in (*echo.packets, _ANY):
        if packet is None:
            run += 1
        elif run:
            bursts.append(run)
            run = 0
    return bursts


def missed_slots(echo: Echo) -> int:
    """Packets that were sent later than the next one was due."""
    return sum(late > echo.interval for late in echo.late)


_ANY = Packet(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, True)


@dataclass(frozen=True, slots=True)
class Event:
    """A run of late packets at one place: the first and last packet's number, and the largest excess in seconds."""

    place: str
    first: int
    last: int
    excess: float


#: On-time packets for less than this do not end an event: one stall whose end flickers around the threshold is one.
GAP_SECONDS = 0.060


def events(echo: Echo, usual: Base, threshold: float) -> list[Event]:
    """Spikes above ``threshold`` seconds, each laid at one place.

    A packet is late at every place whose own excess is above the threshold, so that a stall of this host cannot hide
    one of the network at the same moment. When only the sum is, it is late at the place with the largest part.
    A lost packet neither makes nor ends an event.
    """
    gap = max(1, math.ceil(GAP_SECONDS / echo.interval - 1e-9))
    late: dict[str, list[tuple[int, float]]] = {place: [] for place in PLACES}
    for number, packet in enumerate(echo.packets):
        if packet is None or (echo.stamped and not packet.stamped):
            continue
        for place, excess in _late_places(packet, usual, threshold):
            late[place].append((number, excess))
    return [event for place in PLACES for event in _runs(echo, place, late[place], gap)]


def _late_places(packet: Packet, usual: Base, threshold: float) -> list[tuple[str, float]]:
    excesses = [(place, packet.at(place) - usual.at(place)) for place in PLACES]
    alone = [(place, excess) for place, excess in excesses if excess > threshold]
    if alone or sum(excess for _, excess in excesses) <= threshold:
        return alone
    return [max(excesses, key=lambda pair: pair[1])]


def _runs(echo: Echo, place: str, late: Sequence[tuple[int, float]], gap: int) -> list[Event]:
    found: list[Event] = []
    for number, excess in late:
        previous = found[-1] if found else None
        if previous is not None and _on_time_between(echo, previous.last, number) <= gap:
            found[-1] = Event(place, previous.first, number, max(previous.excess, excess))
        else:
            found.append(Event(place, number, number, excess))
    return found


def _on_time_between(echo: Echo, first: int, second: int) -> int:
    return sum(packet is not None for packet in echo.packets[first + 1 : second])
