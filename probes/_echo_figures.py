"""The echo's figures as measurements: pure, base units, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.judge.statistics import binomial_interval, poisson_upper_bound, quantile, quantile_interval
from bench.model import Measurement
from probes.network.echo_parse import PLACES, Base, Echo, events, loss_bursts, missed_slots, variation

#: Seconds: a voice packet's length, the network's share of the 200 ms budget, and half of that budget.
THRESHOLDS = (0.02, 0.05, 0.1)
STATISTICS = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
Labels = Mapping[str, str]


def round_trips(echo: Echo, labels: Labels) -> list[Measurement]:
    """The network's round trip: from this node's egress queue to this kernel, less the peer's own time.

    Where the kernel gave no stamps it is the application's figure, with the label ``stamps``.
    """
    named = {**labels, **({} if echo.stamped else {"stamps": "application"})}
    return quantiles("network_round_trip_seconds", echo.times(lambda p: p.round_trip), named, echo.doubt)


def idle_or_loaded(echoes: Sequence[Echo], usual: Base, labels: Labels) -> list[Measurement]:
    """Everything that carries the label ``state``; of several echoes the one with the worst round trip leads."""
    worst = max(echoes, key=lambda echo: quantile(echo.times(lambda p: p.round_trip), 0.99))
    found = round_trips(worst, labels)
    found += quantiles("network_application_round_trip_seconds", worst.times(lambda p: p.application), labels)
    found += quantiles("network_delay_variation_seconds", variation(worst), labels, worst.doubt)
    for place in PLACES[1:] if worst.stamped else ():
        times = worst.times(lambda p, place=place: p.at(place))  # type: ignore[misc]
        found += quantiles("network_place_delay_seconds", times, {**labels, "place": place})
    return [*found, *_losses(echoes, labels), *_spikes(echoes, usual, labels)]


def _losses(echoes: Sequence[Echo], labels: Labels) -> list[Measurement]:
    sent = sum(len(echo.packets) for echo in echoes)
    losses = {"send": sum(e.lost_sending for e in echoes), "receive": sum(e.lost_receiving for e in echoes)}
    doubt = next((echo.doubt for echo in echoes if echo.doubt), None)
    found = [
        Measurement(
            metric="network_echo_loss_ratio", value=lost / sent, interval=binomial_interval(lost, sent), samples=sent,
            labels={**labels, "direction": direction}, invalid=doubt if lost else None,
        )
        for direction, lost in losses.items()
    ]  # fmt: skip
    counts = {
        "network_lost_burst_packets": max((burst for echo in echoes for burst in loss_bursts(echo)), default=0),
        "network_reordered_packets": sum(echo.reordered for echo in echoes),
        "network_duplicate_packets": sum(echo.duplicates for echo in echoes),
        "network_missed_send_slots": sum(missed_slots(echo) for echo in echoes),
    }
    return [*found, *(_count(name, value, sent, labels) for name, value in counts.items())]


def _spikes(echoes: Sequence[Echo], usual: Base, labels: Labels) -> list[Measurement]:
    """Events by place and height; and what rate of the network's own is still plausible (Poisson, one-sided 95 %)."""
    packets = sum(len(echo.packets) for echo in echoes)
    doubt = next((echo.doubt for echo in echoes if echo.doubt), None)
    found, least = [], 0
    for threshold in THRESHOLDS:
        seen = [event for echo in echoes for event in events(echo, usual, threshold)]
        for place in PLACES:
            number = sum(event.place == place for event in seen)
            named = {**labels, "place": place, "threshold_seconds": f"{threshold:g}"}
            found.append(_count("network_spike_events", number, packets, named, doubt if number else None))
            least = number if threshold == THRESHOLDS[0] and place == "network" else least
    seconds = sum(echo.seconds for echo in echoes)
    bound = poisson_upper_bound(least) / seconds
    found.append(
        Measurement(
            metric="network_spike_rate_upper_bound_per_second", value=bound, interval=(bound, bound),
            samples=packets, labels=dict(labels), invalid=doubt,
        )
    )  # fmt: skip
    return found


def quantiles(metric: str, values: Sequence[float], labels: Labels, invalid: str | None = None) -> list[Measurement]:
    """p50, p99, p99.9 and the largest, by nearest rank, with intervals by order statistics.

    They take the packets as independent, which those of one full queue are not: their true intervals are wider.
    """
    return [
        Measurement(
            metric=metric, value=quantile(values, q), samples=len(values), invalid=invalid,
            interval=quantile_interval(values, q) if q < 1.0 else (max(values), max(values)),
            labels={**labels, "statistic": statistic},
        )
        for statistic, q in STATISTICS
    ]  # fmt: skip


def _count(metric: str, number: int, samples: int, labels: Labels, invalid: str | None = None) -> Measurement:
    exact = (float(number), float(number))
    return Measurement(
        metric=metric, value=number, interval=exact, samples=samples, labels=dict(labels), invalid=invalid
    )
