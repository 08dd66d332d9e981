"""The formulas against a simulated feed of known ceilings, and the words for each cause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.attribution import (
    GAP_LIMIT,
    RATE,
    SAMPLE_BYTES,
    attribute,
    components,
    gap_interval,
    gap_limit,
    supply_gap,
)
from bench.judge.profile import Gate
from bench.model import Attribution, Measurement, Outcome, ProbeResult
from tests.judge.make import bounded, gate, measurement, profile, result

RATES = st.floats(0.1, 1e6)


def feed(
    rates: dict[str, float], path: str | None = "/data", width: float = 0.0, size: float | None = 1e6
) -> list[Measurement]:
    """The rates of one path, each with an interval of that relative half-width; ``size`` in bytes a sample."""
    where = {"path": path} if path else {}
    found = [measurement(RATE, v, v * width, labels={"stage": k, **where}) for k, v in rates.items()]
    return found + ([measurement(SAMPLE_BYTES, size, labels=where)] if size else [])


def arms(path: str | None = "/data", size: float | None = 1e6, **rates: float) -> list[Measurement]:
    return feed(rates, path, size=size)


def of(*found: Measurement, limit: float = GAP_LIMIT) -> Attribution:
    return attribute([result("feed", found)], limit)


@bounded
@given(RATES, RATES, RATES, RATES, RATES)
def test_the_components_sum_to_the_whole(c: float, t: float, p: float, f: float, s: float) -> None:
    parts = components(c, t, p, f, s)
    total = sum(part for part in (parts.transfer, parts.preprocess, parts.storage, parts.overlap) if part is not None)
    assert total == pytest.approx(1 - s / c, abs=1e-9 * max(1.0, t / c, p / c, f / c))


def test_the_contracts_formulas_by_hand() -> None:
    """C 100, T 90, P 60, F 40, S 25: lost 10 to the copy, 30 to decoding, 20 to storage, 15 to no overlap."""
    parts = components(100, 90, 60, 40, 25)
    assert (parts.transfer, parts.preprocess, parts.storage, parts.overlap) == pytest.approx((0.1, 0.3, 0.2, 0.15))
    assert supply_gap(100, 40) == pytest.approx(0.6)
    assert supply_gap(100, 300) == 0.0


def test_storage_that_is_faster_than_decoding_has_no_part() -> None:
    assert components(100, 100, 30, 300, 28).storage == 0.0


@pytest.mark.parametrize(
    ("rates", "bottleneck"),
    [
        ({"resident": 100, "transfer": 99, "preprocess": 98, "fetch": 300, "storage": 97}, "accelerator"),
        ({"resident": 100, "transfer": 99, "preprocess": 98, "fetch": 50, "storage": 49}, "storage"),
        ({"resident": 100, "transfer": 99, "preprocess": 40, "fetch": 300, "storage": 38}, "preprocess"),
        ({"resident": 100, "transfer": 40, "preprocess": 39, "fetch": 300, "storage": 38}, "transfer"),
        ({"resident": 100, "transfer": 99, "preprocess": 98, "fetch": 120, "storage": 55}, "loader"),
        ({"resident": 100, "transfer": 99, "preprocess": 30, "fetch": 80, "storage": 25}, "preprocess"),
        ({"resident": 100, "transfer": 99, "preprocess": 60, "fetch": 40, "storage": 25}, "storage"),
        ({"resident": 100, "transfer": 100, "preprocess": 100, "fetch": 93, "storage": 92}, "accelerator"),
        ({"resident": 100, "transfer": 99, "preprocess": 98, "fetch": 0, "storage": 0}, "storage"),
    ],
)
def test_the_bottleneck(rates: dict[str, float], bottleneck: str) -> None:
    found = of(*feed(rates))
    assert (found.bottleneck, found.valid) == (bottleneck, True)
    assert found.starved is (bottleneck == "storage")
    assert found.starvation_ratio == pytest.approx(1 - rates["storage"] / rates["resident"])
    assert found.demand_bytes_per_second == pytest.approx(rates["resident"] * 1e6)
    assert found.supply_bytes_per_second == pytest.approx(rates["fetch"] * 1e6)


@bounded
@given(st.floats(1, 1e4), st.floats(0.05, 5), st.floats(0.05, 5), st.floats(0.0, 1.0), st.floats(0.8, 1.0))
def test_storage_is_blamed_only_as_the_contract_says(c: float, p: float, f: float, serial: float, eff: float) -> None:
    """A feed with relative ceilings; ``serial`` from full overlap to one after the other."""
    p, f = min(p, 1.0) * c, f * c
    s = eff * ((1 - serial) * min(c, p, f) + serial / (1 / p + 1 / f + 1 / c))
    found = of(*arms(resident=c, transfer=c, preprocess=p, fetch=f, storage=s))
    gap = 1 - min(c, f) / c
    if found.bottleneck == "storage":
        assert f < 0.95 * c and gap > GAP_LIMIT
        assert found.starved is True
    if f >= c:
        assert found.bottleneck in ("accelerator", "loader", "preprocess")
        assert found.components.storage == 0.0 or p > f
    if 1 - s / c < 0.05:
        assert found.bottleneck == "accelerator"


def test_the_flag_needs_the_whole_interval_above_the_limit() -> None:
    rates = {"resident": 100.0, "transfer": 100.0, "preprocess": 100.0, "fetch": 85.0, "storage": 84.0}
    sure, unsure = of(*feed(rates, width=0.01)), of(*feed(rates, width=0.05))
    assert (sure.bottleneck, sure.starved) == ("storage", True)
    assert (unsure.bottleneck, unsure.starved) == ("storage", False)
    assert "seems to starve" in unsure.explanation
    assert of(*feed(rates, width=0.01), limit=0.2).starved is False


def test_drift_is_named_where_it_leaves_the_answer_open_and_voids_nothing() -> None:
    """An accelerator that was 5 % apart between two turns made the whole attribution undetermined."""

    def drifting(**rates: float) -> Attribution:
        found = feed({"transfer": 100.0, "preprocess": 100.0, **rates}, width=0.01)
        wide = {"wide": "accelerator_drifted: its own rate was 9 % apart", "interval": (85.0, 115.0)}
        return of(
            measurement(RATE, 100.0, labels={"stage": "resident", "path": "/data"}).model_copy(update=wide), *found
        )

    near, fed = drifting(fetch=88.0, storage=87.0), drifting(fetch=1000.0, storage=99.0)
    for answer in (near, fed):
        assert answer.valid and "not sure, because its own rate was 9 % apart" in answer.explanation
    assert (near.bottleneck, near.starved) == ("storage", False)
    assert (fed.bottleneck, fed.starved) == ("accelerator", False)
    starved = drifting(fetch=30.0, storage=29.0)
    assert starved.starved and "not sure" not in starved.explanation


def test_the_gaps_interval() -> None:
    def gap(c: tuple[float, float], f: tuple[float, float]) -> tuple[float, float]:
        return gap_interval(
            {
                "resident": measurement(RATE, sum(c) / 2, interval=c),
                "fetch": measurement(RATE, sum(f) / 2, interval=f),
            }
        )

    assert gap((90, 110), (45, 55)) == pytest.approx((1 - 55 / 90, 1 - 45 / 110))
    assert gap((90, 110), (200, 300)) == (0.0, 0.0)
    assert gap((-10, 110), (-5, 55)) == pytest.approx((0.0, 1.0))


def test_no_transfer_arm_is_not_a_transfer_of_zero() -> None:
    found = of(*arms(resident=100, preprocess=80, fetch=50, storage=45))
    parts = found.components
    assert (found.valid, found.bottleneck, parts.transfer) == (True, "storage", None)
    assert (parts.preprocess, parts.storage, parts.overlap) == pytest.approx((0.2, 0.3, 0.05))


@pytest.mark.parametrize("missing", ["resident", "preprocess", "fetch", "storage"])
def test_a_missing_rate_leaves_everything_open(missing: str) -> None:
    rates = {"resident": 100.0, "transfer": 99.0, "preprocess": 98.0, "fetch": 50.0, "storage": 49.0}
    del rates[missing]
    found = of(*feed(rates))
    assert (found.bottleneck, found.valid, found.starved, found.starvation_ratio) == ("undetermined", False, None, None)
    assert found.components.storage is None and found.supply_gap_ratio is None and found.demand_bytes_per_second is None
    assert missing in found.explanation


def test_no_feed_at_all_quotes_its_probe() -> None:
    owners = {RATE: "feed"}
    silent = attribute([], GAP_LIMIT, owners)
    assert (silent.bottleneck, silent.valid) == ("undetermined", False)
    broken = ProbeResult(probe="feed", outcome=Outcome.TIMED_OUT, reason="too_slow: no answer in 60 s")
    found = attribute([broken], GAP_LIMIT, owners)
    assert "the probe feed was timed out: too_slow: no answer in 60 s" in found.explanation


@pytest.mark.parametrize("index", range(5))
def test_an_invalid_rate_keeps_the_numbers_and_decides_nothing(index: int) -> None:
    found = arms(resident=100, transfer=99, preprocess=98, fetch=50, storage=49)
    found[index] = found[index].model_copy(update={"invalid": "contended: the run queue was full"})
    answer = of(*found)
    assert (answer.bottleneck, answer.valid, answer.starved) == ("undetermined", False, None)
    assert answer.starvation_ratio == pytest.approx(0.51)
    assert answer.supply_gap_ratio == pytest.approx(0.5)
    assert "contended: the run queue was full" in answer.explanation


@pytest.mark.parametrize("bad", [{"resident": 0.0}, {"resident": -1.0}, {"fetch": -1.0}])
def test_what_is_no_rate_decides_nothing(bad: dict[str, float]) -> None:
    rates = {"resident": 100.0, "transfer": 99.0, "preprocess": 98.0, "fetch": 50.0, "storage": 49.0, **bad}
    found = of(*(measurement(RATE, v, labels={"stage": k, "path": "/data"}) for k, v in rates.items()))
    assert (found.bottleneck, found.valid) == ("undetermined", False)


def test_a_rate_that_is_there_twice_decides_nothing() -> None:
    twice = arms(resident=100, preprocess=98, fetch=50, storage=49) + arms(size=None, storage=10)
    assert of(*twice).bottleneck == "undetermined"


def test_the_worst_path_is_shown_and_shares_what_has_no_path() -> None:
    shared = arms(path=None, size=None, resident=100, transfer=99, preprocess=98)
    good = arms(path="/good", fetch=300, storage=97)
    bad = arms(path="/bad", fetch=50, storage=49)
    worst = arms(path="/worst", fetch=20, storage=19)
    open_ = arms(path="/open", fetch=20)
    assert of(*shared, *good, *worst, *bad, *open_).path == "/worst"
    assert of(*shared, *good, *open_).path == "/open"
    assert of(*shared, *good).bottleneck == "accelerator"
    assert of(*shared, *bad, *good).demand_bytes_per_second == pytest.approx(1e8)


@pytest.mark.parametrize(("what", "words"), [("emulated", "emulated accelerator"), ("cpu", "the CPU stood in")])
def test_a_stand_in_is_named(what: str, words: str) -> None:
    found = arms(resident=100, transfer=99, preprocess=98, fetch=50, storage=49)
    labelled = [m.model_copy(update={"labels": {**m.labels, "stand_in": what}}) for m in found]
    answer = of(*labelled)
    assert answer.stand_in == what
    assert words in answer.explanation


def test_the_sentence_of_the_product() -> None:
    rates = {"resident": 32.0, "transfer": 32.0, "preprocess": 31.0, "fetch": 11.0, "storage": 10.88}
    found = of(*feed(rates, None, size=1e8))
    assert found.explanation == (
        "Storage starves the accelerator: it needs 3.2 GB/s and gets 1.1 GB/s, so it stands idle 66 % of the time."
    )
    assert "32 samples/s and gets 11 samples/s" in of(*feed(rates, None, size=None)).explanation
    assert of(*feed(rates, size=None)).demand_bytes_per_second is None


@bounded
@given(st.lists(st.sampled_from([0.0, 1.0, 30.0, 60.0, 93.0, 97.0, 100.0, 500.0]), min_size=5, max_size=5))
def test_every_answer_is_one_plain_sentence(values: list[float]) -> None:
    stages = ("resident", "transfer", "preprocess", "fetch", "storage")
    found = of(*feed(dict(zip(stages, values, strict=True)), "/a.b"))
    assert found.explanation.endswith(".") and "\n" not in found.explanation
    assert "None" not in found.explanation and "path /a.b" in found.explanation
    assert (found.bottleneck == "undetermined") is (not found.valid)
    assert (found.starved is None) is (not found.valid)


def test_the_limit_is_the_strictest_required_gates() -> None:
    def starvation(limit: float, component: str = "storage", required: bool = True) -> Gate:
        return gate("starvation_ratio", labels={"component": component}, max=limit, required=required)

    loose, strict = profile(starvation(0.3)), profile(starvation(0.07), starvation(0.01, required=False))
    total = profile(starvation(0.02, component="total"))
    assert gap_limit([loose, strict, total]) == 0.07
    assert gap_limit([total]) == gap_limit([]) == 0.10


def ways(*rows: tuple[int, int, str, float]) -> list[Measurement]:
    """Reading alone: readers, block size, past or through the cache, bytes a second; the first as the fetch arm."""
    return [
        measurement(
            "feed_fetch_bytes_per_second",
            rate,
            0.01 * rate,
            labels={"path": "/data", "readers": str(readers), "block_bytes": str(block), "cache": cache},
        )
        for readers, block, cache, rate in rows
    ]


STARVED = {"resident": 100.0, "transfer": 100.0, "preprocess": 100.0, "fetch": 40.0, "storage": 40.0}


def test_another_way_to_read_that_is_faster_is_named_with_what_it_gives() -> None:
    tried = ways((16, 1 << 20, "past", 40e6), (64, 1 << 20, "past", 70e6), (16, 4 << 20, "past", 41e6))
    answer = of(*feed(STARVED, "/data", size=1e6), *tried)
    assert answer.bottleneck == "storage"
    assert "64 readers" in answer.explanation and "70 MB/s" in answer.explanation
    assert "then the path itself is the limit" in answer.explanation


def test_a_way_that_is_enough_says_so() -> None:
    answer = of(*feed(STARVED, "/data", size=1e6), *ways((16, 1 << 20, "past", 40e6), (64, 1 << 20, "past", 130e6)))
    assert "which is enough" in answer.explanation


@pytest.mark.parametrize(
    ("way", "words"),
    [((16, 262_144, "past", 90e6), "Blocks of 260 kB in place"), ((16, 1 << 20, "direct", 90e6), "O_DIRECT in place")],
)
def test_another_way_begins_a_sentence_and_keeps_its_spelling(way: tuple[int, int, str, float], words: str) -> None:
    answer = of(*feed(STARVED, "/data", size=1e6), *ways((16, 1 << 20, "past", 40e6), way))
    assert words in answer.explanation


def test_ways_that_are_no_faster_leave_the_path_as_the_limit() -> None:
    tried = ways((16, 1 << 20, "past", 40e6), (64, 1 << 20, "past", 41e6), (16, 1 << 20, "through", 39e6))
    answer = of(*feed(STARVED, "/data", size=1e6), *tried)
    assert "No other way to read was faster" in answer.explanation
    assert "page cache" in answer.explanation


def test_a_part_that_noise_makes_larger_than_the_whole_is_not_told() -> None:
    """A node without a GPU was told: idle 24 % of the time, and would for 81 % through this alone."""
    odd = of(*arms(resident=100.0, transfer=100.0, preprocess=19.0, fetch=500.0, storage=76.0))
    assert odd.bottleneck == "preprocess" and "stands idle 24 % of the time (" in odd.explanation
    whole = of(*arms(resident=100.0, transfer=100.0, preprocess=19.0, fetch=500.0, storage=18.0))
    assert "idle 82 % of the time, and would for 81 % through this alone" in whole.explanation


def test_a_decode_that_lacks_cores_says_how_many() -> None:
    slow = {"resident": 100.0, "transfer": 100.0, "preprocess": 50.0, "fetch": 300.0, "storage": 50.0}
    cores = [
        measurement("feed_preprocess_cores", 3.6, labels={"path": "/data"}),
        measurement("feed_available_cores", 2.0, labels={"path": "/data"}),
    ]
    answer = of(*feed(slow, "/data", size=1e6), *cores)
    assert answer.bottleneck == "preprocess"
    assert "2 more cores" in answer.explanation


def test_another_loader_that_loses_is_software_and_named() -> None:
    low = {"resident": 100.0, "transfer": 100.0, "preprocess": 100.0, "fetch": 300.0, "storage": 60.0}
    gap = measurement("feed_loader_gap_ratio", 0.4, labels={"path": "/data", "loader": "torch", "workers": "4"})
    answer = of(*feed(low, "/data", size=1e6), gap)
    assert answer.bottleneck == "loader"
    assert "software, not hardware" in answer.explanation and "torch with 4 workers" in answer.explanation


def test_an_accelerator_that_is_slower_but_not_idle_is_not_starved() -> None:
    low = {"resident": 100.0, "transfer": 98.0, "preprocess": 88.0, "fetch": 300.0, "storage": 87.0}
    beside = [
        measurement("accelerator_busy_ratio", 0.995, labels={"path": "/data", "stage": "feed.storage"}),
        measurement("feed_interference_ratio", 0.12, labels={"path": "/data"}),
    ]
    answer = of(*feed(low, "/data", size=1e6), *beside)
    assert answer.bottleneck == "accelerator" and answer.starved is False
    assert "interference" in answer.explanation
    idle = of(
        *feed(low, "/data", size=1e6),
        beside[1],
        measurement("accelerator_busy_ratio", 0.88, labels={"stage": "feed.storage"}),
    )
    assert idle.bottleneck != "accelerator"
