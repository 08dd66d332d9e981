"""An open-loop window: every request goes out at its moment, whatever became of those before it."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass

from bench.measure import procfs
from probes.endpoint.load.client import Client
from probes.endpoint.load.dialect import Dialect
from probes.endpoint.plan import Settings, arrivals
from probes.endpoint.records import Answer, Stage, Window

_AHEAD_SECONDS = 0.05
#: So many in a row that fail, and the rest is not sent: it would tell nothing more, and may do harm.
MOST_FAILURES_IN_A_ROW = 25


@dataclass(frozen=True, slots=True)
class Served:
    answers: tuple[Answer, ...]
    window: Window


async def serve(
    client: Client, dialect: Dialect, settings: Settings, stage: Stage, rate: float, count: int, seed: int
) -> Served:
    """``count`` requests at ``rate`` a second, Poisson; ends when each of them has ended."""
    planned, draw = arrivals(rate, count, seed), random.Random(seed)
    bodies = [dialect.body(draw) for _ in planned]
    loop, answers, row = asyncio.get_running_loop(), [], 0
    start, worked, waited = loop.time() + _AHEAD_SECONDS, time.process_time(), procfs.own_run_queue_seconds()
    tasks: set[asyncio.Task[None]] = set()
    sent, stopped = 0, asyncio.Event()

    async def one(at: float, body: bytes) -> None:
        nonlocal row
        answer = await client.ask(dialect.url, body, stage, start, at, dialect.output)
        answers.append(answer)
        row = row + 1 if answer.failed else 0
        if row >= MOST_FAILURES_IN_A_ROW:
            stopped.set()

    def launch(at: float, body: bytes) -> None:
        nonlocal sent
        if not stopped.is_set():
            sent += 1
            task = loop.create_task(one(at, body))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    handles = [loop.call_at(start + at, launch, at, body) for at, body in zip(planned, bodies, strict=True)]
    with suppress(TimeoutError):
        async with asyncio.timeout_at(start + planned[-1]):
            await stopped.wait()
    for handle in handles if stopped.is_set() else ():
        handle.cancel()
    await asyncio.sleep(0)
    while tasks:
        await asyncio.gather(*tasks)
    seconds, after = loop.time() - start, procfs.own_run_queue_seconds()
    delay = None if waited is None or after is None else round(max(0.0, after - waited) / seconds, 6)
    failed = f"{MOST_FAILURES_IN_A_ROW} requests in a row failed, the last with"
    window = Window(
        stage=stage, began=round(start, 6), rate=rate, seconds=round(seconds, 6), planned=len(planned), sent=sent,
        output=dialect.output, cpu_ratio=round((time.process_time() - worked) / seconds, 6),
        first_token_limit=settings.first_token_limit, inter_token_limit=settings.inter_token_limit,
        delay_ratio=delay, stopped=f"{failed} {answers[-1].code}" if stopped.is_set() else None,
    )  # fmt: skip
    return Served(tuple(sorted(answers, key=lambda answer: answer.scheduled)), window)
