"""The load against a server of known service times, whose own log is the truth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from probes.common.pipe import of
from probes.common.sustained import SearchEnd
from probes.endpoint.parse import parse
from probes.endpoint.records import Answer, Opened, SelfCheck, Window
from tests.probes.endpoint.harness import loaded, simulated, wrong

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("usage", ["end", "continuous", "absent"])
def test_tokens_and_chunks_are_those_that_the_server_sent(size: int, usage: str, tmp_path: Path) -> None:
    strict = () if usage == "continuous" else ("continuous_usage_stats",)
    with simulated(tmp_path, size=size, usage=usage, strict=strict) as server:
        load = loaded(server.url, output_tokens=20)
        assert wrong(load, server.truth()) == []
    assert len(load.held) == load.window.sent == load.window.planned == 60
    assert {answer.counted for answer in load.held} == {"chunks" if usage == "absent" else "usage"}
    tokens = -(-20 // size) if usage == "absent" else 20
    assert {answer.token_count for answer in load.held} == {tokens}
    assert all(answer.counts == () for answer in load.held) is (usage != "continuous")
    if usage == "continuous":
        assert {answer.first_count for answer in load.held} == {size}


@pytest.mark.parametrize("style", ["crlf", "tight", "pings", "split"])
def test_however_the_events_are_written_none_is_lost(style: str, tmp_path: Path) -> None:
    with simulated(tmp_path, style=style) as server:
        load = loaded(server.url)
        assert wrong(load, server.truth()) == []
    assert {answer.code for answer in load.held} == {None}


def test_a_chunk_that_is_left_out_is_missed(tmp_path: Path) -> None:
    """The comparison can fail: the server logs a chunk that it does not send."""
    with simulated(tmp_path, omit=1) as server:
        load = loaded(server.url)
        assert len(wrong(load, server.truth())) >= len(load.held)


def test_times_are_those_of_the_log(tmp_path: Path) -> None:
    """Half of the first tokens within a tenth of their time, and the client's own statement is no less than its error.

    How exact it is on a quiet machine: `python -m tests.accuracy.endpoint_oracle`.
    """
    with simulated(tmp_path, first=0.1, gap=0.02) as server:
        load = loaded(server.url)
        truth = server.truth()[-len(load.held) :]
    began = load.window.began
    errors = [a.first_token - (t["chunks"][0] - began - a.scheduled) for a, t in zip(load.held, truth, strict=True)]
    assert median(map(abs, errors)) < 0.01
    ours = [gap for answer in load.held for gap in answer.gaps]
    theirs = [b - a for entry in truth for a, b in pairwise(entry["chunks"])]
    assert abs(median(ours) - median(theirs)) < 0.002


def test_a_stall_is_charged_to_every_request_that_was_scheduled_into_it(tmp_path: Path) -> None:
    with simulated(tmp_path, stall_at=75, stall=1.0) as server:  # one, some 40 of the warm-up, and then
        load = loaded(server.url, enough=100, seconds=4.0)
        entry = next(entry for entry in server.truth() if entry["n"] == 75)
        assert wrong(load, server.truth()) == []
    over = entry["arrived"] + 1.0 - load.window.began
    into = [answer for answer in load.held if over - 1.0 < answer.scheduled < over]
    assert len(into) >= 20, "an open loop goes on sending"
    assert all(answer.first_token >= over - answer.scheduled - 1e-3 for answer in into)
    spared = [answer for answer in load.held if answer.scheduled > over + 0.3]
    waited, not_waited = (median(a.first_token or 0.0 for a in group) for group in (into, spared))
    assert 0.0 < not_waited < waited


@pytest.mark.parametrize(
    ("strict", "apis", "extras", "api"),
    [
        ((), ("chat",), 4, "chat"),
        (("continuous_usage_stats",), ("chat", "completions"), 2, "chat"),
        (("ignore_eos", "continuous_usage_stats"), ("completions",), 1, "completions"),
        (("max_tokens", "ignore_eos"), ("chat",), 2, "chat"),
        (("stream_options", "ignore_eos"), ("chat",), 0, "chat"),
    ],
)
def test_a_server_is_spoken_to_as_it_speaks(
    strict: tuple[str, ...], apis: tuple[str, ...], extras: int, api: str, tmp_path: Path
) -> None:
    with simulated(tmp_path, strict=strict, apis=apis, loading=1) as server:
        load = loaded(server.url + "/v1", enough=10)
    (how,) = of(load.records, Opened)
    assert (how.api, len(how.extras), how.model) == (api, extras, "sim")
    assert how.seconds > 1.0, "the time that it loads its model is told apart"
    assert {answer.code for answer in load.held} == {None} and len(load.held) == 10
    if "include_usage" in how.extras:
        assert {answer.prompt for answer in load.held} == {16}, "16 tokens at 1.5 a word"


def test_arrivals_are_as_the_seed_says_and_each_prompt_is_another(tmp_path: Path) -> None:
    with simulated(tmp_path) as server:
        first, second = (loaded(server.url, enough=30) for _ in range(2))
    assert [a.scheduled for a in first.held] == [a.scheduled for a in second.held]
    gaps = [b.scheduled - a.scheduled for a, b in pairwise(first.held)]
    assert min(gaps) < 0.3 * max(gaps), "Poisson, not paced"


def test_the_rate_is_found_and_a_share_of_it_held(tmp_path: Path) -> None:
    """Two slots of 0.14 s a request: 14 requests a second, and no rate above them keeps any limit."""
    with simulated(tmp_path, slots=2, first=0.1, gap=0.005, usage="absent") as server:
        load = loaded(server.url, seconds=30.0, enough=60, rate=None, max_rate=60.0, first_token_limit=0.4, timeout=5.0)
        assert wrong(load, server.truth()) == []
    (end,) = of(load.records, SearchEnd)
    assert end.failed is not None and 4.0 <= end.failed <= 60.0
    assert end.best is None or end.best < 14.5
    highest = end.best * 0.8 if end.best else end.failed
    assert load.window.rate == pytest.approx(highest)
    trials = [window for window in of(load.records, Window) if window.stage == "trial"]
    assert len(trials) == end.trials and max(window.rate for window in trials) <= 60.0


def test_the_most_that_a_server_may_be_asked_is_not_exceeded(tmp_path: Path) -> None:
    with simulated(tmp_path) as server:
        load = loaded(server.url, seconds=12.0, enough=60, rate=None, max_rate=20.0)
    (end,) = of(load.records, SearchEnd)
    assert (end.best, end.failed) == (20.0, None)
    assert {window.rate <= 20.0 for window in of(load.records, Window)} == {True}
    assert load.window.rate == 20.0


def test_the_client_is_held_against_its_own_echo(tmp_path: Path) -> None:
    with simulated(tmp_path) as server:
        load = loaded(server.url)
    (check,) = of(load.records, SelfCheck)
    assert check.delays and min(check.delays) > 0.0, "the echo stamps before it writes"
    assert median(check.delays) < check.limit
    assert check.reached or check.highest >= 0.8 * 500.0, "its first round asks for 500"


def test_a_server_that_fails_all_is_left_alone(tmp_path: Path) -> None:
    with simulated(tmp_path, fault="status 429", after=20) as server:
        load = loaded(server.url, enough=2000, seconds=60.0)
    assert load.window.stopped and load.window.sent < 200
    failed: list[Answer] = [answer for answer in load.held if answer.failed]
    assert {(answer.code, answer.retry_after) for answer in failed} == {("throttled", 3.0)}


def test_of_a_server_that_hangs_after_its_first_answer_no_rate_is_sought_and_that_it_does_is_a_figure(
    tmp_path: Path,
) -> None:
    """Each window takes a time-out more: with a search too many for the time of the probe, which then has no figure."""
    with simulated(tmp_path, fault="hangs", after=1) as server:
        load = loaded(server.url, rate=None, max_rate=40.0, timeout=1.0)
    assert {window.stage for window in of(load.records, Window)} == {"warm-up", "held"} and not of(
        load.records, SearchEnd
    )
    found = {m.metric: m for m in parse(load.records, server.url)}
    assert (
        found["endpoint_success_ratio"].value == 0.0 and found["endpoint_success_ratio"].samples == len(load.held) > 0
    )
