"""The load on services, as a child process: ``python -m probes.service.load.main`` with its settings on standard input.

Every request goes out at its moment, whatever became of those before it. A service is left in peace as soon as its
share is clear of the limit (`probes.common.looks`), or when none of its first requests were let in.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from bench.model import Code
from probes.common.looks import Looks
from probes.common.pipe import Record, Refused
from probes.service.plan import COLD_EVERY, MOST_NOT_LET_IN, Settings, settings
from probes.service.records import PIPE, Answer, Began, not_let_in

if TYPE_CHECKING:
    from probes.service.load.client import Client

_AHEAD_SECONDS = 0.2


def main() -> int:
    return PIPE.load(("aiohttp", "jsonschema"), partial(run, settings(sys.stdin.readline()), PIPE.say))


def run(told: Settings, tell: Callable[[Record], None]) -> Refused | None:
    """Ask every service to its end."""
    from probes.service.load.timing import TimingLoop

    loop = TimingLoop()
    try:
        loop.run_until_complete(_all(told, tell))
    except ValueError as error:  # of a file or a variable: its words are ours
        return Refused("unsupported", f"{Code.UNUSABLE}: {error}")
    finally:
        loop.close()
    return None


async def _all(told: Settings, tell: Callable[[Record], None]) -> None:
    from probes.service.load.client import Client

    clients = [Client(service) for service in told.services]
    looks = [service.looks(told.effort, told.seconds) for service in told.services]
    looks[0].interval(1, 1)  # imports what it needs now, not between two requests
    start = asyncio.get_running_loop().time() + _AHEAD_SECONDS
    async with asyncio.TaskGroup() as group:
        for number, client in enumerate(clients):
            begins = start + number / len(clients) / client.service.rate
            group.create_task(_Asked(client, looks[number], begins, told.limit, tell).to_the_end())


@dataclass(slots=True)
class _Asked:
    """One service under its schedule."""

    client: Client
    looks: Looks
    start: float
    limit: float
    tell: Callable[[Record], None]
    found: dict[int, Answer] = field(default_factory=dict)
    upto: int = 0  # all before it have come
    row: list[Answer] = field(default_factory=list)  # those of them that count
    enough: bool = False

    async def to_the_end(self) -> None:
        loop, rate = asyncio.get_running_loop(), self.client.service.rate
        self.tell(Began(self.client.service.name, round(self.start, 6)))
        async with self.client, asyncio.TaskGroup() as group:
            for n in range(self.looks.most):
                await asyncio.sleep(max(0.0, self.start + n / rate - loop.time()))
                if self.enough:
                    break
                group.create_task(self._ask(n, n / rate))

    async def _ask(self, n: int, at: float) -> None:
        self.found[n] = answer = await self.client.ask(n, self.start, at, n % COLD_EVERY == 0)
        self.tell(answer)
        while (following := self.found.get(self.upto)) is not None:
            self.upto += 1
            if self.client.service.counts(following.lag):
                self.row.append(following)
                self.enough = self.enough or self._is_enough()

    def _is_enough(self) -> bool:
        """At a look: is the share clear of the limit? And nobody goes on who is not let in."""
        n = len(self.row)
        if n in self.looks.sizes and self.looks.clear(sum(one.good for one in self.row), n, self.limit):
            return True
        return n == MOST_NOT_LET_IN and not_let_in(self.row)


if __name__ == "__main__":
    raise SystemExit(main())
