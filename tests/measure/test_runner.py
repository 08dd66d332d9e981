"""The runner, with probes made for the purpose and real processes below them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.judge.pooling import LOOKS
from bench.measure.probe import Context, Failed, Probe, Progress, Skipped, TimedOut, Unsupported
from bench.measure.recording import Recording
from bench.measure.runner import RunPlan, execute
from bench.model import Effort, Measurement, Metric, Node, Outcome, Request, Run

SPEED = Metric(name="speed_bytes_per_second", help="h", labels=("path",), better="higher")
HEAT = Metric(name="heat_celsius", help="h", labels=("stage",))


def measured(*values: float, **labels: str) -> Measurement:
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return Measurement(
        metric=SPEED.name, value=middle, interval=(ordered[0], ordered[-1]), samples=len(values), repeats=values,
        labels=labels,
    )  # fmt: skip


def probe(name: str, measure: Any, **extra: Any) -> Probe:
    return Probe(name=name, help="h", metrics=(SPEED,), seconds=dict.fromkeys(Effort, 1.0), measure=measure, **extra)


def plan(folder: Path, *probes: Probe, **extra: Any) -> RunPlan:
    request = Request(effort=Effort.QUICK, probes=tuple(p.name for p in probes))
    node = Node(hostname="h", fingerprint="f")
    return RunPlan(id="r1", request=request, probes=probes, node=node, evidence=folder / "r1.raw", **extra)


def outcomes(run: Run) -> dict[str, str]:
    return {result.probe: result.outcome.value for result in run.results}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Failed.told("broken: it broke"), Outcome.FAILED),
        (Unsupported.told("tool_missing: no fio", "apt-get install fio"), Outcome.UNSUPPORTED),
        (Skipped.told("not_asked_for: no"), Outcome.SKIPPED),
        (TimedOut.told("tool_timed_out: late"), Outcome.TIMED_OUT),
        (ZeroDivisionError("division by zero"), Outcome.FAILED),
        (RecursionError("deep"), Outcome.FAILED),
    ],
)
def test_every_exception_is_an_outcome_and_loses_nothing(tmp_path: Path, error: Exception, outcome: Outcome) -> None:
    def breaks(_: Context) -> Sequence[Measurement]:
        raise error

    run = execute(plan(tmp_path, probe("first", lambda _: [measured(1)]), probe("second", breaks, order=60)))
    assert outcomes(run) == {"first": "ok", "second": outcome.value}
    assert run.results[1].reason
    assert run.results[1].remedy == getattr(error, "remedy", None)
    assert run.results[0].measurements


def test_a_probe_without_a_figure_is_not_ok(tmp_path: Path) -> None:
    run = execute(plan(tmp_path, probe("empty", lambda _: [])))
    assert outcomes(run) == {"empty": "failed"}


def test_light_probes_run_before_heavy_ones(tmp_path: Path) -> None:
    order: list[str] = []

    def note(name: str) -> Any:
        def measure(_: Context) -> Sequence[Measurement]:
            order.append(name)
            return [measured(1)]

        return measure

    execute(plan(tmp_path, probe("heavy", note("heavy"), order=90), probe("light", note("light"), order=10)))
    assert order == ["light", "heavy"]


@pytest.mark.slow
def test_a_probe_that_uses_up_its_time_is_timed_out(tmp_path: Path) -> None:
    def late(context: Context) -> Sequence[Measurement]:
        context.tools.run(["sleep", "600"], name="sleep", timeout=600)
        return [measured(1)]

    run = execute(plan(tmp_path, probe("late", late), probe("after", late, order=60), max_seconds=1.0))
    assert outcomes(run) == {"late": "timed_out", "after": "timed_out"}


@pytest.mark.slow
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_finished(tmp_path: Path, sig: signal.Signals) -> None:
    def waits(context: Context) -> Sequence[Measurement]:
        threading.Timer(0.3, os.kill, (os.getpid(), sig)).start()
        context.tools.run(["sleep", "600"], name="sleep", timeout=600)
        return [measured(1)]

    run = execute(
        plan(
            tmp_path,
            probe("done", lambda _: [measured(1)]),
            probe("hit", waits, order=60),
            probe("never", waits, order=70),
        )
    )
    assert run.interrupted_by == sig
    assert outcomes(run) == {"done": "ok", "hit": "failed", "never": "skipped"}
    assert all(f"interrupted: {sig.name}" == result.reason for result in run.results[1:])


def test_raw_output_is_kept_with_its_digest(tmp_path: Path) -> None:
    import hashlib

    def runs(context: Context) -> Sequence[Measurement]:
        done = context.tools.run(["echo", "42", "--password=hunter2"], name="echo", timeout=60)
        return [measured(float(done.stdout.split()[0]))]

    run = execute(plan(tmp_path, probe("p", runs)))
    (evidence,) = run.results[0].evidence
    data = (tmp_path / evidence.path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == evidence.sha256
    index = (tmp_path / "r1.raw" / "tools.jsonl").read_text()
    assert "hunter2" not in index


def test_a_replay_gives_the_same_figures_without_a_process(tmp_path: Path) -> None:
    def runs(context: Context) -> Sequence[Measurement]:
        with context.tools.serve(["sh", "-c", "echo ready; exec sleep 60"], name="srv", ready="ready", timeout=60):
            lines: list[str] = []
            context.tools.run(["date", "+%N\n7"], name="date", timeout=60, on_line=lines.append)
        return [measured(float(lines[0]), float(lines[1]))]

    first = execute(plan(tmp_path, probe("p", runs)))
    again = execute(plan(tmp_path / "second", probe("p", runs), replay=Recording(tmp_path / "r1.raw"), replay_of="r1"))
    assert again.results[0].measurements == first.results[0].measurements
    assert again.replay_of == "r1"


def test_a_replay_without_the_output_is_skipped_not_guessed(tmp_path: Path) -> None:
    def runs(context: Context) -> Sequence[Measurement]:
        context.tools.run(["true"], name="one", timeout=60)
        return [measured(1)]

    execute(plan(tmp_path, probe("p", runs)))
    other = probe("q", runs)
    run = execute(plan(tmp_path / "second", other, replay=Recording(tmp_path / "r1.raw")))
    assert outcomes(run) == {"q": "skipped"}


@pytest.mark.parametrize("text", ["{", '{"probe": "p"}', "[1]", "\udcff"])
def test_a_spoilt_recording_is_one_line(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "x.raw"
    folder.mkdir()
    (folder / "tools.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Failed, match="replay_unusable") as caught:
        Recording(folder)
    assert "\n" not in caught.value.reason


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def edited(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "spoil", "said"),
    [
        ("0001-p-one.txt", pipe, "is no regular file"),
        ("0001-p-one.txt", device, "is no regular file"),
        ("tools.jsonl", pipe, "tools.jsonl: is no regular file"),
        ("tools.jsonl", edited('"returncode": 0', '"returncode": "0"'), "tools.jsonl:1"),
        ("tools.jsonl", edited('"argv": [', '"argv": 5, "x": ['), "tools.jsonl:1"),
        ("tools.jsonl", edited('"error": null', '"error": "odd"'), "odd"),
    ],
)
def test_raw_output_that_is_a_pipe_or_says_nonsense_is_one_line(
    tmp_path: Path, file: str, spoil: Callable[[Path], object], said: str
) -> None:
    def runs(context: Context) -> Sequence[Measurement]:
        context.tools.run(["true"], name="one", timeout=60)
        return [measured(1)]

    execute(plan(tmp_path, probe("p", runs)))
    spoil(tmp_path / "r1.raw" / file)
    try:
        recording = Recording(tmp_path / "r1.raw")
    except Failed as error:
        assert said in error.reason and "\n" not in error.reason
        return
    (result,) = execute(plan(tmp_path / "second", probe("p", runs), replay=recording)).results
    assert result.outcome == "failed" and result.reason and said in result.reason


class Thermometer:
    def __init__(self, fails_at: int | None = None) -> None:
        self.count = 0
        self.closed = False
        self.fails_at = fails_at

    def sample(self, event: str) -> Mapping[str, Any]:
        assert not self.closed, f"sampled ({event}) after it was closed"
        self.count += 1
        if self.count == self.fails_at:
            raise Failed.told("lost: it fell off")
        return {"heat": 40.0 + self.count}

    def close(self) -> None:
        self.closed = True


def watcher(watch: Thermometer) -> Probe:
    def parse(samples: Sequence[Mapping[str, Any]], _: Context) -> Sequence[Measurement]:
        hot = [s["heat"] for s in samples if s["stage"] == "busy"]
        return [Measurement(metric=HEAT.name, value=hot[-1], interval=(hot[0], hot[-1]), samples=len(hot))]

    return Probe(
        name="thermo", help="h", metrics=(HEAT,), seconds=dict.fromkeys(Effort, 0.0), watch=lambda _: watch, parse=parse
    )


def busy(context: Context) -> Sequence[Measurement]:
    with context.stage("busy"):
        context.tools.sleep(1.2)
    return [measured(1)]


@pytest.mark.slow
def test_a_watcher_sees_both_ends_of_a_stage_and_is_closed(tmp_path: Path) -> None:
    watch = Thermometer()
    run = execute(plan(tmp_path, probe("p", busy), watcher(watch)))
    assert watch.closed
    events = [json.loads(line) for line in next((tmp_path / "r1.raw").glob("*samples*")).read_text().splitlines()]
    of_busy = [event["event"] for event in events if event["stage"] == "busy"]
    assert of_busy[0] == "begin"
    assert of_busy[-1] == "end"
    assert "tick" in of_busy
    assert run.find(HEAT.name)[0].samples == len(of_busy)
    assert {event["stage"] for event in events} <= {"idle", "p", "busy"}, "its own parsing is no stage of the run"


@pytest.mark.slow
def test_a_watcher_is_replayed_from_its_samples(tmp_path: Path) -> None:
    first = execute(plan(tmp_path, probe("p", busy), watcher(Thermometer())))
    again = execute(plan(tmp_path / "b", watcher(Thermometer()), replay=Recording(tmp_path / "r1.raw")))
    assert again.find(HEAT.name) == first.find(HEAT.name)


@pytest.mark.slow
def test_a_watcher_that_falls_ill_keeps_what_it_saw(tmp_path: Path) -> None:
    run = execute(plan(tmp_path, probe("p", busy), watcher(Thermometer(fails_at=5))))
    thermo = next(result for result in run.results if result.probe == "thermo")
    assert thermo.outcome is Outcome.OK
    assert any("lost" in warning for warning in thermo.warnings)


def test_a_watcher_that_raises_anything_costs_itself_and_nothing_else(tmp_path: Path) -> None:
    """What was no error of a probe, and any at its close, ended the run with nothing stored."""

    class Broken(Thermometer):
        def sample(self, event: str) -> Mapping[str, Any]:
            if self.count == 2:
                raise KeyError(event)
            return super().sample(event)

        def close(self) -> None:
            raise OSError("gone")

    run = execute(plan(tmp_path, probe("p", lambda _: [measured(1)]), watcher(Broken())))
    assert [result.outcome for result in run.results if result.probe == "p"] == [Outcome.OK]


def test_what_straddles_is_measured_again_and_pooled(tmp_path: Path) -> None:
    rounds: list[int] = []

    def measure(_: Context) -> Sequence[Measurement]:
        rounds.append(1)
        return [measured(*([90.0, 100.0, 110.0] if len(rounds) == 1 else [99.0, 100.0, 101.0, 100.0] * 2), path="/x")]

    run = execute(plan(tmp_path, probe("p", measure), again=lambda run: ["p"] if len(rounds) < 2 else []))
    (pooled,) = run.measurements()
    assert len(rounds) == 2
    assert pooled.samples == len(pooled.repeats) == 11
    assert pooled.interval[0] > 90.0


def rounds_of(*rounds: Any) -> Any:
    """A probe's ``measure`` that gives, or raises, one of these after the other, the last one for good."""
    left = list(rounds)

    def measure(_: Context) -> Sequence[Measurement]:
        one = left.pop(0) if left[1:] else left[0]
        if isinstance(one, Exception):
            raise one
        return [one]

    return measure


def doubted(value: float) -> Measurement:
    return measured(value).model_copy(update={"invalid": "contended: make"})


def unless_valid(run: Run) -> list[str]:
    return ["p"] if not run.measurements() or any(m.invalid for m in run.measurements()) else []


@pytest.mark.slow
def test_what_was_invalid_is_measured_again_and_replaced(tmp_path: Path) -> None:
    """An invalid figure was never tried again, and pooled with a good one it stayed invalid."""
    run = execute(plan(tmp_path, probe("p", rounds_of(doubted(1), measured(5))), again=unless_valid))
    (found,) = run.measurements()
    assert (found.value, found.invalid) == (5, None)


@pytest.mark.slow
def test_an_invalid_round_does_not_pollute_a_valid_one(tmp_path: Path) -> None:
    run = execute(plan(tmp_path, probe("p", rounds_of(measured(5), doubted(1))), again=lambda _: ["p"]))
    (found,) = run.measurements()
    assert (found.repeats, found.invalid) == ((5,), None)


@pytest.mark.slow
def test_a_probe_that_failed_for_a_passing_reason_is_ok_when_it_works(tmp_path: Path) -> None:
    measure = rounds_of(Failed.told("peer_busy: another test runs there"), measured(5))
    run = execute(plan(tmp_path, probe("p", measure), again=unless_valid))
    assert outcomes(run) == {"p": "ok"}
    assert run.measurements()[0].value == 5
    assert any("peer_busy" in warning for warning in run.results[0].warnings)


@pytest.mark.slow
@pytest.mark.parametrize("one", [doubted(1), Failed.told("peer_busy: another test runs there")])
def test_what_never_gets_valid_is_tried_a_bounded_number_of_times(tmp_path: Path, one: Any) -> None:
    heard: list[Progress] = []
    run = execute(plan(tmp_path, probe("p", rounds_of(one)), again=unless_valid, listen=heard.append))
    assert sum(note.ended is not None for note in heard) == LOOKS
    assert not run.measurements() or run.measurements()[0].invalid


@pytest.mark.slow
def test_a_busy_node_is_not_measured_again_but_looked_at(tmp_path: Path) -> None:
    looks = [("disk vda",), ("processors 90 % busy",), ()]
    made = probe("p", rounds_of(measured(1), measured(5)))
    run = execute(plan(tmp_path, made, wait=lambda: ("make",), again=unless_valid, look=lambda: looks.pop(0)))
    assert [(m.value, m.invalid) for m in run.measurements()] == [(5, None)]
    (warning,) = run.results[0].warnings
    assert "processors 90 % busy" in warning, "and not each look before it"


@pytest.mark.slow
def test_a_probe_pools_what_follows_from_others_itself(tmp_path: Path) -> None:
    def pool(rounds: Sequence[Sequence[Measurement]]) -> Sequence[Measurement]:
        return [measured(*(one.value for (one,) in rounds), path="pooled")]

    made = probe("p", rounds_of(measured(1), measured(2), measured(3)), pool=pool)
    run = execute(plan(tmp_path, made, again=lambda run: ["p"] if run.measurements()[0].samples < 3 else []))
    (found,) = run.measurements()
    assert (found.repeats, found.labels) == ((1, 2, 3), {"path": "pooled"})


@pytest.mark.slow
def test_another_round_is_made_only_while_it_fits(tmp_path: Path) -> None:
    made = probe("p", rounds_of(measured(1)))
    run = execute(plan(tmp_path, made, again=lambda _: ["p"], repeat_seconds=0.0))
    assert run.measurements()[0].repeats == (1,)


@pytest.mark.slow
def test_a_failed_repetition_spoils_nothing(tmp_path: Path) -> None:
    rounds: list[int] = []

    def measure(_: Context) -> Sequence[Measurement]:
        rounds.append(1)
        if len(rounds) > 1:
            raise Failed.told("broken: the second time")
        return [measured(1, 2, 3)]

    run = execute(plan(tmp_path, probe("p", measure), again=lambda _: ["p"]))
    assert outcomes(run) == {"p": "ok"}
    assert any("the second time" in warning for warning in run.results[0].warnings)


@pytest.mark.slow
def test_progress_tells_start_and_end_of_each_probe(tmp_path: Path) -> None:
    heard: list[Progress] = []
    execute(plan(tmp_path, probe("a", lambda _: [measured(1)]), probe("b", busy, order=60), listen=heard.append))
    ended = [note.probe for note in heard if note.ended is not None]
    assert ended == ["a", "b"]
    assert time.monotonic() > 0
