"""The client against its own echo: how late it stamps at the load it had, and how much it can take at all."""

from __future__ import annotations

import asyncio
import json

from bench.judge.statistics import quantile
from probes.common.http import address
from probes.endpoint.load.client import Client
from probes.endpoint.load.clock import StampingSelector
from probes.endpoint.records import Answer, SelfCheck

#: Of a time between tokens of 30 ms (MLPerf Inference, interactive) this is a sixth.
LIMIT_SECONDS = 0.005
#: Where the search for the highest rate begins, if the load had less.
_STREAMS, _CHUNKS_PER_SECOND = 64, 500.0
_ROUND_SECONDS = 0.6
_GAPS = 5  # of a stream, that its last one is a small part of the round
_TIMES = 3.0  # from one round to the next
_BEGIN_SECONDS = 0.0015  # from the beginning of one stream to that of the next
_MOST_CHUNKS_PER_SECOND = 32_000.0


async def checked(stamps: StampingSelector, port: int, streams: int, rate: float, seconds: float) -> SelfCheck:
    """At ``streams`` streams and ``rate`` chunks a second, then ever more for as long as it keeps the limit."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with Client(address(f"http://127.0.0.1:{port}"), None, stamps, timeout=5.0) as client:
        client.counts_tokens = False
        await _round(client, streams, rate, 0.2)  # opens the connections
        delays, _ = await _round(client, streams, rate, min(1.5, seconds / 3))
        highest, reached, tried = 0.0, False, max(rate, _CHUNKS_PER_SECOND)
        while not reached and tried <= _MOST_CHUNKS_PER_SECOND:
            if highest and until - loop.time() < 2 * _ROUND_SECONDS:
                break
            many = max(streams, _STREAMS)
            lasts = max(_ROUND_SECONDS, _GAPS * many / tried)
            late, achieved = await _round(client, many, tried, lasts)
            reached = not late or quantile(late, 0.99) > LIMIT_SECONDS or achieved < 0.8 * tried
            highest, tried = (highest if reached else achieved), _TIMES * tried
    return SelfCheck(tuple(round(d, 6) for d in delays), streams, rate, round(highest, 1), LIMIT_SECONDS, reached)


async def _round(client: Client, streams: int, rate: float, seconds: float) -> tuple[list[float], float]:
    """Seconds from each chunk's leaving to its stamp, and chunks a second.

    Of those that left when all streams had begun: a load begins them one after another, not all at once.
    """
    gap = streams / rate
    spread = max(gap, _BEGIN_SECONDS * streams)
    chunks = max(1, round((seconds + spread) / gap))
    body = json.dumps({"max_tokens": chunks, "user": f"{gap:.9f}"}).encode()
    start, url = asyncio.get_running_loop().time(), f"{client.address.url}/echo"

    async def one(at: float) -> Answer:
        await asyncio.sleep(at)
        return await client.ask(url, body, "warm-up", start, at, chunks)

    answers = await asyncio.gather(*(one(n * spread / streams) for n in range(streams)))
    seen = [
        (left / 1e6, start + at) for answer in answers for at, left in zip(answer.chunks, answer.counts, strict=False)
    ]
    after = [(left, at) for left, at in seen if left >= start + spread]
    lasted = max((at for _, at in after), default=0.0) - start - spread
    return [at - left for left, at in after], len(after) / lasted if after else 0.0
