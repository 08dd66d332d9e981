"""What fio's answers mean: recorded ones give exact numbers, all others one line and no number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.judge.pooling import quantile_of
from bench.measure.probe import Completed, Failed, Unsupported
from probes.storage import parse
from probes.storage import probe as storage
from probes.storage.fio import MIB, FioJob

RECORDED = Path(__file__).parents[2] / "recorded"
ASKED = {"read": 0.32, "write": 0.32}
PAIR = (FioJob("randread", 4096, 1), FioJob("write", MIB, 16))
ROUND = (RECORDED / "fio-3.33" / "round.json").read_text()


def done(text: str, status: int = 1, stderr: str = "") -> Completed:
    return Completed(("fio",), status, text, stderr, 1.0)


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def own(text: str, job: FioJob) -> dict[str, float]:
    """fio's own quantiles of a recorded job, in nanoseconds."""
    (found,) = (one for one in parse._object(text)["jobs"] if one["jobname"] == job.name)
    return dict(found[job.side]["lat_ns"]["percentile"])


def test_the_recorded_round_gives_exact_numbers_in_base_units() -> None:
    readings = parse.parse(ROUND, storage.JOBS, ASKED)
    assert list(readings) == [job.name for job in storage.JOBS]
    random = readings["randread-4k-64"]
    assert random.bytes_per_second == 503450716
    assert random.operations_per_second == 503450716 / 4096
    assert random.transferred_bytes == 161607680
    assert (random.longest_seconds, random.mean_seconds) == pytest.approx((0.004802134, 0.000519829984539))
    assert sum(count for _, count in random.latency_seconds) == 39455
    assert readings["write-1024k-16"].bytes_per_second == 3032804430


@pytest.mark.parametrize(
    ("name", "jobs", "seconds"),
    [
        ("fio-3.28/round.json", PAIR, 0.4),
        ("fio-3.33/round.json", storage.JOBS, 0.32),
        ("fio-3.42/round.txt", PAIR, 0.4),
    ],
)
def test_the_histogram_holds_the_quantiles_that_fio_says(name: str, jobs: Sequence[FioJob], seconds: float) -> None:
    """The same of every version; a quantile is never past the largest value, though fio's bucket may be."""
    readings = parse.parse(recorded(name), jobs, dict.fromkeys(("read", "write"), seconds))
    for job in jobs:
        taken, said = readings[job.name], own(recorded(name), job)
        for q, key in ((0.5, "50.000000"), (0.99, "99.000000"), (0.999, "99.900000")):
            wanted = min(said[key] / 1e9, taken.longest_seconds)
            assert quantile_of([taken.latency_seconds], q)[0] == pytest.approx(wanted)


def test_an_answer_of_before_histograms_has_the_quantiles_that_fio_says() -> None:
    """What is stored as evidence can be replayed."""
    document = json.loads(ROUND)
    for job in document["jobs"]:
        for side in ("read", "write"):
            job[side]["lat_ns"].pop("bins", None)
    readings = parse.parse(json.dumps(document), storage.JOBS, ASKED)
    for job, taken in readings.items():
        said = own(ROUND, next(one for one in storage.JOBS if one.name == job))
        for q, key in ((0.5, "50.000000"), (0.99, "99.000000"), (0.999, "99.900000")):
            wanted = min(said[key] / 1e9, taken.longest_seconds)
            assert quantile_of([taken.latency_seconds], q)[0] == pytest.approx(wanted)


def test_a_layout_says_how_many_whole_mebibytes_were_written() -> None:
    sizes = parse.parse_layout(recorded("fio-3.33/layout.json"), ["read.dat", "write.dat"])
    assert sizes == {"read.dat": 64 * MIB, "write.dat": 16 * MIB}


def changed(**fields: Any) -> str:
    """The recorded round with fields of its first job's reading side replaced."""
    document = json.loads(ROUND)
    document["jobs"][0]["read"] |= fields
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "fio_output"),
        ("fio: engine nonesuch not loadable", "fio_output"),
        (ROUND[: len(ROUND) // 2], "fio_output"),
        ("[1, 2]", "fio_output"),
        ('{"jobs": []}', "fio_output"),
        ('{"jobs": [{"jobname": "read-1024k-1"}]}', "fio_output"),
        ("{" * 100_000, "fio_output"),
        ('{"a":' * 100_000, "fio_output"),
        (recorded("fio-3.28/round.json"), "fio_output"),
        (changed(bw_bytes="fast"), "fio_output"),
        (changed(bw_bytes=-1), "fio_output"),
        (changed(bw_bytes=10**400), "fio_output"),
        (changed(bw_bytes=float("nan")), "fio_output"),
        (changed(bw_bytes=float("inf")), "fio_output"),
        (changed(lat_ns={"max": 1, "mean": 1}), "fio_output"),
        (changed(lat_ns={"max": 1, "mean": 1, "bins": {"1": 0}}), "fio_output"),
        (changed(lat_ns={"max": 1, "mean": 1, "bins": {"1.5": 1}}), "fio_output"),
        (changed(lat_ns={"max": 1, "mean": 1, "bins": {"9" * 40: 1}}), "fio_output"),
        (changed(io_bytes=0), "fio_empty"),
        (changed(bw_bytes=0), "fio_empty"),
        (changed(runtime=280), "fio_short"),
        (ROUND.replace('"error" : 0', '"error" : 5', 1), "fio_error"),
        (recorded("fio-3.33/no_space.txt"), "fio_output"),
        (recorded("fio-3.33/terminated.txt"), "fio_"),
    ],
)
def test_what_did_not_run_right_is_one_line_and_no_number(text: str, word: str) -> None:
    with pytest.raises(Failed) as caught:
        parse.parse(text, storage.JOBS, ASKED)
    assert caught.value.reason.startswith(word)
    assert "\n" not in caught.value.reason and len(caught.value.reason) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(JSON, st.text(max_size=20))
def test_no_json_whatever_raises_anything_but_failed(value: Any, before: str) -> None:
    with pytest.raises(Failed):
        parse.parse(before + json.dumps(value), storage.JOBS, ASKED)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damaged_answer_raises_anything_but_failed(data: st.DataObject) -> None:
    document: Any = json.loads(recorded("fio-3.28/round.json"))
    node: Any = document["jobs"]
    for _ in range(data.draw(st.integers(1, 4))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not keys:
            break
        parent, key = node, data.draw(st.sampled_from(keys))
        node = parent[key]
        if data.draw(st.booleans()) or not isinstance(node, dict | list):
            parent[key] = data.draw(JSON)
            break
    try:
        readings = parse.parse(json.dumps(document), PAIR, {"read": 0.4, "write": 0.4})
    except Failed as error:
        assert "\n" not in error.reason
    else:
        assert all(reading.bytes_per_second > 0 for reading in readings.values())


def test_an_error_counts_whatever_the_figures_say() -> None:
    with pytest.raises(Unsupported, match=r"^no_space: /data: No space left on device$"):
        parse.refuse_failed(done(recorded("fio-3.33/no_space.txt"), 2), "/data")
    with pytest.raises(Unsupported, match=r"^no_space"):  # even with status 0
        parse.refuse_failed(done(recorded("fio-3.33/no_space.txt"), 0), "/data")
    with pytest.raises(Failed, match=r"^fio_failed: /data: .*status 128"):
        parse.refuse_failed(done(recorded("fio-3.33/terminated.txt"), 128), "/data")
    with pytest.raises(Failed, match="Input/output error"):
        parse.refuse_failed(done(ROUND.replace('"error" : 0', '"error" : 5', 1), 1), "/data")
    parse.refuse_failed(done(ROUND, 0), "/data")


def test_a_refused_engine_is_told_from_a_failed_one() -> None:
    assert parse.refused(done(recorded("fio-3.33/refused.txt")))
    assert parse.refused(done("", 1, "fio: engine libaio not loadable\nfio: failed to load engine"))
    assert not parse.refused(done(recorded("fio-3.33/no_space.txt"), 2))
    assert not parse.refused(done(ROUND, 0))


@pytest.mark.parametrize(
    ("text", "version"), [("fio-3.33\n", (3, 33)), ("fio-3.42-6-g219f", (3, 42)), ("fio-3.28", (3, 28))]
)
def test_versions(text: str, version: tuple[int, int]) -> None:
    assert parse.version_of(text) == version


@pytest.mark.parametrize("text", ["", "fio 3.33", "bash: fio: command not found", "fio-99999.1"])
def test_something_else_that_answers_is_not_fio(text: str) -> None:
    with pytest.raises(Failed, match="fio_output"):
        parse.version_of(text)
