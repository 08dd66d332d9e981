"""The one table of planned seconds: what each probe plans fits its share, and the shares fit the effort's time."""

from __future__ import annotations

import pytest

from bench.measure import budget
from bench.measure.budget import BESIDE, SOAK, WHOLE, WHOLE_WITH_PEER, whole_seconds
from bench.measure.runner import _GRACE_FACTOR, _GRACE_SECONDS
from bench.model import Effort, Request
from probes import discover, rdma
from probes.network.plan import LOOPBACK_PLANS, PEER_PLANS

MEASURING = [probe for probe in discover() if probe.measure and not probe.needs]
WITH_A_SERVER = [probe for probe in discover() if probe.measure and not probe.on_cards]
#: Starting, one look, half a second of calming down before each probe, judging: what a quiet node takes beside that.
AROUND = {Effort.QUICK: 5.0, Effort.STANDARD: 8.0, Effort.THOROUGH: 30.0}
#: Torch, CUDA, an 8b model and the compiler, before the load measures: 31 s at standard on an H200, of 75.2 with 40 of
#: measuring and 4 of soaking (results/reference/h200-2026-11-26-second); a quick load's time begins with its process.
STARTS = {Effort.QUICK: 0.0, Effort.STANDARD: 31.0, Effort.THOROUGH: 31.0}


def request(effort: Effort, paths: int = 1, peers: int = 0) -> Request:
    named = tuple(probe.name for probe in MEASURING)
    storage, hosts = tuple(f"/data{n}" for n in range(paths)), tuple(f"10.0.0.{n}" for n in range(peers))
    return Request(effort=effort, probes=named, storage=storage, peers=hosts)


def planned(asked: Request, without: tuple[str, ...] = (), cards: int = 0) -> float:
    return sum(probe.time(asked, cards) for probe in MEASURING if probe.name not in without)


@pytest.mark.parametrize("effort", list(Effort))
@pytest.mark.parametrize(
    ("what", "peers", "without", "cards"),
    [
        ("a node without a GPU", 0, ("rdma", "collective"), 0),
        ("a node without a GPU, and a peer", 1, ("rdma",), 0),
        ("one GPU", 0, ("rdma", "collective"), 1),
        ("one GPU, and a peer", 1, ("rdma",), 1),
        ("eight GPUs", 0, ("rdma",), 8),
        ("eight GPUs, and a peer", 1, ("rdma",), 8),
        ("one GPU, and a peer by RDMA", 1, (), 1),
        ("eight GPUs, and a peer by RDMA", 1, (), 8),
    ],
)
def test_the_planned_seconds_fit_the_efforts_time(
    effort: Effort, what: str, peers: int, without: tuple[str, ...], cards: int
) -> None:
    """At standard 437 s were planned with a peer, against 285 s; at quick 150 against 80, so nothing was repeated."""
    whole = (WHOLE_WITH_PEER if peers else WHOLE)[effort]
    total = planned(request(effort, peers=peers), without, cards)
    total += STARTS[effort] if cards else 0.0
    total += SOAK[effort] if cards == 1 else 0.0  # several are soaked together, which is in their own time
    whole += BESIDE[effort] if cards > 1 and effort is Effort.QUICK else 0.0
    assert total + AROUND[effort] <= whole, what


@pytest.mark.parametrize("peers", [0, 1])
@pytest.mark.parametrize("effort", list(Effort))
def test_a_server_s_load_fits_in_the_place_of_our_own(effort: Effort, peers: int) -> None:
    asked = request(effort, peers=peers)
    total = sum(probe.time(asked) for probe in WITH_A_SERVER if probe.name != "rdma")
    whole = (WHOLE_WITH_PEER if peers else WHOLE)[effort]
    assert total + AROUND[effort] <= whole + (20.0 if effort is Effort.QUICK else 0.0)


@pytest.mark.parametrize("effort", list(Effort))
def test_each_further_directory_and_peer_has_its_own_time(effort: Effort) -> None:
    one, more = request(effort, peers=1), request(effort, paths=2, peers=3)
    assert planned(more) > planned(one)
    assert whole_seconds(more, planned(more), planned(one)) - whole_seconds(one, planned(one), planned(one)) == (
        pytest.approx(planned(more) - planned(one))
    )


def test_standard_leaves_time_for_another_round_where_there_is_no_peer() -> None:
    asked = request(Effort.STANDARD)
    left = WHOLE[Effort.STANDARD] - planned(asked, ("rdma", "collective")) - AROUND[Effort.STANDARD]
    assert left >= max(probe.time(asked) for probe in MEASURING)


@pytest.mark.parametrize("effort", list(Effort))
def test_the_network_s_plans_fit_their_shares(effort: Effort) -> None:
    assert PEER_PLANS[effort].seconds <= budget.NETWORK[effort]
    assert LOOPBACK_PLANS[effort].seconds <= budget.LOOPBACK[effort]


@pytest.mark.parametrize("effort", list(Effort))
def test_rdma_fits_its_share(effort: Effort) -> None:
    """A round is a test of bandwidth, one of latency, and the start of both servers: about 1.5 s beside the test."""
    assert rdma.ROUNDS[effort] * (rdma.SECONDS[effort] + 1.5) <= budget.RDMA[effort]


def test_the_ranks_of_eight_cards_have_time_to_start() -> None:
    """At quick all of it had 38 s on eight cards: `import torch` alone took 4.7 s on a node with an H200."""
    for effort in Effort:
        planned = budget.RANKS[effort]
        assert _GRACE_FACTOR * planned + _GRACE_SECONDS - planned >= 8 * 4.7
