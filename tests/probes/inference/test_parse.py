"""The inference probe's parsing: every unit, label, interval and refusal, from events as the load prints them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from bench.measure.probe import Completed, Context, Failed, ProbeError, TimedOut, Unsupported
from bench.model import Effort, Measurement, Request
from probes.common.pipe import Record
from probes.inference import parse as parsing
from probes.inference import probe as inference
from probes.inference.events import DeviceFacts, Window, read

Line = dict[str, Any]
CPU = {"event": "device", "kind": "cpu", "index": 0, "shape": "nano", "stand_in": "cpu"}
QUIET = {"delay_ratio": 0.001, "pressure_ratio": 0.002, "steal_ratio": 0.0}


def typed(lines: list[Line]) -> list[Record]:
    """The lines as the probe reads them."""
    return read("".join(json.dumps(line) + "\n" for line in lines))


def parse(lines: list[Line]) -> list[Measurement]:
    return parsing.parse(typed(lines))


def window(stage: str, number: int, **fields: Any) -> Line:
    base = {"event": "window", "stage": stage, "round": number, "seconds": 1.0, "busy_seconds": 0.9, "steps": 10}
    return {**base, "step_seconds": [0.1] * 10, **QUIET, **fields}


def decode(rates: list[int], **fields: Any) -> list[Line]:
    return [CPU, *(window("decode", i, batch=8, tokens=8, steps=n, **fields) for i, n in enumerate(rates))]


def request(index: int, scheduled: float, tokens: list[float], output: int = 3, lag: float = 0.0) -> Line:
    return {
        "event": "request", "index": index, "scheduled": scheduled, "prompt": 64, "output": output, "lag": lag,
        "tokens": tokens, "failed": False,
    }  # fmt: skip


def serve(requests: list[Line], **fields: Any) -> list[Line]:
    end = {
        "event": "serve", "rate": 10.0, "window": 10.0, "seconds": 10.0, "busy_seconds": 4.0,
        "first_token_limit": 0.2, "inter_token_limit": 0.05, **QUIET, **fields,
    }  # fmt: skip
    return [CPU, *requests, end]


def one(found: list[Measurement], metric: str, **labels: str) -> Measurement:
    matching = [m for m in found if m.metric == metric and labels.items() <= m.labels.items()]
    assert len(matching) == 1, [m.labels for m in matching]
    return matching[0]


def test_a_rate_is_the_median_of_the_rounds_with_its_interval() -> None:
    rate = one(parse(decode([10, 12, 11, 30, 11])), "inference_tokens_per_second")
    assert rate.value == 88.0
    assert rate.repeats == (80.0, 96.0, 88.0, 240.0, 88.0)
    assert rate.interval[0] < 88.0 < rate.interval[1]
    assert rate.labels == {"device": "cpu", "shape": "nano", "stage": "decode", "batch": "8", "stand_in": "cpu"}


def test_every_figure_of_a_stand_in_says_so() -> None:
    found = [*parse(decode([10, 11])), *parse(serve([request(0, 1.0, [1.1, 1.2, 1.3])]))]
    assert {m.labels.get("stand_in") for m in found} == {"cpu"}


def test_a_gpu_is_named_by_its_number_and_stands_in_for_nothing() -> None:
    gpu = {"event": "device", "kind": "cuda", "index": 3, "shape": "8b"}
    found = parse([gpu, *decode([10, 11])[1:]])
    assert {m.labels["device"] for m in found} == {"3"}
    assert not any("stand_in" in m.labels for m in found)


def test_a_quantile_is_printed_only_where_the_samples_support_it() -> None:
    def statistics(count: int) -> set[str]:
        found = parse([CPU, window("decode", 0, batch=1, tokens=1, step_seconds=[0.01] * count)])
        return {m.labels["statistic"] for m in found if m.metric == "inference_inter_token_seconds"}

    assert statistics(5) == {"max"}
    assert statistics(35) == {"p50", "max"}
    assert statistics(36) == {"p50", "p90", "max"}
    assert statistics(367) == {"p50", "p90", "p95", "max"}
    assert statistics(368) == {"p50", "p90", "p95", "p99", "max"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"delay_ratio": 0.06}, "waited 6%"),
        ({"steal_ratio": 0.03}, "hypervisor took 3%"),
        ({"pressure_ratio": 0.2}, "others waited"),
    ],
)
def test_a_contended_stage_is_void_and_says_why(fields: dict[str, float], word: str) -> None:
    rate = one(parse(decode([10, 11, 12], **fields)), "inference_tokens_per_second")
    assert rate.invalid is not None and rate.invalid.startswith("contended: ") and word in rate.invalid


def test_the_loads_own_waiting_is_not_charged_to_others() -> None:
    quiet = decode([10, 11, 12], delay_ratio=0.045, pressure_ratio=0.14)
    assert one(parse(quiet), "inference_tokens_per_second").invalid is None


def test_a_kernel_that_says_nothing_of_pressure_voids_nothing() -> None:
    silent = decode([10, 11], delay_ratio=None, pressure_ratio=None, steal_ratio=None)
    found = parse(silent)
    assert one(found, "inference_tokens_per_second").invalid is None
    assert not [m for m in found if m.metric == "inference_run_delay_ratio"]


def test_first_token_counts_from_the_schedule_and_goodput_counts_the_late() -> None:
    kept = [request(i, i * 0.1, [i * 0.1 + 0.05, i * 0.1 + 0.07, i * 0.1 + 0.09]) for i in range(50)]
    late = [request(50, 5.0, [5.9, 5.92, 5.94]), request(51, 9.95, [], lag=0.0)]
    found = parse(serve([*kept, *late]))
    assert one(found, "inference_first_token_seconds", statistic="max").value == pytest.approx(0.9)
    assert one(found, "inference_first_token_seconds", statistic="p50").value == pytest.approx(0.05)
    goodput = one(found, "inference_goodput_ratio")
    assert goodput.value == pytest.approx(50 / 51)
    assert goodput.samples == 51
    assert goodput.interval == pytest.approx((0.8955, 0.9995), abs=0.001)  # Clopper-Pearson, 50 of 51
    assert one(found, "inference_unfinished_requests").value == 1.0
    assert one(found, "inference_requests_per_second").value == pytest.approx(5.1)


def test_a_late_schedule_voids_the_stage() -> None:
    requests = [request(i, i * 0.1, [i * 0.1 + 0.05] * 3, lag=0.02) for i in range(50)]
    found = parse(serve(requests))
    invalid = one(found, "inference_first_token_seconds", statistic="p50").invalid
    assert invalid is not None and invalid.startswith("schedule_lag: ")


def test_no_request_at_all_is_no_goodput_rather_than_a_perfect_one() -> None:
    assert not [m for m in parse(serve([])) if m.metric == "inference_goodput_ratio"]


@pytest.mark.parametrize(
    "line",
    ["hello", "[1]", '{"event": 3}', '{"event": "window", "stage": "decode", "seconds": NaN}', "[" * 100_000],
)
def test_garbage_is_one_line_and_no_traceback(line: str) -> None:
    with pytest.raises(Failed, match=r"^tool_output: "):
        read(json.dumps(CPU) + "\n" + line + "\n")


def test_an_output_that_was_torn_keeps_what_was_finished() -> None:
    whole = "".join(json.dumps(line) + "\n" for line in decode([10, 11]))
    torn = whole[:-40] + '\n{"event": "window", "stage": "decode"}\n'
    with pytest.raises(Failed, match=r"^tool_output: line 3 of the inference load is not a JSON object"):
        read(torn)
    assert [type(event) for event in read(torn, cut=True)] == [DeviceFacts, Window]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({**window("decode", 0), "seconds": "1"}, r"line 1 of the inference load \(window\) .*'seconds'"),
        ({"event": "device", "kind": "tpu", "index": 0, "shape": "nano"}, r"\(device\) .*'kind'"),
        ({"event": "whatever"}, r"no known event: 'whatever'"),
    ],
)
def test_what_is_of_another_type_is_named(line: Line, words: str) -> None:
    with pytest.raises(Failed, match=rf"^tool_output: .*{words}"):
        typed([line])


def test_an_event_without_its_numbers_is_named() -> None:
    with pytest.raises(Failed, match=r"tool_output: window of the load has no number 'tokens'"):
        parse([CPU, window("decode", 0, batch=1)])


# --- the probe around it


class Tools:
    """Answers as the child did."""

    def __init__(self, lines: list[Line], returncode: int = 0, stderr: str = "") -> None:
        self.lines, self.returncode, self.stderr = lines, returncode, stderr
        self.arguments: tuple[str, ...] = ()

    def python(
        self, module: str, *arguments: str, name: str, timeout: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:
        self.arguments = arguments
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        for line in text.splitlines() if on_line else ():
            on_line(line)  # type: ignore[misc]
        return Completed((module, *arguments), self.returncode, text, self.stderr, 1.0)


def context(tools: Tools, accelerator: str = "auto", stages: list[str] | None = None) -> Context:
    @contextmanager
    def stage(name: str) -> Any:
        if stages is not None:
            stages.append(f"+{name}")
        yield
        if stages is not None:
            stages.append(f"-{name}")

    def workspace(folder: Any, need: int) -> AbstractContextManager[Any]:
        return nullcontext(folder)

    given: Any = tools
    return Context(
        probe=inference.PROBE,
        request=Request(effort=Effort.QUICK, probes=("inference",), accelerator=accelerator),
        tools=given,
        seconds=14.0,
        remaining=lambda: 50.0,
        workspace=workspace,
        stage=stage,
        progress=lambda text, fraction: None,
    )


def refused(tools: Tools, accelerator: str = "auto") -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        inference.measure(context(tools, accelerator))
    return caught.value


def test_stages_open_and_close_as_the_child_goes_through_them() -> None:
    stages: list[str] = []
    lines: list[Line] = [CPU, {"event": "begin", "stage": "inference.decode"}, *decode([10])[1:],
             {"event": "end", "stage": "inference.decode"}, {"event": "done"}]  # fmt: skip
    inference.measure(context(Tools(lines), stages=stages))
    assert stages == ["+inference.decode", "-inference.decode"]


def test_a_stage_that_the_child_left_open_is_closed() -> None:
    stages: list[str] = []
    lines: list[Line] = [CPU, {"event": "begin", "stage": "inference.decode"}]
    with pytest.raises(Failed):
        inference.measure(context(Tools(lines, returncode=-11, stderr="boom"), stages=stages))
    assert stages == ["+inference.decode", "-inference.decode"]


def test_an_emulated_accelerator_gives_no_numbers() -> None:
    error = refused(Tools(decode([10])), "emulated:resnet50-h100")
    assert isinstance(error, Unsupported) and error.reason.startswith("emulated: ")


def test_a_refusal_keeps_its_reason_and_remedy() -> None:
    tools = Tools([{"event": "refused", "outcome": "unsupported", "reason": "torch_missing: x", "remedy": "pip y"}])
    error = refused(tools)
    assert isinstance(error, Unsupported) and (error.reason, error.remedy) == ("torch_missing: x", "pip y")


@pytest.mark.parametrize(("code", "stderr"), [(-9, "line one\nKilled"), (1, "Traceback\nMemoryError: no")])
def test_a_crash_is_a_failure_with_the_last_line(code: int, stderr: str) -> None:
    error = refused(Tools(decode([10]), code, stderr))
    assert isinstance(error, Failed) and error.reason.endswith(stderr.splitlines()[-1])


def test_an_output_that_stops_without_saying_done_is_a_failure() -> None:
    assert refused(Tools(decode([10]))).reason.startswith("load_failed: ")


def test_every_metric_that_is_measured_is_declared() -> None:
    windows = [window(s, 0, flops=1e9, bytes=1e9) for s in ("matmul", "copy")]
    windows += [window(s, 0, tokens=8, batch=1, flops=1e9, bytes=1e9) for s in ("prefill", "decode")]
    requests = [request(i, i * 0.1, [i * 0.1 + 0.05, i * 0.1 + 0.06, i * 0.1 + 0.07]) for i in range(50)]
    search = {"event": "search", "best": 5.0, "failed": 7.0, "share": 0.9, "trials": 4}
    found = parse([{**CPU, "name": "NVIDIA H200"}, *windows, *serve(requests)[1:], search])
    declared = {metric.name: metric for metric in inference.PROBE.metrics}
    for m in found:
        assert set(m.labels) <= {*declared[m.metric].labels, "stand_in"}, m


class NodeTools(Tools):
    """A node of two cards: the load first, then all cards beside each other."""

    def __init__(self, beside: list[Line], returncode: int = 0) -> None:
        gpu = {"event": "device", "kind": "cuda", "index": 0, "shape": "8b", "name": "NVIDIA H200", "devices": 2}
        super().__init__([gpu, *decode([10, 11], bytes=1e9)[1:], {"event": "done"}])
        self.beside, self.code = beside, returncode
        self.modules: list[str] = []

    def python(
        self, module: str, *arguments: str, name: str, timeout: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:
        self.modules.append(module)
        if module != inference.NODE_MODULE:
            return super().python(module, *arguments, name=name, timeout=timeout, on_line=on_line)
        text = "".join(json.dumps(line) + "\n" for line in self.beside)
        return Completed((module, *arguments), self.code, text, "CUDA error", 1.0)


def beside(seconds: float, device: str) -> Line:
    return {**window("matmul", 0, flops=700e12), "seconds": seconds, "phase": "alone", "device": device, "steps": 1}


def test_a_node_of_two_cards_is_measured_beside_each_other() -> None:
    node: list[Line] = [{"event": "node", "kind": "cuda", "names": []}, beside(1.0, "0"), beside(1.25, "1")]
    tools = NodeTools([*node, {"event": "done"}])
    found = inference.measure(context(tools))
    assert tools.modules == [inference.MODULE, inference.NODE_MODULE]
    assert one(list(found), "accelerator_spread_ratio").value == pytest.approx(0.8 / 0.9)


def test_cards_that_fail_beside_each_other_cost_only_those_figures() -> None:
    node: list[Line] = [
        {"event": "node", "kind": "cuda", "names": []},
        {"event": "lost", "device": "1", "reason": "its process ended"},
        beside(1.0, "0"),
    ]
    ctx = context(NodeTools(node, returncode=1))
    found = list(inference.measure(ctx))
    assert one(found, "inference_tokens_per_second", stage="decode")
    assert one(found, "accelerator_matmul_flops_per_second", device="0", stage="alone")
    text = "\n".join(ctx.warnings)
    assert "were not measured together to the end" in text and "accelerator 1 did not finish: its process ended" in text


def test_cards_that_take_too_long_beside_each_other_keep_what_they_gave_before() -> None:
    """A time-out of the last window lost the figures of all cards."""

    class Late(NodeTools):
        def python(self, module: str, *arguments: str, **kwargs: Any) -> Completed:
            done = super().python(module, *arguments, **kwargs)
            if module == inference.NODE_MODULE:
                error = TimedOut.told("tool_timed_out: python did not end within 30 s")
                error.completed = done
                raise error
            return done

    node: list[Line] = [{"event": "node", "kind": "cuda", "names": []}, beside(1.0, "0"), beside(1.25, "1")]
    ctx = context(Late(node))
    found = list(inference.measure(ctx))
    assert one(found, "inference_tokens_per_second", stage="decode")
    assert one(found, "accelerator_spread_ratio").value == pytest.approx(0.8 / 0.9)
    assert "tool_timed_out" in "\n".join(ctx.warnings)
    assert inference.measure(context(Late([])))


class Ended(NodeTools):
    """A load that is ended at its bound, after ``lines``."""

    def __init__(self, lines: list[Line]) -> None:
        super().__init__([])
        self.lines = lines

    def python(self, module: str, *arguments: str, **kwargs: Any) -> Completed:
        error = TimedOut.told("tool_timed_out: python did not end within 30 s")
        error.completed = super().python(module, *arguments, **kwargs)
        raise error


def test_a_load_that_is_ended_at_its_bound_keeps_the_stages_that_it_finished_and_names_the_others() -> None:
    """A search that hung, or cards slow to start, lost every stage before it."""
    gpu = {"event": "device", "kind": "cuda", "index": 0, "shape": "8b", "name": "NVIDIA H200", "devices": 8}
    whole = [
        gpu,
        window("matmul", 0, flops=1e9),
        *decode([10, 11], bytes=1e9)[1:],
        *serve([request(0, 0.1, [0.2])])[1:],
    ]
    ctx = context(Ended(whole))
    found = list(inference.measure(ctx))
    assert one(found, "inference_tokens_per_second", stage="decode")
    assert one(found, "accelerator_matmul_flops_per_second")
    (late,) = (warning for warning in ctx.warnings if "tool_timed_out" in warning)
    assert late.endswith("it had not finished copy, prefill, check, the other cards")  # quick searches for no rate
    ctx = context(Ended([gpu, window("matmul", 0, flops=1e9), *decode([10, 11], bytes=1e9)[1:]]))
    assert not [m for m in inference.measure(ctx) if m.labels.get("stage") == "serve"]
    assert "check, serve, the other cards" in "\n".join(ctx.warnings)


@pytest.mark.parametrize("lines", [[], [CPU], [CPU, {"event": "begin", "stage": "inference.setup"}]])
def test_a_load_that_is_ended_before_its_first_window_has_timed_out(lines: list[Line]) -> None:
    assert isinstance(refused(Ended(lines)), TimedOut)
