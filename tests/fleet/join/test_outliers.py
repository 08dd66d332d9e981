"""The slow one is named, with its part; none other is, however the sound ones scatter."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from bench.judge.fleet.model import Outlier, PairOutcome, State
from bench.judge.fleet.outliers import Key, Sample, figures, level_of, outliers, part_of, scale
from bench.judge.fleet.ports import ports
from bench.judge.statistics import median
from bench.model import Measurement, Metric
from tests.fleet.make import figure

READ = "storage_read_bytes_per_second"
LATENCY = "storage_read_latency_seconds"
STARVED = "starvation_ratio"
METRICS = {
    STARVED: Metric(name=STARVED, help="h", better="lower"),
    READ: Metric(name=READ, help="h", better="higher"),
    LATENCY: Metric(name=LATENCY, help="h", better="lower"),
}


def accused(values: list[float], metric: str = READ, spread: float = 0.005) -> list[Outlier]:
    samples = [Sample(f"n{i}", v, v * (1 - spread), v * (1 + spread)) for i, v in enumerate(values)]
    return outliers({Key("c", metric, ()): samples}, METRICS)


@pytest.mark.parametrize("n", [4, 8, 64])
@pytest.mark.parametrize("drop", [0.1, 0.2, 0.5, 0.8])
def test_one_slow_node_is_named_and_none_other_in_fifty_seeded_fleets(n: int, drop: float) -> None:
    for seed in range(50):
        rng = random.Random(seed)
        values = [rng.gauss(1e9, 5e6) for _ in range(n)]
        slow = rng.randrange(n)
        values[slow] *= 1 - drop
        found = [o for o in accused(values) if o.level == "act"]
        assert [o.host for o in found] == [f"n{slow}"], (seed, found)
        assert found[0].deviation_ratio == pytest.approx(drop, abs=0.03)


@pytest.mark.parametrize("n", [3, 4, 8, 64])
def test_sound_fleets_are_hardly_ever_accused(n: int) -> None:
    """At 1.5 % of scatter 7 % is 4.7 standard deviations: of 500 sound fleets at most two have anybody accused."""
    loud = 0
    for seed in range(500):
        rng = random.Random(seed)
        loud += any(o.level == "act" for o in accused([rng.gauss(1e9, 1.5e7) for _ in range(n)], spread=0.015))
    assert loud <= 2


def test_the_better_side_and_the_direction() -> None:
    assert not accused([1e9, 1e9, 1.01e9, 3e9])
    found = accused([1e-3, 1e-3, 1.01e-3, 3e-3], LATENCY)
    assert [o.host for o in found] == ["n3"]
    assert not accused([1e-3, 1e-3, 1.01e-3, 1e-4], LATENCY)


def test_warns_from_3_5_per_cent_and_acts_from_7() -> None:
    exact = [1e9, 1e9, 1e9, 1e9]
    assert [o.level for o in accused([*exact, 0.95e9])] == ["warn"]
    assert [o.level for o in accused([*exact, 0.90e9])] == ["act"]
    assert not accused([*exact, 0.97e9])


def test_an_interval_that_reaches_back_accuses_nobody() -> None:
    wide = Sample("n3", 0.85e9, 0.6e9, 1.1e9)
    assert level_of(wide, 1e9, 0.15, 9.0, "higher") is None
    sure = Sample("n3", 0.85e9, 0.8e9, 0.9e9)
    assert level_of(sure, 1e9, 0.15, 9.0, "higher") == "act"


def test_shares_deviate_by_their_difference() -> None:
    """A starvation of 3 % is not three times worse than one of 1 %; one of 30 % is worse by 29 points."""
    assert not accused([0.01, 0.01, 0.011, 0.03], STARVED)
    found = accused([0.01, 0.01, 0.011, 0.30], STARVED)
    assert [(o.host, round(o.deviation_ratio, 2)) for o in found] == [("n3", 0.29)]


def test_two_nodes_cannot_accuse_each_other() -> None:
    assert not accused([1e9, 1e8])


def test_undeclared_and_neutral_metrics_are_not_compared() -> None:
    samples = [Sample(f"n{i}", v, v, v) for i, v in enumerate([1.0, 1.0, 1.0, 0.1])]
    assert not outliers({Key("c", "other_ratio", ()): samples}, METRICS)


def test_scale_is_a_standard_deviation_on_average() -> None:
    """Croux & Rousseeuw's factors make the MAD of few values unbiased: within 5 % over 20,000 fleets."""
    rng = random.Random(1)
    for n in (3, 4, 5, 8, 20):
        mean = sum(scale([rng.gauss(0, 1) for _ in range(n)]) for _ in range(4000)) / 4000
        assert mean == pytest.approx(1.0, abs=0.05), n


def test_figures_pool_peers_split_devices_and_leave_tails_and_invalid_out() -> None:
    found: list[Measurement] = [
        figure("network_throughput_bytes_per_second", 4e9, peer="a", direction="send"),
        figure("network_throughput_bytes_per_second", 6e9, peer="b", direction="send"),
        figure("accelerator_busy_ratio", 0.9, device="0"),
        figure("accelerator_busy_ratio", 0.8, device="1"),
        figure(LATENCY, 1e-3, statistic="p99"),
        figure(READ, 1e9).model_copy(update={"invalid": "contended"}),
        Measurement(metric="network_retransmits", value=3, interval=(3, 3), samples=1),
    ]
    rows = figures("n1", "c", found, {}, {})
    assert sorted((key.metric, sample.part, sample.value) for key, sample in rows) == [
        ("accelerator_busy_ratio", "GPU 0", 0.9),
        ("accelerator_busy_ratio", "GPU 1", 0.8),
        ("network_throughput_bytes_per_second", "", 5e9),
    ]


def test_nodes_that_a_cpu_held_back_are_siblings_of_those_that_it_did_not() -> None:
    """One node with ``limited_by=cpu`` was compared with nobody."""
    name = "network_throughput_bytes_per_second"
    metric = Metric(name=name, help="h", labels=("direction", "limited_by"), better="higher", varying=("limited_by",))
    held = figure(name, 4e9, direction="send", limited_by="cpu"), figure(name, 9e9, direction="send")
    first, second = (figures(host, "c", [m], {}, {name: metric}) for host, m in zip("ab", held, strict=True))
    assert [key for key, _ in first] == [key for key, _ in second]


def test_parts_are_named_as_people_name_them() -> None:
    assert part_of(READ, {"path": "/data"}) == "disk /data"
    assert part_of("network_throughput_bytes_per_second", {}) == "port"
    assert part_of("accelerator_busy_ratio", {"device": "3"}) == "GPU 3"
    assert part_of("inference_samples_per_second", {"stage": "preprocess"}) == "CPU"
    assert part_of("host_pressure_ratio", {"resource": "cpu", "stage": "storage.read"}) == "CPU"
    assert part_of("host_pressure_ratio", {"resource": "io"}) == "disk"
    assert part_of("host_memory_available_bytes", {}) == "memory"


# --- the matrix


def matrix(hosts: list[str], rate: Callable[[str, str], float]) -> list[PairOutcome]:
    return [
        PairOutcome(
            round=0, client=a, server=b, state=State.PASS, send_bytes_per_second=rate(a, b),
            receive_bytes_per_second=rate(b, a),
        )
        for a, b in itertools.combinations(hosts, 2)
    ]  # fmt: skip


@pytest.mark.parametrize("n", [4, 8, 16])
@pytest.mark.parametrize("way", ["both", "send", "receive"])
def test_a_slow_port_is_named_with_its_direction_and_its_partners_are_not(n: int, way: str) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        hosts = [f"n{i}" for i in range(n)]
        slow = rng.choice(hosts)

        def rate(a: str, b: str, slow: str = slow, rng: random.Random = rng) -> float:
            hit = (a == slow and way != "receive") or (b == slow and way != "send")
            return 1e9 * rng.gauss(1, 0.01) * (0.2 if hit else 1.0)

        found = ports(matrix(hosts, rate))
        assert {o.host for o in found} == {slow}, (seed, found)
        assert {o.labels["direction"] for o in found} == ({"send", "receive"} if way == "both" else {way})
        assert all(o.part == "port" and o.confirmed and o.level == "act" for o in found)


def test_a_slow_path_between_sound_ports_is_a_path() -> None:
    hosts = [f"n{i}" for i in range(8)]
    rng = random.Random(3)
    found = ports(matrix(hosts, lambda a, b: 1e9 * rng.gauss(1, 0.01) * (0.5 if {a, b} == {"n2", "n5"} else 1.0)))
    assert {(o.host, o.part) for o in found} == {("n2", "path to n5")}
    assert median([o.deviation_ratio for o in found]) == pytest.approx(0.5, abs=0.05)


def test_a_sound_matrix_accuses_nobody() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        found = ports(matrix([f"n{i}" for i in range(6)], lambda a, b, rng=rng: 1e9 * rng.gauss(1, 0.02)))  # type: ignore[misc]
        assert not [o for o in found if o.level == "act"], seed
