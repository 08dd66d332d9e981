"""Ray: one task a node, tied to it, never tried again; a node that dies is its own outcome.

Ray itself runs in a child process (`bench.fleet.transport.ray_driver`): it is heavy, starts threads, and hangs on a
cluster that has gone. What a task runs is no child of Ray's worker, so it outlives a controller that is killed, as it
does over ssh; ``--resume`` finds it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.fleet.transport.base import OnReply, Replies, Reply, ReplyKind, last_line
from bench.fleet.transport.child import END, RUN, Child, Scripts, ended, limited
from bench.measure import tools
from bench.measure.tools import Signals
from bench.store.errors import one_line

_CONNECT_SECONDS, _GRACE_SECONDS = 90.0, 30.0
_TASK = f'limit="$0"; script="$1"\n{RUN}'


@dataclass(slots=True)
class Ray(Scripts):
    """Scripts on the nodes of the cluster at ``address``: HOST:PORT or ``auto`` on one of its nodes, ``ray://...``."""

    address: str
    signals: Signals | None = None
    _driver: Child | None = None

    def hosts(self, pattern: str = "all") -> dict[str, dict[str, Any]]:
        """The live nodes with CPUs (a head without any is given no work), by the names that ``ray start --node-name``,
        else the machine, gave them; a dead one where the pattern names it in full. Raises UserError.
        """
        nodes = {str(node["name"]): node for answer in self._ask({}, _CONNECT_SECONDS) for node in answer["nodes"]}
        words = pattern.split(",")
        there = {name: node for name, node in nodes.items() if name in words or (node["alive"] and node["works"])}
        return {name: {"bench_addr": there[name]["address"]} for name in limited(there, pattern)}

    def _each(self, commands: Mapping[str, str], limit: float, file: Path | None, listen: OnReply) -> dict[str, Reply]:
        replies = Replies(commands, listen)
        request = {"scripts": dict(commands), "task": _TASK, "limit": limit, "end": END, "file": file and str(file),
                   "seconds": limit + _GRACE_SECONDS}  # fmt: skip
        for answer in self._ask(request, limit + 2 * _GRACE_SECONDS + _CONNECT_SECONDS):
            host = str(answer["host"])
            if "out" in answer:
                *lines, last = answer["out"].splitlines() or [""]
                ended(replies, host, lines, last)
            else:
                replies.give(host, ReplyKind(answer["kind"]), str(answer["detail"]))
        return replies.complete(ReplyKind.UNREACHABLE, "Ray has ended before it answered")

    def _ask(self, request: Mapping[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """What the driver answers to that request, line by line. Raises UserError, Interrupted."""
        driver = self._connected()
        try:
            driver.send(json.dumps(request).encode() + b"\n")
            for _ in driver.polls(seconds, self.signals):
                for answer in map(json.loads, driver.out.lines()):
                    if "error" in answer:
                        raise UserError(one_line(f"--ray {self.address}: {answer['error']}"))
                    if "over" in answer:
                        return
                    yield answer
            if not request:
                said = last_line("\n".join(driver.err.lines()))
                raise UserError(one_line(f"--ray {self.address}: no answer from there; {said}"))
        except BaseException:
            self._end()
            raise
        self._end()

    def _connected(self) -> Child:
        """The driver, started when there is none. It connects with the first request."""
        if self._driver is None:
            env = {**tools.python_environment(), **{k: v for k, v in os.environ.items() if k.startswith("RAY_")}}
            self._driver = Child([sys.executable, "-m", "bench.fleet.transport.ray_driver", self.address], env)
        return self._driver

    def _end(self) -> None:
        if self._driver is not None:
            self._driver.end()
        self._driver = None
