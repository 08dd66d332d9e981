"""A real server on the page: its time to the first token by load, and what it did while the load was held."""

from __future__ import annotations

from bench.model import Effort, Outcome, ProbeResult, Request, Run
from bench.show.html.page import OF_A_SERVER, Shown, render
from probes.endpoint.parse import lines, parse
from probes.endpoint.records import Record
from tests.judge.make import run
from tests.probes.endpoint.test_probe import URL, a_window, an_answer
from tests.probes.endpoint.test_probe import load as held


def measured() -> Run:
    trial = [an_answer(0.1 * i, 0.1 * i + 0.05, stage="trial") for i in range(64)]
    found: list[Record] = [*trial, a_window(stage="trial", rate=5.0, seconds=6.4), *held(bad=30)]
    result = ProbeResult(
        probe="endpoint", outcome=Outcome.OK, measurements=tuple(parse(found, URL)), series=tuple(lines(found, URL))
    )
    return run(result).model_copy(
        update={"request": Request(effort=Effort.QUICK, probes=(), options={"endpoint": URL})}
    )


def test_a_row_a_load_with_what_was_in_time() -> None:
    assert all(draw(Shown(measured())) is not None for draw in OF_A_SERVER.values())
    page = render([Shown(measured())])
    assert "5 requests a second, 100 % in time" in page and "10 requests a second, 95 % in time" in page
    assert "requests that failed" in page and "slowest first token" in page


def test_without_a_server_there_is_nothing_to_see() -> None:
    assert all(draw(Shown(run())) is None for draw in OF_A_SERVER.values())
    assert "A real server" not in render([Shown(run())])
