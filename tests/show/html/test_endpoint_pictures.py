"""A real server and services on the page: the first token by load; failures and times on the clock of the watchers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.model import Effort, Outcome, ProbeResult, Request, Run, Series
from bench.show.html.page import OF_A_SERVER, PICTURES, Shown, render
from bench.show.html.plots import Panels
from bench.show.html.plots.timelines import one_clock
from probes.common.pipe import Record
from probes.common.time_lines import most_of, sum_of
from probes.endpoint.parse import lines, parse
from probes.service.parse import lines as service_lines
from probes.service.records import Answer as ServiceAnswer
from tests.judge.make import run
from tests.probes.endpoint.test_probe import URL, a_window, an_answer
from tests.probes.endpoint.test_probe import load as held


def measured() -> Run:
    trial = [an_answer(0.1 * i, 0.1 * i + 0.05, stage="trial") for i in range(64)]
    found: list[Record] = [*trial, a_window(stage="trial", rate=5.0, seconds=6.4), *held(bad=30)]
    result = ProbeResult(
        probe="endpoint", outcome=Outcome.OK, measurements=tuple(parse(found, URL)),
        series=tuple(lines(found, URL, -10.0)),
    )  # fmt: skip
    return run(result).model_copy(
        update={"request": Request(effort=Effort.QUICK, probes=(), options={"endpoint": URL})}
    )


def test_a_row_a_load_with_what_was_in_time() -> None:
    assert all(draw(Shown(measured())) is not None for draw in OF_A_SERVER.values())
    page = render([Shown(measured())])
    assert "5 requests a second, 100 % in time" in page and "10 requests a second, 95 % in time" in page
    assert "endpoint, requests that failed" in page and "endpoint, slowest first token" in page


CLOCK = 1000.0  # of the monotonic clock, when the watchers began
WATCHED = Series(metric="accelerator_utilization_ratio", labels={"device": "0"}, seconds=(0.0, 60.0), values=(0.1, 0.9))


def test_what_failed_at_one_moment_stands_at_that_moment_of_the_watchers_clock() -> None:
    """Two windows and a service, all of whose requests between 30 and 31 s of the run fail."""
    found: list[Record] = []
    for stage, began in (("trial", 1010.0), ("held", 1025.0)):
        due = [0.1 * i for i in range(100)]
        bad = [30.0 <= began - CLOCK + at < 31.0 for at in due]
        found += [
            an_answer(at, at + 0.05, at + 0.06, stage=stage, **({"code": "torn"} if it else {}))
            for at, it in zip(due, bad, strict=True)
        ]
        found.append(a_window(stage=stage, began=began, seconds=10.0))
    asked = [
        ServiceAnswer("crm", n, 0.5 * n, 0.0, 0.7 if n == 40 else 0.02, True, code="too_slow" if n == 40 else None)
        for n in range(80)
    ]
    series = [*lines(found, URL, CLOCK), *service_lines(asked, "crm", 10.25)]
    failed = {s.metric: dict(zip(s.seconds, s.values, strict=True)) for s in series if "failed" in s.metric}
    assert {at: n for at, n in failed["endpoint_failed_requests"].items() if n} == {30.5: 10.0}
    assert {at: n for at, n in failed["service_failed_requests"].items() if n} == {30.5: 1.0}
    slowest = next(s for s in series if s.metric == "service_response_seconds")
    assert max(zip(slowest.values, slowest.seconds, strict=True)) == (0.7, 30.5)
    first = next(s for s in series if s.metric == "inference_first_token_seconds")
    assert min(first.seconds) == 10.5 and not [at for at in first.seconds if 20.0 < at < 25.0], "nothing was asked then"
    (tokens,) = (s for s in series if s.metric == "inference_tokens_per_second")
    rates = dict(zip(tokens.seconds, tokens.values, strict=True))
    assert rates[12.5] == 20.0 and rates[22.5] == 0.0, "two tokens ten times a second, then a pause"
    shown = ProbeResult(probe="gpu", outcome=Outcome.OK, measurements=measured().results[0].measurements[:1],
                        series=(WATCHED, *series))  # fmt: skip
    picture = one_clock(run(shown))
    assert picture is not None and isinstance(picture.body, Panels)
    assert [panel.name for panel in picture.body.panels] == [
        "accelerator, utilization", "endpoint, tokens a second", "endpoint, slowest first token",
        "endpoint, requests that failed", "service, slowest answer", "service, requests that failed",
    ]  # fmt: skip


def test_a_recording_that_says_no_clock_has_no_line() -> None:
    assert not lines(held(), URL, None)


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 10)), max_size=300))
def test_nothing_is_lost_between_the_pieces_of_a_line(points: list[tuple[float, float]]) -> None:
    total = sum(sum(s.values) for s in sum_of("endpoint_failed_requests", points))
    assert total == pytest.approx(sum(value for _, value in points), abs=1e-3)
    for line in most_of("inference_first_token_seconds", points):
        assert max(line.values) == pytest.approx(max(value for _, value in points), abs=1e-6)
        assert len(line.values) <= 240, "so many are drawn without means"


def test_without_a_server_there_is_nothing_to_see() -> None:
    assert all(draw(Shown(run())) is None for draw in (*OF_A_SERVER.values(), PICTURES["Time line of the run"]))
    assert "A real server" not in render([Shown(run())])
