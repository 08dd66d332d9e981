"""The file of an operator's decisions: what is not understood is refused, and no decision is lost."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.store.baselines import Decisions, Reset, change, path_of, read
from bench.store.errors import StoreError, UnusableRun
from bench.workflows import nightly
from tests.judge.baseline.make import Nights

NIGHT = {"through": 1.7e9, "at": "2023-11-14T22:13:20Z", "reason": "disk replaced"}
WHOLE = {"hostname": "node01", "pin": {"runs": ["a"], "at": "2023-11-14T22:13:20Z"}, "resets": [NIGHT]}

WRONG = {
    "of another node": (json.dumps({**WHOLE, "hostname": "node02"}), "hostname: is 'node02', not 'node01'"),
    "a key misspelt": (json.dumps({**WHOLE, "reset": []}), "reset: Extra inputs"),
    "a key of a pin": (json.dumps({**WHOLE, "pin": {"runs": [], "at": "x", "why": "y"}}), "pin.why: Extra inputs"),
    "a key twice": ('{"hostname": "node01", "resets": [], "resets": []}', "'resets' stands twice"),
    "torn": (json.dumps(WHOLE)[:-9], "not JSON"),
    "empty": ("", "is empty"),
    "of the future": (json.dumps({**WHOLE, "resets": [{**NIGHT, "through": 4e9}]}), "after the time of the decision"),
    "at no time": (json.dumps({**WHOLE, "resets": [{**NIGHT, "at": "then"}]}), "resets.0: Invalid isoformat"),
    "text for a number": (json.dumps({**WHOLE, "resets": [{**NIGHT, "through": "5"}]}), "resets.0.through"),
    "too large": (json.dumps(WHOLE) + " " * (5 << 20), "is larger than 4 MiB"),
}


def put(root: Path, text: str) -> Path:
    path = path_of(root, "node01")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_what_was_decided_is_read_again(tmp_path: Path) -> None:
    put(tmp_path, json.dumps(WHOLE))
    found = read(tmp_path, "node01")
    assert found.through == 1.7e9 and found.pin is not None and found.pin.runs == ("a",)
    assert read(tmp_path, "node02") == Decisions(hostname="node02")


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_understood_is_one_line_and_stays_as_it_is(tmp_path: Path, case: str) -> None:
    text, words = WRONG[case]
    path = put(tmp_path, text)
    for changing in (False, True):
        with pytest.raises(UnusableRun) as caught:
            change(tmp_path, "node01", lambda decided: decided) if changing else read(tmp_path, "node01")
        assert words in str(caught.value) and str(path) in str(caught.value)
        assert str(caught.value).isprintable() and "mend it" in str(caught.value)
    assert path.read_text() == text and list(path.parent.iterdir()) == [path]


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(put(tmp_path, "").with_name("pipe"))
    os.rename(tmp_path / "baselines/pipe", path_of(tmp_path, "node01"))
    with pytest.raises(UnusableRun, match="is no regular file"):
        read(tmp_path, "node01")


def test_two_who_decide_at_once_both_stand(tmp_path: Path) -> None:
    within, go_on = threading.Event(), threading.Event()

    def reset(reason: str, **waits: Any) -> None:
        def decide(decided: Decisions) -> Decisions:
            if waits:
                within.set()
                assert go_on.wait(60)
            made = Reset(through=1.7e9, at="2023-11-14T22:13:20Z", reason=reason)
            return decided.model_copy(update={"resets": (*decided.resets, made)})

        change(tmp_path, "node01", decide)

    first = threading.Thread(target=reset, args=("first",), kwargs={"waits": True})
    second = threading.Thread(target=reset, args=("second",))
    first.start()
    assert within.wait(60)
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert [one.reason for one in read(tmp_path, "node01").resets] == ["first", "second"]


def test_a_reset_takes_no_night_that_is_still_to_come_though_the_clock_was_ahead(tmp_path: Path) -> None:
    Nights(tmp_path, started_at="2999-01-01T00:00:00Z").add()
    nightly.reset(tmp_path, "node01", "mended")
    assert read(tmp_path, "node01").through <= time.time()


def test_a_decision_that_cannot_be_stored_is_not_called_a_run(tmp_path: Path) -> None:
    (tmp_path / "baselines").touch()
    with pytest.raises(StoreError, match=r"^\S+/baselines: cannot be stored: "):
        change(tmp_path, "node01", lambda decided: decided)
