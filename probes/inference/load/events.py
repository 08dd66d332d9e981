"""The load's side of its pipe: one JSON object a line, stages marked so that the parent samples its watchers there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from probes.loads import inference_host

_MARK_SECONDS = 0.03  # between the line that opens a stage and its first step: the parent samples its watchers then


def say(event: str, **fields: Any) -> None:
    """One JSON line. Floats keep their digits; a number that is not finite is an error of ours."""
    print(json.dumps({"event": event, **fields}, allow_nan=False), flush=True)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Lines at both ends of a stage, named as the watchers' figures will be: ``inference.decode``."""
    say("begin", stage=name)
    time.sleep(_MARK_SECONDS)
    try:
        yield
    finally:
        say("end", stage=name)


def measured(work: Callable[[], dict[str, Any]], energy: Callable[[], float | None] = lambda: None) -> dict[str, Any]:
    """``work``'s fields, with what the load itself waited for a CPU meanwhile, and the joules that it took."""
    before, joules = inference_host.waited(), energy()
    fields = work()
    after = energy()
    used = {} if joules is None or after is None else {"joules": after - joules}
    return {**fields, **inference_host.waited().since(before), **used}
