"""What makes storage look faster than it is: never a wrong figure, the true one or INVALID with the reason."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.model import Measurement
from probes.common import io_counters
from probes.feed.load.dataset import unwritten_bytes
from probes.feed.parse import parse
from probes.feed.rates import Rate
from probes.feed.records import Arm, Ready
from probes.feed.validity import reasons, widened
from probes.feed.waterfall import ARMS, Rates
from tests.probes.feed.conftest import DEMAND, SAMPLE, SHORT, run_child
from tests.probes.feed.held_in_memory import held_in_memory

Child = Callable[..., str]
SIZE = 64 << 20


def total(text: str) -> Measurement:
    parsed = parse(text, "/data", "")
    return next(m for m in parsed.measurements if m.metric == "starvation_ratio" and m.labels["component"] == "total")


def written(path: Path, size: int = SIZE) -> Path:
    path.write_bytes(os.urandom(size))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return path


def test_a_sparse_file_is_no_storage(child: Child, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(SIZE)
    found = total(child(files=[str(tmp_path / "sparse")], schedule=SHORT))
    assert found.invalid is not None and "unwritten" in found.invalid and "not_cold" in found.invalid


def test_a_fallocated_file_is_no_storage(child: Child, tmp_path: Path) -> None:
    with (tmp_path / "reserved").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)
    found = total(child(files=[str(tmp_path / "reserved")], schedule=SHORT))
    assert found.invalid is not None and "unwritten" in found.invalid


def test_unwritten_bytes_are_counted(tmp_path: Path) -> None:
    with (tmp_path / "half").open("wb") as file:
        file.write(os.urandom(4 << 20))
        file.truncate(8 << 20)
        os.fsync(file.fileno())
    assert unwritten_bytes(str(tmp_path / "half")) == 4 << 20
    assert unwritten_bytes(str(written(tmp_path / "whole", 4 << 20))) == 0


@pytest.mark.parametrize("buffered", [False, True])
def test_a_warm_cache_is_passed_or_emptied(child: Child, tmp_path: Path, buffered: bool) -> None:
    file = written(tmp_path / "warm")
    file.read_bytes()
    assert (io_counters.resident_ratio([str(file)]) or 0.0) > 0.9
    text = child(files=[str(file)], buffered=buffered, schedule=SHORT)
    for arm in map(json.loads, text.splitlines()):
        if arm.get("arm") in ("fetch", "storage"):
            assert arm["own_device_bytes"] >= 0.98 * arm["read_bytes"]


@pytest.mark.skipif(os.geteuid() != 0, reason="locking 64 MiB into memory needs root or a large RLIMIT_MEMLOCK")
def test_a_cache_that_cannot_be_emptied_is_invalid(child: Child, tmp_path: Path) -> None:
    file = written(tmp_path / "held")
    with held_in_memory(file):
        found = total(child(files=[str(file)], buffered=True, schedule=SHORT))
    assert found.invalid is not None and "not_cold" in found.invalid


@contextmanager
def on_a_loop(folder: Path, direct: bool) -> Iterator[Path]:
    """A file system in a file, whose reads go through the page cache of that file, or past it."""
    image, point = folder / "image", folder / "point"
    image.write_bytes(b"")
    os.truncate(image, 256 << 20)
    point.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    argv = ["losetup", "--find", "--show", f"--direct-io={'on' if direct else 'off'}", str(image)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", device, str(point)], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop mounts")
@pytest.mark.parametrize("direct", [False, True])
def test_a_loop_devices_own_cache_is_no_storage(tmp_path: Path, direct: bool) -> None:
    """O_DIRECT passes the cache of the file system, and meets that of the file below it."""
    with on_a_loop(tmp_path, direct) as folder:
        text = run_child(folder, schedule=SHORT)
    found = total(text)
    arms = [arm for arm in map(json.loads, text.splitlines()) if arm.get("arm") in ("fetch", "storage")]
    for arm in arms:
        assert (arm["own_device_bytes"] >= 0.98 * arm["read_bytes"]) == direct
    assert ("not_cold" in (found.invalid or "")) != direct


@pytest.mark.parametrize(("version", "trusted"), [((2, 1), False), ((2, 2), False), ((2, 3), True)])
def test_a_zfs_that_reads_from_its_own_cache_has_no_witness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], trusted: bool
) -> None:
    monkeypatch.setattr(io_counters, "_type_of_file_system", lambda _path: 0x2FC12FC1)
    monkeypatch.setattr(io_counters, "zfs_version", lambda: version)
    delivered = io_counters.Delivered(io_counters.device_of(str(tmp_path)))
    own, device, _ = delivered.each(own=1 << 20)
    assert own == (1 << 20 if trusted else 0)
    assert device is None or device >= 0 if trusted else device == 0


def test_a_disk_in_memory_is_told_by_its_name() -> None:
    names = {entry.name: entry.resolve().name for entry in Path("/sys/dev/block").iterdir()}
    assert names
    for number, name in names.items():
        assert io_counters.memory_device(number) == (name if name.rstrip("0123456789") in ("ram", "zram") else None)


def test_a_burst_credit_of_two_seconds_does_not_count(child: Child) -> None:
    rate = 0.5 * DEMAND * SAMPLE
    arms: list[dict[str, Any]] = [
        {"arm": "transfer", "turn": 1, "warm": 0.2, "shortest": 0.5, "longest": 0.5},
        {"arm": "preprocess", "turn": 1, "warm": 0.2, "shortest": 0.5, "longest": 0.5},
        {"arm": "fetch", "turn": 1, "warm": 0.4, "shortest": 1.5, "longest": 5.0},
        {"arm": "storage", "turn": 1, "warm": 0.4, "shortest": 3.0, "longest": 9.0},
    ]
    text = child(bucket=[rate, 2.0 * rate], schedule=arms)
    found = total(text)
    assert found.invalid is None
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert any("burst" in warning for warning in parse(text, "/data", "").warnings)


def test_a_rate_that_never_settles_is_invalid() -> None:
    falling = [900.0 * at * 0.1 - 60.0 * (at * 0.1) ** 2 for at in range(60)]
    unsettled = arm(curve=falling, shortest_seconds=5.0)
    found = reasons(READY, [unsettled], {"storage": [[600.0]]}, 1000.0)
    assert {name: reason.partition(":")[0] for name, reason in found.items()} == {"storage": "not_steady"}


READY = Ready(
    accelerator="emulated", name="", batch=32, demand=DEMAND, sample_bytes=SAMPLE, data_bytes=SIZE, data_seconds=1.0,
    direct=True, workers=8, block_bytes=SAMPLE, decode="none", cores=2,
)  # fmt: skip


def arm(**changes: Any) -> Arm:
    flat = [500.0 * at * 0.1 for at in range(60)]
    known = {
        "arm": "storage", "turn": 1, "curve": flat, "grid_seconds": 0.1, "warm_seconds": 0.5, "shortest_seconds": 3.0,
        "seconds": 6.0, "read_bytes": 100, "own_device_bytes": 100, "run_queue_wait_ratio": 0.0,
        "others_cpu_ratio": 0.9,
    }  # fmt: skip
    return Arm(**{**known, **changes})


@pytest.mark.parametrize(
    ("changes", "turns", "word"),
    [
        ({"own_device_bytes": 97}, {}, "not_cold"),
        ({"own_device_bytes": 0, "device_bytes": 97}, {}, "not_cold"),
        ({"own_device_bytes": 0, "device_bytes": None, "resident_ratio": None}, {}, "not_cold"),
        ({"resident_ratio": 0.02}, {}, "not_cold"),
        ({"run_queue_wait_ratio": 0.11}, {}, "contended"),
        ({}, {"storage": [[500.0], [390.0]]}, "not_repeatable"),
    ],
)
def test_each_doubt_has_its_word(changes: dict[str, Any], turns: dict[str, list[list[float]]], word: str) -> None:
    found = reasons(READY, [arm(**changes)], {"storage": [[500.0]], **turns}, 1000.0)
    assert {name: reason.partition(":")[0] for name, reason in found.items()} == {"storage": word}


def test_turns_that_are_apart_widen_the_interval_and_void_nothing() -> None:
    """2.1 % between two turns of the accelerator voided every figure of the feed."""
    turns = {"resident": [[1000.0], [930.0], [970.0]], "storage": [[500.0], [470.0], [480.0]]}
    assert reasons(READY, [arm()], turns, 1000.0) == {}
    words = {name: why.partition(":")[0] for name, why in widened(turns, 1000.0).items()}
    assert words == {"resident": "accelerator_drifted", "storage": "not_repeatable"}
    apart = reasons(READY, [arm()], {**turns, "resident": [[1000.0], [790.0]]}, 1000.0)
    assert list(apart) == ["resident"] and apart["resident"].startswith("accelerator_drifted")


def test_a_cpu_that_stands_in_may_step_by_a_third() -> None:
    """Was: void in 7 of 11 quick runs on a shared machine of two cores, reading ten times as fast as needed."""
    cpu = replace(READY, accelerator="cpu")
    stepping = {"resident": [[970.0], [690.0], [780.0]], "storage": [[950.0], [700.0], [900.0]]}
    assert reasons(cpu, [arm()], stepping, 970.0) == {}
    assert set(reasons(READY, [arm()], stepping, 970.0)) == {"resident", "storage"}
    halved = {**stepping, "resident": [[970.0], [450.0]]}
    assert list(reasons(cpu, [arm()], halved, 970.0)) == ["resident"]


def test_a_doubt_belongs_to_its_own_arm() -> None:
    """A contended fetch arm voided the accelerator's own rate, and what the copy costs."""
    arms = [arm(arm="fetch", run_queue_wait_ratio=0.5), arm(run_queue_wait_ratio=0.0)]
    doubts = reasons(READY, arms, {"storage": [[500.0]]}, 1000.0)
    assert list(doubts) == ["fetch"]
    rate = Rate(500.0, (490.0, 510.0), (500.0,))
    found = Rates({}, dict.fromkeys(ARMS, rate), doubts).measurements({})
    assert [(m.metric, *m.labels.values()) for m in found if m.invalid] == [
        ("inference_samples_per_second", "fetch"),
        ("starvation_ratio", "storage"),
        ("starvation_ratio", "overlap"),
        ("storage_headroom_ratio",),
        ("accelerators_feedable",),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"own_device_bytes": 0, "device_bytes": 100},
        {"own_device_bytes": 0, "device_bytes": None, "resident_ratio": 0.0},
        {"run_queue_wait_ratio": 0.5, "others_cpu_ratio": 0.05},
    ],
)
def test_what_is_sound_has_no_doubt(changes: dict[str, Any]) -> None:
    assert reasons(READY, [arm(**changes)], {"storage": [[500.0]]}, 1000.0) == {}
