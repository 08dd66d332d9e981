"""The load on a server, as a child process: ``python -m probes.endpoint.load.main --echo PORT`` with the settings on
standard input. Answers in JSON lines (`probes.endpoint.records`). It judges nothing but the trials of its search.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import resource
import sys
import time
from functools import partial
from itertools import count
from typing import Any

from bench.measure.jsonl import decoded
from bench.model import Code
from probes.common.http import REMEDIES, Broken, key_of
from probes.common.open_loop import LEAST_KEPT, Kept, Limits, Search, Trial, held
from probes.common.pipe import Refused
from probes.common.sustained import SearchEnd
from probes.endpoint import plan
from probes.endpoint.records import PIPE, say

_WARM_UP_SECONDS = 1.0
_LONGEST_WARM_UP = 8.0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="probes.endpoint.load.main", description=__doc__)
    parser.add_argument("--echo", type=int, required=True, help="port of the client's own echo")
    options = parser.parse_args(words)
    settings = plan.Settings(**(decoded(sys.stdin.readline()) or {}))
    return PIPE.load(("aiohttp",), partial(_run, settings, options.echo))


def _prepare() -> None:
    """Room for many connections, and no long pause of the garbage collector among them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)


def _run(settings: plan.Settings, echo: int) -> Refused | None:
    from probes.endpoint.load.clock import StampingSelector

    _prepare()
    stamps = StampingSelector()
    loop = asyncio.SelectorEventLoop(stamps)
    try:
        loop.run_until_complete(_load(settings, echo, stamps))
    except Broken as broken:
        detail = f"{settings.address.shown}: {broken.detail or _WORDS.get(broken.code, 'it failed')}"
        return Refused("failed", f"{broken.code}: {detail}", REMEDIES.get(broken.code))
    finally:
        loop.close()
    return None


_WORDS = {Code.UNAUTHORIZED: "it takes no request without a key that is valid there", Code.NOT_FOUND: "no such path",
          Code.REDIRECTED: "it sends elsewhere who asks for its models"}  # fmt: skip


async def _load(settings: plan.Settings, echo: int, stamps: Any) -> None:
    from probes.endpoint.load.client import Client
    from probes.endpoint.load.dialect import opened
    from probes.endpoint.load.window import Served, serve

    seeds = count(settings.seed + 1)
    limits = Limits(settings.first_token_limit, settings.inter_token_limit)
    key = key_of(settings.key_file, plan.KEY_VARIABLE)
    async with Client(settings.address, key, stamps, settings.timeout) as client:
        with PIPE.stage("endpoint.open"):
            dialect, how = await opened(client, settings)
        say(how)
        end = time.monotonic() + settings.seconds

        async def window(name: Any, rate: float, requests: int) -> Served:
            served = await serve(client, dialect, settings, name, rate, requests, next(seeds))
            for record in (*served.answers, served.window):
                say(record)
            return served

        async def trial(rate: float) -> Trial:
            served = await window("trial", rate, plan.TRIAL_REQUESTS)
            outcomes = [limits.kept(answer, math.inf) for answer in served.answers]
            kept = outcomes.count(Kept.KEPT)
            return Trial(rate, kept, len(outcomes) - kept, held(kept, len(outcomes) - kept, LEAST_KEPT))

        rate = settings.rate or plan.first_rate(settings)
        with PIPE.stage("endpoint.warm_up"):
            warm = await window("warm-up", rate, _warm_requests(rate, how.seconds))
        hangs = all(answer.code == Code.TOO_SLOW for answer in warm.answers)  # no rate is kept: held is what says so
        if settings.rate is None and not hangs:
            with PIPE.stage("endpoint.search"):
                until = end - settings.seconds + plan.search_seconds(settings)
                rate = await _found(settings, rate, trial, until)
        with PIPE.stage("endpoint.held"):
            left = max(end - time.monotonic(), plan.LEAST_HELD_SHARE * settings.seconds)
            last = await window("held", rate, plan.held_requests(settings, rate, left))
    await _self_check(last, echo, stamps, settings.self_check)


async def _found(settings: plan.Settings, first: float, trial: Any, until: float) -> float:
    """Search for the highest rate; the rate to hold."""
    found = Search([await trial(first)], settings.max_rate)
    while (rate := found.next_rate) is not None and time.monotonic() + plan.TRIAL_REQUESTS / rate < until:
        found.trials.append(await trial(rate))
    say(SearchEnd(LEAST_KEPT, len(found.trials), found.best, found.failed))
    if found.best is None:
        return min(trial.rate for trial in found.trials)
    return found.best if found.failed is None else plan.HELD_SHARE * found.best


def _warm_requests(rate: float, service_seconds: float) -> int:
    """So many that as many are under way at once as will be, whatever the first answer took to load."""
    seconds = min(max(_WARM_UP_SECONDS, 1.5 * service_seconds), _LONGEST_WARM_UP)
    return max(2, math.ceil(rate * seconds))


async def _self_check(last: Any, echo: int, stamps: Any, seconds: float) -> None:
    from probes.endpoint.load.self_check import checked

    busy = sum((a.ended or a.scheduled) - a.scheduled for a in last.answers)
    chunks = sum(len(a.chunks) for a in last.answers)
    streams = max(1, min(1000, math.ceil(busy / last.window.seconds)))
    rate = max(float(streams), chunks / last.window.seconds)
    with PIPE.stage("endpoint.self_check"):
        say(await checked(stamps, echo, streams, rate, seconds))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
