"""How the storage probe plans and doubts: arguments, sizes, times, and which figures must not decide anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.judge.gate import status_of
from bench.measure.probe import Completed, Failed, Unsupported
from bench.model import Effort, Limit, Measurement, Status
from probes.common.io_counters import block_counters
from probes.storage import directory, fio
from probes.storage import probe as storage
from probes.storage.directory import Place
from probes.storage.fio import MIB, FioJob, IoEngine, Reading

DIRECT = IoEngine("io_uring", True)
SECONDS = {"read": 1.5, "write": 1.5}
SIZES = {"read": 64 * MIB, "write": 16 * MIB}


def place(**fields: Any) -> Place:
    known = {
        "path": "/data", "fstype": "ext4", "device": "8:0", "free_bytes": 1 << 40, "size_bytes": 1 << 42,
        "direct": True, "direct_error": None, "io_uring": True, "io_uring_error": None, "cpus": 2,
    }  # fmt: skip
    return Place(**{**known, **fields})


def jobs_of(words: Sequence[str]) -> list[dict[str, str]]:
    """The options of each job of an argument list."""
    jobs: list[dict[str, str]] = []
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if name == "name":
            jobs.append({})
        if jobs:
            jobs[-1][name] = value
    return jobs


@pytest.mark.parametrize(
    "engine", [DIRECT, IoEngine("libaio", True), IoEngine("psync", True), IoEngine("psync", False)]
)
@pytest.mark.parametrize("cpus", [1, 2, 16, 192])
def test_every_job_keeps_its_depth_in_flight_and_stays_in_its_file(engine: IoEngine, cpus: int) -> None:
    words = fio.round_arguments(fio.StoragePlan(engine, SIZES, SECONDS, 0.1, cpus), storage.JOBS)
    for job, options in zip(storage.JOBS, jobs_of(words), strict=True):
        workers = int(options["numjobs"])
        assert workers * int(options["iodepth"]) == job.depth
        assert int(options["size"]) == int(options["offset_increment"])
        assert 0 < int(options["size"]) * workers <= SIZES[job.side]
        assert int(options["size"]) % job.block_bytes == 0
        assert options["filename"] == f"{job.side}.dat"
        assert "stonewall" in options
    assert f"--direct={int(engine.direct)}" in words


def test_the_arguments_keep_clear_of_the_known_traps() -> None:
    words = [*fio.command("/usr/bin/fio", "/a:b #c"), *fio.layout_arguments(DIRECT, {"read.dat": MIB}, 2.0)]
    assert words[:3] == ["env", "--chdir=/a:b #c", "/usr/bin/fio"]
    assert {"--thread", "--fallocate=none", "--refill_buffers=1", "--end_fsync=1"} <= set(words)
    assert all(word.startswith("--") for word in words[3:]), "a bare word would be a job file"
    assert not any("#" in word or ":" in word for word in words[3:])


def test_eight_jobs_are_labelled_apart() -> None:
    labels = [(job.side, *job.labels.values()) for job in storage.JOBS]
    assert len(set(labels)) == len(labels) == 8
    assert {job.labels["queue_depth"] for job in storage.JOBS} == {"1", "deep"}


@given(st.floats(20, 1000))
def test_the_rounds_fit_into_the_directory_s_time(total: float) -> None:
    seconds, ramp = storage.job_seconds(total)
    plan = fio.StoragePlan(DIRECT, SIZES, {"read": seconds, "write": seconds}, ramp, 2)
    assert storage.REPEATS * plan.round_seconds(storage.JOBS) <= total
    assert seconds >= 0.12 and 0.05 <= ramp <= 2.0


def test_writing_is_bounded_whatever_the_effort() -> None:
    assert storage.job_seconds(300)[0] > storage._LONGEST_WRITE_SECONDS


@given(st.integers(0, 1 << 44), st.sampled_from(list(Effort)))
def test_files_take_at_most_two_thirds_of_what_is_free_unless_that_is_next_to_nothing(
    free: int, effort: Effort
) -> None:
    sizes = storage.file_sizes(place(free_bytes=free, size_bytes=0), effort)
    assert sizes["read.dat"] >= 64 * MIB and sizes["write.dat"] >= 16 * MIB
    assert all(size % MIB == 0 for size in sizes.values())
    assert sum(sizes.values()) <= max(80 * MIB, free * 2 // 3)


def test_engines_are_tried_best_first_and_the_page_cache_last() -> None:
    assert [(e.name, e.direct) for e in storage.engines(place())] == [
        ("io_uring", True), ("libaio", True), ("psync", True), ("psync", False),
    ]  # fmt: skip
    assert storage.engines(place(io_uring=False))[0] == IoEngine("libaio", True)
    assert storage.engines(place(direct=False)) == [IoEngine("psync", False)]


# --- which figures must not be judged


def reading(job: FioJob, transferred: int = 100 * MIB) -> Reading:
    latency = ((0.001, transferred // job.block_bytes),)
    return Reading(job.name, transferred, 1e8, 1e8 / job.block_bytes, 0.001, 0.001, latency)


ROUNDS = [{job.name: reading(job) for job in storage.JOBS}] * 5
READ = 5 * 6 * 100 * MIB  # by the six reading jobs
LAID_OUT = (0, 0), (0, 80 * MIB)  # counters before and after the layout


def doubts(engine: IoEngine, *counts: tuple[int, int] | None) -> dict[str, str | None]:
    return storage.cold_doubts(fio.StoragePlan(engine, SIZES, SECONDS, 0.1, 2), counts, ROUNDS)


def test_reads_that_the_device_delivered_are_believed() -> None:
    assert doubts(DIRECT, *LAID_OUT, (READ, 0)) == {"read": None, "write": None}
    assert doubts(IoEngine("psync", False), *LAID_OUT, (READ, 0))["read"] is None


@pytest.mark.parametrize("engine", [DIRECT, IoEngine("psync", False)])
def test_reads_that_a_cache_delivered_are_not(engine: IoEngine) -> None:
    found = doubts(engine, *LAID_OUT, (READ // 2, 0))["read"]
    assert found == "not_cold: the device delivered 50% of what was read; a cache the rest"


def test_without_counters_o_direct_is_believed_and_the_page_cache_is_not() -> None:
    buffered = IoEngine("psync", False)
    blind = ((0, 0), (0, 0), (0, 0))  # a device that counts nothing, not even the layout
    for counts in ((None, None, None), blind):
        assert doubts(DIRECT, *counts)["read"] is None
        assert "not_cold" in str(doubts(buffered, *counts)["read"])
    assert "buffered" in str(doubts(buffered, *LAID_OUT, (READ, 0))["write"])


def figures(rounds: Sequence[Mapping[str, Reading]]) -> list[Measurement]:
    return list(storage._figures("/data", DIRECT, rounds, {"read": None, "write": None}))


def test_a_quantile_needs_operations_on_both_of_its_sides() -> None:
    few = [{**one, "read-1024k-1": reading(storage.JOBS[0], 50 * MIB)} for one in ROUNDS]
    found = figures(few)
    mebi = [m for m in found if m.labels["block_bytes"] == str(MIB) and m.metric == "storage_read_latency_seconds"]
    invalid = {(m.labels["queue_depth"], m.labels["statistic"]) for m in mebi if m.invalid}
    assert invalid == {("1", "p99"), ("1", "p99.9"), ("deep", "p99.9")}
    p999 = next(m for m in mebi if m.labels["statistic"] == "p99.9")
    assert p999.invalid == "few_operations: 250 were made, and p99.9 needs 3688"


def test_slow_reads_in_one_round_are_not_outvoted_by_the_others() -> None:
    """Six in a hundred reads at 100 ms in one round of five: the median of five p99s was 0.2 ms, and passed 10 ms."""
    job = storage.JOBS[2]
    slow = reading(job)._replace(latency_seconds=((0.0002, 4700), (0.1, 300)))
    good = reading(job)._replace(latency_seconds=((0.0002, 5000),))
    rounds = [{**one, job.name: slow if number == 3 else good} for number, one in enumerate(ROUNDS)]
    gate = {"block_bytes": "4096", "queue_depth": "1", "statistic": "p99"}
    (p99,) = (m for m in figures(rounds) if gate.items() <= m.labels.items() and "read_latency" in m.metric)
    assert status_of(p99, Limit(max=0.01)) is not Status.PASS
    assert p99.samples == 25000


def test_every_figure_is_declared_and_carries_its_raw_data() -> None:
    declared = {metric.name: set(metric.labels) for metric in storage.PROBE.metrics}
    found = figures(ROUNDS)
    assert {m.metric for m in found} == set(declared)
    assert all(set(m.labels) <= declared[m.metric] for m in found)
    assert all(5 in (len(m.repeats), len(m.distributions)) for m in found)


# --- what the child says of a directory


class Says:
    """Tools whose every program prints this."""

    def __init__(self, stdout: str, status: int = 0) -> None:
        self.done = Completed(("x",), status, stdout, "", 0.1)

    def python(self, *_: Any, **__: Any) -> Completed:
        return self.done


GOOD = {
    "path": "/data", "error": None, "fstype": "ext4", "device": "8:0", "free_bytes": 10, "size_bytes": 100,
    "direct": True, "direct_error": None, "io_uring": False, "io_uring_error": "no", "cpus": 2,
}  # fmt: skip


def look(**changes: Any) -> Place:
    return directory.look(Says(json.dumps({**GOOD, **changes})), "/data")  # type: ignore[arg-type]


@pytest.mark.parametrize("fstype", ["tmpfs", "ramfs"])
def test_memory_is_not_storage(fstype: str) -> None:
    with pytest.raises(Unsupported, match=r"^tmpfs: /data is memory"):
        look(fstype=fstype)


def test_what_is_wrong_with_a_directory_is_said_in_its_words() -> None:
    with pytest.raises(Unsupported, match=r"^missing: /data: No such file"):
        look(error="missing: /data: No such file or directory")
    assert look().free_bytes == 10


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"path": "/data"}', "[" * 100_000])
def test_garbage_about_a_directory_is_one_line(text: str) -> None:
    with pytest.raises(Failed, match=r"^place_output") as caught:
        directory.look(Says(text), "/data")  # type: ignore[arg-type]
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("path", ["/a\nb", "/a\x00b", "/a\x1b[31m", "/a\udcff"])
def test_unprintable_paths_are_refused_before_they_reach_a_tool(path: str) -> None:
    with pytest.raises(Unsupported, match=r"^refused"):
        directory.look(Says(json.dumps(GOOD)), path)  # type: ignore[arg-type]


def test_counters_of_a_device_are_in_bytes() -> None:
    assert directory.parse_counters("  10 0 2000 5 20 0 4000 9 0 1 1\n") == (2000 * 512, 4000 * 512)
    assert directory.parse_counters("") is None
    assert block_counters("0:45") == block_counters("../../x") == ""
    with pytest.raises(Failed, match="counters"):
        directory.parse_counters("what is this")
