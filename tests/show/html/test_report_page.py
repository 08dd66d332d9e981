"""The page: what stands on it, what does not, how large it is, and that a hostile run stays text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.model import Measurement, Outcome, ProbeResult, Run, Series
from bench.show.html.page import PICTURES, Shown, render
from bench.show.html.plots.timelines import MetricHistory
from bench.show.terminal.lineage import explain
from bench.show.text import clean
from tests.cli.bench import bench
from tests.show.export.sample import HOSTILE, good, hostile, starved, stored
from tests.show.export.test_export_formats import RUNS
from tests.show.terminal.sample import measurement

each_run = pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
DATA = Path(__file__).parents[2] / "data"


def history() -> tuple[MetricHistory, ...]:
    values = tuple(1e9 + 1e7 * (n % 3) for n in range(20))
    return (MetricHistory("storage read", "storage_read_bytes_per_second", values, 1.01e9, 0.95e9, 0.9e9, 2.1e9),)


def full(make: Callable[[], Run] = starved) -> Run:
    """The sample run with everything that a picture is drawn from."""
    run = make()
    feed = [measurement("inference_samples_per_second", rate, stage=stage, path="/data")
            for stage, rate in (("resident", 1000.0), ("transfer", 950.0), ("preprocess", 700.0), ("fetch", 400.0),
                                ("storage", 330.0))]  # fmt: skip
    times = [measurement("network_round_trip_seconds", value, state=state, statistic=quantile, peer="node-2")
             for state, factor in (("idle", 1.0), ("loaded", 20.0))
             for quantile, value in (("p50", 1e-4 * factor), ("p99", factor / 3e3), ("max", factor / 1e3))]  # fmt: skip
    serve = [
        measurement("inference_tokens_per_second", 900.0, stage="decode", batch="8"),
        *(measurement(name, value, 0.01, stage=stage)
          for stage, rate, kept in (("serve", 10.0, 0.99), ("serve2", 20.0, 0.7))
          for name, value in (("inference_offered_requests_per_second", rate), ("inference_goodput_ratio", kept))),
    ]  # fmt: skip
    seconds = tuple(n / 10 for n in range(900))
    line = tuple(1e8 + (n % 50) * 1e6 for n in range(900))
    series = (
        Series(
            metric="feed_consumed_bytes_per_second", labels={"stage": "feed.storage.1"}, seconds=seconds, values=line
        ),
        Series(
            metric="accelerator_utilization_ratio", labels={"device": "0"}, seconds=(0, 1, 2), values=(0.1, 0.9, 0.5)
        ),
        Series(metric="network_round_trip_seconds", labels={"state": "idle"}, seconds=(0, 1), values=(1e-4, 2e-4)),
    )
    extra = ProbeResult(probe="feed", outcome=Outcome.OK, measurements=(*feed, *times, *serve), series=series)
    results = tuple(r for r in run.results if r.probe != "feed")
    return run.model_copy(update={"results": (*results, extra)})


def page(run: Run, **values: object) -> str:
    return render([Shown(run, explain(run), **values)], "1.2.3")  # type: ignore[arg-type]


@each_run
def test_a_page_loads_nothing_and_runs_nothing(make: Callable[[], Run]) -> None:
    found = page(make())
    assert "default-src 'none'" in found
    assert not re.findall(r"<(script|iframe|object|embed|img|base|form)\b", found, re.I)
    assert not re.findall(r"<[^>]*\son\w+\s*=", found)
    outside = re.findall(r"""(?:\s(?:href|src|action)="|url\()(?!#)([^")]+)""", found)
    assert not outside


def test_every_picture_is_drawn_for_a_full_run() -> None:
    found = page(full(), history=history())
    assert [heading for heading in PICTURES if f"<figure><h2>{heading}</h2>" not in found] == []
    assert found.count("<figure>") == found.count("</figcaption></figure>") == len(PICTURES)
    assert "Not drawn" not in found


def test_what_was_not_measured_is_named_and_never_drawn() -> None:
    run = good().model_copy(update={"results": (), "attribution": None})
    found = page(run)
    assert "<svg " not in found
    assert f"Not drawn, because it was not measured: {', '.join(PICTURES)}." in found
    assert "No probe watched a GPU" in found


@each_run
def test_hostile_text_is_text(make: Callable[[], Run]) -> None:
    found = page(full(make), history=history())
    assert not [c for c in (*map(chr, range(9)), "\x1b", "\x9b", "\u202e") if c in found]
    if make is hostile:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in found


def test_hostile_labels_in_pictures_are_text() -> None:
    bad = measurement("network_round_trip_seconds", 0.001, state="$\\frac{1}{0}$", statistic="p99", peer=HOSTILE)
    run = good()
    extra = ProbeResult(probe="network", outcome=Outcome.OK, measurements=(bad,))
    found = page(run.model_copy(update={"results": (*run.results, extra)}))
    assert "$\\frac{1}{0}$" in found
    assert "<script" not in found


def test_the_waterfall_shows_the_parts_of_the_contract() -> None:
    found = page(full())
    for part, share in (("copy", 5.0), ("decoding", 25.0), ("storage", 30.0), ("loader (one after the other)", 7.0)):
        assert f"{part} costs {share:.1f} %" in found
    assert "Most is lost to storage: 30 % of what the accelerator could consume." in found


def test_each_profile_says_what_decided_it_and_each_gate_stands_once() -> None:
    run = starved()
    found = page(run)
    top = found[: found.index("<figure>")]
    assert [top.count(f'<b class="{v.decision}">{v.decision}</b>') for v in run.verdicts] == [1, 1, 1]
    assert "2 of 7 gates fail: waiting for storage 66 %, and 1 more" in top
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?) <span.*?</td><td>(.*?)</td>", top)
    assert ("waiting for storage", "66 % emulated", "≤ 10 %") in rows
    assert len(rows) == len(set(rows))
    assert "1 of 1 pass" in page(good())


def test_a_full_run_stays_under_400_kb() -> None:
    run = full()
    host = [
        Measurement(metric="host_cpu_busy_ratio", value=0.5, interval=(0.4, 0.6), samples=9,
                    labels={"stage": f"s{n}", "x": str(k)})
        for n in range(20) for k in range(40)
    ]  # fmt: skip
    results = (*run.results, ProbeResult(probe="host", outcome=Outcome.OK, measurements=tuple(host)))
    found = page(run.model_copy(update={"results": results}), history=history() * 8)
    assert len(found.encode()) < 400_000


def test_several_runs_stand_side_by_side() -> None:
    slow = starved()
    node = slow.node.model_copy(update={"hostname": "other", "facts": {**slow.node.facts, "kernel": "6.9.9"}})
    read = slow.results[0].measurements[0]
    fast = read.model_copy(update={"value": 3 * read.value, "interval": (2.9 * read.value, 3.1 * read.value)})
    result = slow.results[0].model_copy(update={"measurements": (fast, *slow.results[0].measurements[1:])})
    other = slow.model_copy(update={"id": "second", "node": node, "results": (result, *slow.results[1:])})
    found = render([Shown(slow), Shown(other)], "1")
    top = found[: found.index('<section class="run">')]
    assert "6.9.9" in top
    assert "6.1.0" in top
    assert top.count("<b class=") == 6
    rows = re.findall(r"<tr><td>(storage [^<]*)</td>", top)
    assert rows == ["storage read (1 MiB, sequential, deep)"], "only what differs by more than its intervals"


@pytest.mark.slow
def test_a_whole_answer_is_put_together_from_network_and_model() -> None:
    run = full()
    tokens = [measurement("inference_first_token_seconds", value, 0.01, stage="serve", statistic=quantile)
              for quantile, value in (("p50", 0.05), ("p99", 0.3), ("max", 0.4))]  # fmt: skip
    extra = ProbeResult(probe="inference", outcome=Outcome.OK, measurements=tuple(tokens))
    found = page(run.model_copy(update={"results": (*run.results, extra)}))
    row = re.search(r"<tr><td>first token</td>(.*?)</tr>", found)
    assert row is not None
    assert "network " in row[1]
    assert "Network or model was not measured" in page(full(good).model_copy(update={"results": ()}))


def test_history_shows_band_limit_and_the_smallest_visible_drop() -> None:
    found = page(good(), history=history())
    assert "a drop to there would be seen with 80 % power" in found
    assert re.search(r'<rect class="band" y="[\d.]+" width="1000" height="[1-9]', found)
    assert '<path class="warn line"' in found
    assert "the limit, 2.1 GB/s, is far away" in found


@pytest.mark.slow
def test_the_command_writes_the_newest_run(results: Path, tmp_path: Path) -> None:
    stored(results, starved())
    target = tmp_path / "r.html"
    done = bench("report", "-o", target, "--results", results, cwd=results)
    assert (done.returncode, done.stdout) == (0, "")
    assert "NO-GO" in target.read_text()
    missing = bench("report", "nothing", "-o", target, "--results", results, cwd=results)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


@pytest.mark.slow
def test_history_comes_from_the_nodes_own_nights(results: Path, tmp_path: Path) -> None:
    run = good()
    for night in range(1, 12):
        stored(results, run.model_copy(update={"id": f"n{night}", "started_at": f"2026-11-{night:02d}T02:00:00Z"}))
    target = tmp_path / "r.html"
    done = bench("report", "-o", target, "--results", results, cwd=results)
    assert done.returncode == 0, done.stderr
    assert "<h2>History of the gating metrics</h2>" in target.read_text()
    assert clean(done.stderr).startswith(clean(str(target)))


@pytest.mark.slow
def test_compare_writes_the_page_with_its_own_judgement_of_noise(results: Path, tmp_path: Path) -> None:
    slow = starved()
    stored(results, slow)
    read = slow.results[0].measurements[0]
    fast = read.model_copy(update={"value": 3 * read.value, "interval": (2.9 * read.value, 3.1 * read.value)})
    result = slow.results[0].model_copy(update={"measurements": (fast, *slow.results[0].measurements[1:])})
    other = {"id": "second", "started_at": "2026-11-23T10:51:03Z", "results": (result, *slow.results[1:])}
    stored(results, slow.model_copy(update=other))
    target = tmp_path / "c.html"
    done = bench("compare", slow.id, "second", "-o", target, "--results", results, cwd=results)
    assert done.returncode == 0, done.stderr
    top = target.read_text().partition('<section class="run">')[0]
    assert "<td>+200.0 %</td><td>better</td>" in top
    assert len(re.findall(r"<td>(?:better|worse|different)</td>", top)) == 1
