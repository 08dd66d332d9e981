"""The matrix of pairs: which port is slow, and which path between two sound ones.

A pair runs at the slower of its two ports: at what the one can send or the other receive. So a port's figure is the
median of its pairs, in each direction, compared with its siblings'; and a slow pair whose other end is slow says
nothing of this end, which matters where a host has met few others. Pure: outcomes of pairs in, outliers out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

from bench.judge.fleet.model import Outlier, PairOutcome
from bench.judge.fleet.outliers import ACT_RATIO, FEWEST_SIBLINGS, Z_LIMIT, Key, Sample, deviating, scale, z_of
from bench.judge.statistics import median

_PORT = Key("", "network_throughput_bytes_per_second", ())
#: Of all the paths of a sound fleet at most one in a hundred fleets has one named by chance (Bonferroni).
_CHANCE = 0.01

Port = tuple[str, str]  # a host and a way


class PortFlow(NamedTuple):
    """Bytes per second from one host to another; ``pair`` and ``name`` say where it was read."""

    sender: str
    receiver: str
    rate: float
    pair: PairOutcome
    name: str


def ports(pairs: Sequence[PairOutcome]) -> list[Outlier]:
    """Slow ports by what a host sends and what it receives, and slow paths between hosts with sound ports.

    A port is confirmed when pairs with two or more sound hosts say so.
    """
    flows = list(_flows(pairs))
    found = list(_slow_ports(flows, frozenset()))
    while True:
        names = frozenset((o.host, o.labels["direction"]) for o in found)
        kept = [o for o in _slow_ports(flows, names) if (o.host, o.labels["direction"]) in names]
        if len(kept) == len(names):
            return [*kept, *_slow_paths(flows, {host for host, _ in names})]
        found = kept


def _flows(pairs: Iterable[PairOutcome]) -> Iterable[PortFlow]:
    for pair in pairs:
        if pair.send_bytes_per_second is not None:
            yield PortFlow(pair.client, pair.server, pair.send_bytes_per_second, pair, "send")
        if pair.receive_bytes_per_second is not None:
            yield PortFlow(pair.server, pair.client, pair.receive_bytes_per_second, pair, "receive")


def _slow_ports(flows: Sequence[PortFlow], known: frozenset[Port]) -> Iterator[Outlier]:
    """Ports that are slower than their siblings by their flows to ports that are not ``known`` to be slow."""
    for way, far in (("send", "receive"), ("receive", "send")):
        everything: dict[str, list[float]] = defaultdict(list)
        witnessed: dict[str, list[float]] = defaultdict(list)
        for flow in flows:
            host, other = (flow.sender, flow.receiver) if way == "send" else (flow.receiver, flow.sender)
            everything[host].append(flow.rate)
            if (other, far) not in known:
                witnessed[host].append(flow.rate)
        middles = {host: median(witnessed[host] or rates) for host, rates in everything.items()}
        samples = [Sample(host, middle, middle, middle) for host, middle in middles.items()]
        for outlier in deviating(_PORT, samples, "higher"):
            sure = len(witnessed[outlier.host]) > 1
            yield outlier.model_copy(update={"labels": {"direction": way}, "confirmed": sure})


def _slow_paths(flows: Sequence[PortFlow], known: set[str]) -> Iterator[Outlier]:
    """Flows that are 7 % below the slower of their two ports although neither host's port is slow.

    What is expected is the slower port's other flows. The scale is that of both ports and of all such flows together,
    because three rates of a port may agree by chance.
    """
    sound = [flow for flow in flows if not {flow.sender, flow.receiver} & known]
    sends, receives = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for flow in sound:
        sends[flow.sender].append(flow.rate)
        receives[flow.receiver].append(flow.rate)
    told = [f for f in sound if min(len(sends[f.sender]), len(receives[f.receiver])) >= FEWEST_SIBLINGS]
    expected = [min(_others(sends[flow.sender], flow), _others(receives[flow.receiver], flow)) for flow in told]
    shares = [flow.rate / usual for flow, usual in zip(told, expected, strict=True) if usual > 0]
    if not shares:
        return
    usual_scatter, limit = scale(shares), max(Z_LIMIT, NormalDist().inv_cdf(1 - _CHANCE / len(shares)))
    for flow, usual in zip(told, expected, strict=True):
        sigma = max(scale(sends[flow.sender]), scale(receives[flow.receiver]), usual_scatter * usual)
        z = z_of(usual - flow.rate, sigma)
        if usual > 0 and (usual - flow.rate) / usual >= ACT_RATIO and z > limit:
            yield Outlier(
                host=flow.pair.client,
                part=f"path to {flow.pair.server}",
                metric=_PORT.metric,
                labels={"direction": flow.name},
                observed=flow.rate,
                expected=usual,
                deviation_ratio=(usual - flow.rate) / usual,
                modified_z=z,
                siblings=len(sends[flow.sender]),
                level="act",
            )


def _others(rates: Sequence[float], flow: PortFlow) -> float:
    """The median without that flow: with it, a third of few flows would be their own expectation."""
    rest = list(rates)
    rest.remove(flow.rate)
    return median(rest)
