"""The relay's log beside what the echo measured through it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.probes.network.testbed import Net, Relay

PEER = "10.97.0.2"


@dataclass(frozen=True)
class Compared:
    """``held``: what the relay really held each packet, both ways together; None for one that it lost."""

    held: list[float | None]
    trips: list[float | None]
    spikes: int
    lost: tuple[int, int]
    answer: Mapping[str, Any]

    def quantile(self, values: Sequence[float | None], share: float) -> float:
        known = sorted(value for value in values if value is not None)
        return known[min(len(known) - 1, int(len(known) * share))]

    def residuals(self) -> list[float]:
        """Measured less true, seconds, packet by packet."""
        both = zip(self.trips, self.held, strict=True)
        return sorted(trip - held for trip, held in both if trip is not None and held is not None)

    def events(self, above: float = 0.02) -> Counter[str]:
        """Events of the lowest threshold whose excess is above ``above`` seconds, by place."""
        return Counter(place for place, _, _, excess in self.answer["events"] if excess > above)


def start_echo(net: Net, packets: int, interval: float, peer: str = PEER) -> Any:
    """The echo on host ``a``, running; its output is one JSON object."""
    folder = net.folder / f"raw-{len(net.started)}"
    return net.start(
        net.python("a", "tests.probes.network.driver", "echo", peer, str(folder), str(packets), str(interval))
    )


def echo(net: Net, packets: int, interval: float, peer: str = PEER) -> dict[str, Any]:
    out, err = start_echo(net, packets, interval, peer).communicate(timeout=60 + 2 * packets * interval)
    assert out.strip(), err
    return dict(json.loads(out))


def compare(answer: Mapping[str, Any], relay: Relay) -> Compared:
    rows = relay.end()
    held: dict[int, list[float]] = {}
    for row in rows:
        held.setdefault(row["sequence"], []).append(row["held"])
    true = [
        sum(ways) if len(ways := held.get(number, [])) == 2 and min(ways) >= 0 else None
        for number in range(len(answer["trips"]))
    ]
    lost = [sum(r["why"] == "lost" and r["direction"] == way for r in rows) for way in (0, 1)]
    spikes = sum(row["why"] == "spike" for row in rows)
    return Compared(true, answer["trips"], spikes, (lost[0], lost[1]), answer)
