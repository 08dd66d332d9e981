"""What every probe keeps, whatever it measures: names, units, help, and an outcome for each way its tools can fail."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import probes
from bench.measure.probe import Call, Completed, Context, Failed, Probe, ProbeError, TimedOut, Tools, Unsupported
from bench.model import Effort, Measurement, Outcome, ProbeResult, Request
from bench.workflows.catalog import declared
from bench.workflows.request import OWN_OPTIONS
from probes import discover

PROBES = discover()
MEASURING = [probe for probe in PROBES if probe.measure]
WATCHING = [probe for probe in PROBES if probe.watch]
GARBAGE = [
    "",
    "{",
    "null",
    "[]",
    "{}",
    '{"error": "the server is busy"}',
    '{"jobs": []}',
    '{"end": {}, "start": {}}',
    '{"event": "result"}\n{"event": "ready"}\n',
    "\x00\x1b[31m\ufffd" * 50,
    '{"jobs": [{"read": {"bw_bytes": NaN}}]}',
    "[" * 5000,
    "<html>502 Bad Gateway</html>\n",
]
SERVICE = '[{"name": "a", "url": "http://127.0.0.1:9"}]'


class ScriptedTools(Tools):
    """A door behind which every tool answers the same, or raises the same."""

    def __init__(self, text: str = "", error: ProbeError | None = None, missing: bool = False) -> None:
        self.text, self.error, self.missing = text, error, missing

    def require(self, tool: str) -> str:
        if self.missing:
            raise Unsupported.told(f"tool_missing: {tool} is not installed", f"apt-get install {tool}")
        return tool

    def call(self, call: Call) -> Completed:
        self.require(call.argv[0])
        if self.error is not None:
            raise self.error
        for line in self.text.splitlines() if call.on_line is not None else ():
            call.on_line(line)  # type: ignore[misc]
        return Completed(call.argv, 0, self.text, "", 0.1)

    @contextmanager
    def serve(self, argv: Sequence[str | Path], *, name: str, ready: str, timeout: float) -> Iterator[str]:
        yield self.run(argv, name=name, timeout=timeout).stdout.partition("\n")[0]

    def record(self, name: str, text: str) -> str:
        return self.text

    def sleep(self, seconds: float) -> None:
        return None


def context(probe: Probe, tools: ScriptedTools, folder: Path, accelerator: str = "cpu") -> Context:
    request = Request(effort=Effort.QUICK, probes=(), storage=(str(folder),), peers=("127.0.0.1",),
                      accelerator=accelerator, options={"expectation": '{"gpus": {"count": 1}}', "checks": "c.toml",
                                                        "data": str(folder), "endpoint": "http://[::1]:9",
                                                        "service": SERVICE})  # fmt: skip
    return Context(
        probe=probe,
        request=request,
        tools=tools,
        seconds=1.0,
        remaining=lambda: 30.0,
        workspace=lambda directory, need: nullcontext(folder),
        stage=lambda _: nullcontext(),
        progress=lambda text, fraction: None,
    )


def outcome_of(probe: Probe, tools: ScriptedTools, folder: Path) -> Outcome:
    """Measure; the outcome. Anything but a ProbeError or sound measurements is the test's failure."""
    assert probe.measure is not None
    ctx = context(probe, tools, folder)
    try:
        measurements: Sequence[Measurement] = probe.measure(ctx)
    except ProbeError as error:
        assert ": " in error.reason
        assert error.reason.partition(":")[0].replace("_", "").isalnum()
        assert "\n" not in error.reason
        return error.outcome
    declared = {metric.name for metric in probe.metrics}
    assert {measurement.metric for measurement in measurements} <= declared
    return Outcome.OK if measurements else Outcome.FAILED


def ids(probe: Probe) -> str:
    return probe.name


def test_there_are_the_probes_of_the_contract() -> None:
    assert {"storage", "network", "inference", "feed", "gpu", "host"} <= {probe.name for probe in PROBES}


@pytest.mark.parametrize("probe", PROBES, ids=ids)
def test_it_says_what_it_is(probe: Probe) -> None:
    assert len(probe.help) > 20
    assert probe.metrics
    assert set(probe.seconds) == set(Effort)
    for metric in probe.metrics:
        assert len(metric.help) > 10, metric.name
        assert metric.name.islower()
        assert (metric.session_spread is None) is (not metric.session_source), metric.name


@pytest.mark.parametrize("probe", MEASURING, ids=ids)
def test_an_absent_tool_is_no_failure_of_ours(probe: Probe, tmp_path: Path) -> None:
    assert outcome_of(probe, ScriptedTools(missing=True), tmp_path) in (Outcome.UNSUPPORTED, Outcome.FAILED)


@pytest.mark.parametrize("probe", MEASURING, ids=ids)
def test_a_tool_that_hangs_is_a_time_out(probe: Probe, tmp_path: Path) -> None:
    tools = ScriptedTools(error=TimedOut.told("tool_timed_out: it did not end within 1 s"))
    assert outcome_of(probe, tools, tmp_path) in (Outcome.TIMED_OUT, Outcome.UNSUPPORTED)


@pytest.mark.parametrize("probe", MEASURING, ids=ids)
def test_a_tool_that_fails_is_a_failure(probe: Probe, tmp_path: Path) -> None:
    tools = ScriptedTools(error=Failed.told("tool_failed: it could not be started"))
    assert outcome_of(probe, tools, tmp_path) in (Outcome.FAILED, Outcome.UNSUPPORTED)


@pytest.mark.parametrize("text", GARBAGE)
@pytest.mark.parametrize("probe", MEASURING, ids=ids)
def test_garbage_is_never_a_figure(probe: Probe, text: str, tmp_path: Path) -> None:
    assert outcome_of(probe, ScriptedTools(text), tmp_path) is not Outcome.OK


@pytest.mark.parametrize("samples", [[], [{}], [{"t": 0.0, "stage": "idle", "event": "tick"}] * 3])
@pytest.mark.parametrize("probe", WATCHING, ids=ids)
def test_a_watcher_without_samples_measures_nothing(
    probe: Probe, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert probe.parse is not None
    try:
        measurements = probe.parse(samples, context(probe, ScriptedTools(), tmp_path))
    except ProbeError:
        return
    assert not measurements


@pytest.mark.parametrize("probe", PROBES, ids=ids)
def test_its_metrics_go_through_json_unchanged(probe: Probe) -> None:
    made = [
        Measurement(metric=m.name, value=0.1 + 0.2, interval=(0.1, 1e300), samples=5, repeats=(0.1, 0.3))
        for m in probe.metrics
    ]
    result = ProbeResult(probe=probe.name, outcome=Outcome.OK, measurements=tuple(made))
    assert ProbeResult.model_validate(json.loads(result.model_dump_json())) == result


def read_options(source: Path) -> set[str]:
    """The options that a file of a probe reads by name."""
    calls = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "option"]
    words = [argument.value for call in named for argument in call.args if isinstance(argument, ast.Constant)]
    return {word for word in words if isinstance(word, str)}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probe_declares_each_option_that_it_reads(probe: Probe, tmp_path: Path) -> None:
    folder = Path(probes.__path__[0])
    sources = [*folder.glob(f"{probe.name}/**/*.py"), *folder.glob(f"{probe.name}.py")]
    assert sources
    options = [option.name for option in probe.options]
    assert set().union(*map(read_options, sources)) <= set(options)
    assert len(options) == len(set(options))
    with pytest.raises(KeyError, match="declares no option"):
        context(probe, ScriptedTools(), tmp_path).option("none-such")


def test_what_probes_share_reads_only_what_the_network_declares() -> None:
    network = next(probe for probe in PROBES if probe.name == "network")
    for source in [*Path(probes.__path__[0]).glob("peer/*.py"), *Path(probes.__path__[0]).glob("common/*.py")]:
        assert read_options(source) <= {option.name for option in network.options}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_an_option_is_described_and_its_name_is_not_the_run_s_own(probe: Probe) -> None:
    for option in probe.options:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", option.name)
        assert option.name not in OWN_OPTIONS
        assert option.help.strip() and "\n" not in option.help
        assert option.default is None or option.value(f"{option.default}") == option.default
        for text in option.choices:
            assert option.value(text) == text


def test_the_decodes_are_those_that_the_load_knows() -> None:
    from probes.feed.load.reader import DECODES

    for name in DECODES:
        assert dict(declared().options())["feed.decode"].value(name.replace("SECONDS", "0.001"))
