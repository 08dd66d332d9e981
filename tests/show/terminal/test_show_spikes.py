"""What a GO says of spikes: how many were seen, and how many an hour the run cannot rule out."""

from __future__ import annotations

from typing import Any

from bench.model import Decision, Measurement, Run
from bench.show.html.page import Shown, render
from bench.show.terminal.screen import render as screen
from bench.show.wording import proved
from tests.show.terminal.sample import spikes, talking_run, verdict


def said(*measurements: Measurement, **changes: Any) -> list[str]:
    run = talking_run()
    trip = run.results[0].measurements[0]
    result = run.results[0].model_copy(update={"measurements": (trip, *measurements)})
    run = run.model_copy(update={"results": (result,), **changes})
    return proved(run, run.verdicts[0])


def test_none_seen_still_says_what_cannot_be_ruled_out() -> None:
    assert said(*spikes(0, 60.0, state="idle")) == ["network spikes: none seen, at most 180 an hour at 95 %"]
    alike = [*spikes(0, 60.0, state="idle"), *spikes(0, 60.0, state="loaded")]
    assert said(*alike) == ["network spikes: none seen, at most 180 an hour at 95 %"]


def test_states_and_peers_are_told_apart_and_the_hosts_own_spikes_do_not_count() -> None:
    both = [*spikes(0, 300.0, state="idle"), *spikes(2, 300.0, state="loaded")]
    idle, loaded = "idle: none seen, at most 36 an hour at 95 %", "loaded: 2 seen, at most 75.6 an hour at 95 %"
    assert said(*both) == [f"network spikes, {idle}; {loaded}"]
    other = spikes(0, 300.0, state="idle", peer="node-19")
    assert said(*both, *other) == [
        f"network spikes (node-18), {idle}; {loaded}",
        "network spikes (node-19): none seen, at most 36 an hour at 95 %",
    ]


def test_a_stand_in_says_so_and_what_does_not_count_is_not_told() -> None:
    (told,) = said(*spikes(0, 60.0, state="idle", stand_in="loopback"))
    assert told.startswith("network spikes (stand-in: loopback): none seen")
    contended = [m.model_copy(update={"invalid": "host_contended: late"}) for m in spikes(0, 60.0, state="idle")]
    assert said(*contended) == [] == said()
    rate_alone = spikes(0, 60.0, state="idle")[:1]
    assert said(*rate_alone) == ["network spikes: at most 180 an hour at 95 %"]


def test_any_threshold_of_a_stored_run_can_be_read() -> None:
    rate, _, low, _ = spikes(2, 60.0, state="idle")
    odd = low.model_copy(update={"labels": {**low.labels, "threshold_seconds": "soon"}, "value": 9.0})
    assert said(rate, odd, low) == ["network spikes: 2 seen, at most 378 an hour at 95 %"]


def test_only_a_go_that_rests_on_round_trips_says_it() -> None:
    run = talking_run()
    no_go = verdict("realtime-inference", Decision.NO_GO, 10.0, run.verdicts[0].findings)
    elsewhere = verdict("batch-inference", Decision.GO, 100.0, ())
    assert proved(run, no_go) == [] == proved(run, elsewhere)


def test_screen_and_page_show_it() -> None:
    run: Run = talking_run()
    (told,) = proved(run, run.verdicts[0])
    assert told in " ".join(screen(run, width=80, colour=False).split())
    assert f"N{told[1:]}." in render([Shown(run)])
