"""Starvation from end to end of the child and its parser, against a supply of exactly known rate."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.model import Measurement
from probes.feed.parse import Parsed, parse
from tests.probes.feed.conftest import DEMAND, SAMPLE, SHORT, run_child

pytestmark = pytest.mark.slow

Child = Callable[..., str]


def one(parsed: Parsed, metric: str, **labels: str) -> Measurement:
    (found,) = [m for m in parsed.measurements if m.metric == metric and labels.items() <= m.labels.items()]
    return found


def starved(parsed: Parsed, component: str = "total") -> float:
    return one(parsed, "starvation_ratio", component=component).value


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Parsed]:
    """Supply over demand -> what was measured, all at once: a software rate costs no disk and hardly any CPU."""
    supplies = (0.2, 0.5, 0.8, 3.0)

    folder = tmp_path_factory.mktemp("fed")  # once: pytest makes such folders in one thread only

    def one_of(supply: float) -> Parsed:
        return parse(run_child(folder, bucket=[supply * DEMAND * SAMPLE, 0.0]), "/data", "test")

    with ThreadPoolExecutor(len(supplies)) as at_once:
        return dict(zip(supplies, at_once.map(one_of, supplies), strict=True))


@pytest.mark.parametrize("supply", [0.2, 0.5, 0.8])
def test_starvation_is_what_the_supply_lacks(fed: dict[float, Parsed], supply: float) -> None:
    parsed, missing = fed[supply], 1.0 - supply
    assert starved(parsed) == pytest.approx(missing, abs=0.02)
    assert starved(parsed, "storage") == pytest.approx(missing, abs=0.02)
    assert sum(starved(parsed, part) for part in ("transfer", "preprocess", "storage", "overlap")) == pytest.approx(
        starved(parsed)
    )


def test_a_path_that_outruns_the_demand_starves_nobody(fed: dict[float, Parsed]) -> None:
    parsed = fed[3.0]
    assert abs(starved(parsed)) < 0.01
    assert one(parsed, "storage_headroom_ratio").value == pytest.approx(3.0, rel=0.05)
    assert one(parsed, "inference_samples_per_second", stage="resident").interval == (DEMAND, DEMAND)


def test_every_figure_names_its_path_and_what_stood_in(child: Child) -> None:
    parsed = parse(child(bucket=[DEMAND * SAMPLE, 0.0], schedule=SHORT), "/data", "resnet50-h100")
    for measurement in parsed.measurements:
        assert measurement.labels["path"] == "/data"
        assert measurement.labels["accelerator"] == "resnet50-h100"
        assert measurement.stand_in == "emulated"


def test_real_files_are_written_whole_and_read_from_the_device(child: Child) -> None:
    import json

    lines = [json.loads(line) for line in child(schedule=SHORT).splitlines()]
    ready = lines[0]
    assert ready["unwritten_bytes"] == 0
    assert ready["data_bytes"] == 64 << 20
    for arm in lines:
        if arm.get("arm") in ("fetch", "storage"):
            assert arm["own_device_bytes"] >= 0.98 * arm["read_bytes"] > 0


def test_a_file_system_in_memory_is_refused() -> None:
    from pathlib import Path

    from bench.measure.probe import Unsupported
    from probes.common import io_counters

    assert io_counters.memory_file_system("/dev/shm") == "tmpfs"
    assert io_counters.memory_file_system(str(Path(__file__).parent)) is None
    with pytest.raises(Unsupported, match="in_memory"):
        parse('{"kind": "error", "word": "in_memory", "text": "tmpfs"}\n', "/data", "")
