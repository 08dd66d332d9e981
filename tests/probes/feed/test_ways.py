"""Loaders as people use them, other patterns, other ways to read, and the calibration: each on real files or rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.measure.probe import Check
from bench.measure.recording import LiveTools
from bench.model import Measurement
from probes.feed import probe as feed
from probes.feed.parse import Parsed, parse, parse_pattern
from probes.feed.plan import PATTERNS, schedule
from probes.feed.waterfall import ARMS
from tests.probes.feed.conftest import SAMPLE, SHORT

Child = Callable[..., str]


def found(parsed: Parsed, metric: str) -> list[Measurement]:
    return [m for m in parsed.measurements if m.metric == metric]


@pytest.mark.parametrize("loader", ["torch", "webdataset", "safetensors", "parquet"])
def test_a_loader_of_other_people_feeds_cold_and_its_gap_is_told(child: Child, loader: str) -> None:
    rows = [*SHORT[:3], {**SHORT[3], "warm": 0.5, "shortest": 1.0, "longest": 1.0}]
    rows.append({**rows[3], "arm": "yardstick"})
    text = child(loader=loader, schedule=rows, readers=2, data_bytes=32 << 20)
    (storage,) = [r for r in map(json.loads, text.splitlines()) if r.get("arm") == "storage"]
    assert storage["own_device_bytes"] >= 0.98 * storage["read_bytes"] > 0
    (gap,) = found(parse(text, "/data", ""), "feed_loader_gap_ratio")
    assert gap.labels["loader"] == loader and gap.labels["workers"] == "2"
    assert gap.interval[0] <= gap.value <= gap.interval[1]
    assert abs(gap.value) <= 1.0, "of what the accelerator takes; whose turn this machine held up is chance"


def test_a_loader_whose_package_is_missing_is_unsupported() -> None:
    from probes.feed.load import loaders
    from probes.feed.load.reader import CannotFeed

    with pytest.raises(CannotFeed) as caught:
        loaders._need("no_such_package_anywhere")
    assert caught.value.word == "package_missing"
    with pytest.raises(CannotFeed, match="known are"):
        loaders.format_named("tensorflow")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_measures_cold_bytes(child: Child, pattern: str) -> None:
    text = child(pattern=pattern, data_bytes=64 << 20, deadline_seconds=3.0, schedule=SHORT[2:3])
    parsed = parse_pattern(text, "/data", "resnet50-h100")
    assert parsed.measurements
    for measurement in parsed.measurements:
        assert measurement.value > 0.0
        assert measurement.invalid is None
        assert measurement.labels["path"] == "/data"
    for record in map(json.loads, text.splitlines()):
        if "device_bytes" in record:
            assert record["device_bytes"] >= 0.98 * record["bytes"] > 0


def test_a_model_load_counts_every_byte_however_lazy_the_map(child: Child) -> None:
    text = child(pattern="model-load", data_bytes=64 << 20, deadline_seconds=6.0, schedule=SHORT[2:3])
    lazy = [r for r in map(json.loads, text.splitlines()) if r.get("reader") == "safetensors"]
    assert lazy and all(r["device_bytes"] >= 0.98 * r["bytes"] for r in lazy)


def test_other_ways_to_read_are_tried_only_where_storage_lacks(child: Child, tmp_path: Path) -> None:
    ways = [{**row, "shortest": 0.4, "longest": 0.4} for row in mend_rows_of(2)]
    starved = child(schedule=[*SHORT, *ways], demand=1e9)
    assert len(found(parse(starved, "/data", ""), "feed_fetch_bytes_per_second")) >= 4
    for file in tmp_path.iterdir():
        file.unlink()
    fed = child(schedule=[*SHORT, *ways], demand=10.0)
    assert len(found(parse(fed, "/data", ""), "feed_fetch_bytes_per_second")) == 1


def mend_rows_of(readers: int) -> list[dict[str, object]]:
    from bench.model import Effort

    return [asdict(row) for row in schedule(Effort.QUICK, False, readers, False) if row.arm == "mend"]


def test_a_real_accelerator_is_measured_first_between_and_last_and_each_arm_thrice() -> None:
    from bench.model import Effort

    for effort in Effort:
        names = [row.arm for row in schedule(effort, True, 4, False) if row.arm != "mend"]
        assert names[0] == names[-1] == "resident"
        assert {names.count(arm) for arm in ARMS} == {3}
        shortest = sum(row.warm + row.shortest for row in schedule(effort, True, 4, False) if row.arm != "mend")
        assert shortest <= 0.8 * feed.PROBE.seconds[effort]
        assert "storage" in names[: [i for i, name in enumerate(names) if name == "resident"][1]]


@pytest.mark.slow
def test_the_calibration_finds_a_known_rate(tmp_path: Path) -> None:
    check: Check = feed.calibration_check(LiveTools("feed", None), 0.5)
    assert check.ok, check.detail
    assert "points" in check.detail


def test_the_cpu_stands_in_and_says_so(child: Child) -> None:
    rows = [{**SHORT[0], "arm": "resident"}, *SHORT, {**SHORT[0], "arm": "resident", "turn": 2}]
    text = child(accelerator="cpu", demand=None, schedule=rows, batch=8, decode="crc32", bucket=[20 * SAMPLE, 0.0])
    parsed = parse(text, "/data", "")
    assert all(m.stand_in == "cpu" for m in parsed.measurements)
    (total,) = [m for m in found(parsed, "starvation_ratio") if m.labels["component"] == "total"]
    assert 0.5 < total.value < 1.0
    assert found(parsed, "feed_interference_ratio") and found(parsed, "feed_preprocess_cores")


def test_resnet50_has_the_papers_size() -> None:
    from probes.feed.load.torch_accelerator import resnet50

    assert sum(p.numel() for p in resnet50().parameters()) == 25_557_032
