"""What an open-loop server with known service times must report, by other means than the loop under test.

`one_at_a_time` is Lindley's recursion for a single server (D. V. Lindley, 1952). `batched` walks through events on a
plain list with integer nanoseconds; it shares no code with the product, only the stated policy: in each turn a chunk of
the oldest prompt that has a place, then one token for each request that was already running.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Truth:
    """Nanoseconds after the start at which each token of a request was there."""

    scheduled: int
    tokens: list[int]


def one_at_a_time(requests: list[tuple[int, int, int]], prefill: int, decode: int) -> list[Truth]:
    """(arrival, prompt, output) of each; ``prefill`` and ``decode`` ns a token; one slot, whole prompts."""
    free, found = 0, []
    for arrival, prompt, output in requests:
        start = max(arrival, free)
        first = start + prefill * prompt
        tokens = [first + decode * i for i in range(output)]
        free = tokens[-1]
        found.append(Truth(arrival, tokens))
    return found


def batched(
    requests: list[tuple[int, int, int]],
    prefill: int,
    decode: int,
    slots: int,
    chunk: int,
    window: int,
    spent: Iterator[int] | None = None,
) -> list[Truth]:
    """The same with ``slots`` places, chunks, and a decode step of ``decode`` ns for each request in it.

    ``spent``: what each step really took, in order, where the server was a real one; the known times after that.
    """
    really = spent or iter(())
    truths = [Truth(arrival, []) for arrival, _, _ in requests]
    left = [prompt for _, prompt, _ in requests]
    outputs = [output for _, _, output in requests]
    now, queue_from, filling = 0, 0, -1
    active: list[int] = []
    while now < window:
        arrived = sum(arrival <= now for arrival, _, _ in requests)
        if filling < 0 and queue_from < arrived and len(active) < slots:
            filling, queue_from = queue_from, queue_from + 1
        speaking = list(active)
        if filling < 0 and not speaking:
            later = [arrival for arrival, _, _ in requests[arrived:]]
            now = min(later[0], window) if later else window
            continue
        if filling >= 0:
            part = min(chunk, left[filling])
            left[filling] -= part
            now += next(really, part * prefill)
            if left[filling] == 0:
                truths[filling].tokens.append(now)
                if outputs[filling] > 1:
                    active.append(filling)
                filling = -1
        if speaking:
            now += next(really, decode * len(speaking))
            for index in speaking:
                truths[index].tokens.append(now)
                if len(truths[index].tokens) == outputs[index]:
                    active.remove(index)
    return truths
