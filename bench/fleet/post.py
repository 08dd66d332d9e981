"""The door to the hosts through a folder that all of them see, where the site's own launcher has started them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from bench.fleet.agent import Agent
from bench.fleet.errors import FleetError, Occupied
from bench.fleet.mail import Letter, Mail, Sight, Watch
from bench.fleet.transport.base import Kind, Listen, Reply
from bench.measure import tools
from bench.measure.tools import Signals
from bench.store.errors import one_line

POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0
_FENCE_SECONDS = 1.0
_LOOKS_PER_SECOND = 500


@dataclass(slots=True)
class _Sent:
    id: str
    to: str
    at: float


@dataclass(slots=True)
class Post:
    """The leader's. ``agent`` is the leader's own node, which works while the leader waits. ``come_by`` (monotonic
    seconds): who is not here by then does not come.
    """

    mail: Mail
    watch: Watch
    agent: Agent
    signals: Signals
    come_by: float
    _token: str = field(default_factory=lambda: secrets.token_hex(4))
    _number: int = 0
    _fenced: float = 0.0

    def __post_init__(self) -> None:
        self.mail.put("leader", {"who": self.agent.who, "rank": self.agent.rank})

    @property
    def hosts(self) -> tuple[str, ...]:
        return self.watch.hosts

    def assemble(self) -> dict[str, Letter]:
        """Wait, at most until ``come_by``, for those who have not come. What each one who is here says of itself."""
        while any(self._may_come(rank) for rank in range(len(self.hosts))):
            self._tick()
        here = [rank for rank in range(len(self.hosts)) if self.watch.look(rank) is Sight.HERE]
        return {self.hosts[rank]: self.watch.card(rank) for rank in here}

    def _may_come(self, rank: int) -> bool:
        sight = self.watch.look(rank)
        return sight is Sight.UNKNOWN or (sight is Sight.ABSENT and time.monotonic() < self.come_by)

    def each(
        self, commands: Mapping[str, str], limit: float, *, width: int | None = None, listen: Listen = lambda _: None
    ) -> dict[str, Reply]:
        """One reply for every host. All are at work at once, so any ``width`` is given."""
        self.agent.step()  # a beat, after what the leader may have worked at meanwhile
        began = time.monotonic()
        replies: dict[str, Reply] = {}
        sent: dict[str, _Sent] = {}
        while True:
            for host in [host for host in commands if host not in replies]:
                reply = self._heard(host, commands[host], limit, sent)
                if reply is not None:
                    replies[host] = _after(reply, time.monotonic() - began)
                    listen(replies[host])
            if len(replies) == len(commands):
                return replies
            self._tick()

    def dismiss(self, why: str) -> None:
        """Tell all who are here that it is over; as far as the storage takes it, for they do not wait for ever."""
        with suppress(FleetError):
            for rank in range(len(self.hosts)):
                if rank != self.agent.rank and self.watch.look(rank) is Sight.HERE:
                    to = str(self.watch.card(rank).get("who"))
                    self.mail.put(f"job.{rank}", {"id": self._name(), "to": to, "ended": why})
            self.mail.put("leader", {})

    def _heard(self, host: str, script: str, limit: float, sent: dict[str, _Sent]) -> Reply | None:
        """The host's reply, None as long as there is hope for one; its script is sent once it is here."""
        rank, now = self.hosts.index(host), time.monotonic()
        sight, letter = self.watch.look(rank), sent.get(host)
        if letter is not None and (answer := self._answer(host, rank, letter)) is not None:
            return answer
        if sight in (Sight.GONE, Sight.LEFT) or (sight is Sight.ABSENT and now > self.come_by):
            return Reply(host, Kind.UNREACHABLE, detail=self._missing(host, sight))
        if sight is Sight.HERE and letter is None:
            sent[host] = self._send(rank, script, limit)
        elif letter is not None and self.watch.card(rank).get("who") != letter.to:
            return Reply(host, Kind.UNREACHABLE, detail="it was started anew in the middle of its job")
        elif letter is not None and now - letter.at > limit + _GRACE_SECONDS:
            return Reply(host, Kind.LATE, detail="it is here, and has not answered within the leader's limit")
        return None

    def _missing(self, host: str, sight: Sight) -> str:
        silent = f" for {self.watch.silence:.0f} s" if sight is Sight.GONE else ""
        return f"{host} {sight.value}{silent}: its task was not started, was ended, or its node is down"

    def _send(self, rank: int, script: str, limit: float) -> _Sent:
        name, to = self._name(), str(self.watch.card(rank).get("who"))
        self.mail.put(f"job.{rank}", {"id": name, "to": to, "script": script, "limit": limit})
        return _Sent(name, to, time.monotonic())

    def _answer(self, host: str, rank: int, letter: _Sent) -> Reply | None:
        found = self.mail.get(f"reply.{rank}")
        if found is None or found.get("id") != letter.id:
            return None
        kind, rc, stdout = (found.get(word) for word in ("kind", "rc", "stdout"))
        detail = one_line(str(found.get("detail") or ""))
        if kind == Kind.DONE.value and type(rc) is int and isinstance(stdout, str):
            return Reply(host, Kind.DONE, rc, stdout, detail)
        return Reply(host, Kind.LATE if kind == Kind.LATE.value else Kind.NOT_RUN, detail=detail)

    def _name(self) -> str:
        self._number += 1
        return f"{self._token}.{self._number}"

    def _tick(self) -> None:
        """A moment of waiting, in which this node does its own part. Raises Interrupted, Occupied."""
        self.agent.step()
        if time.monotonic() - self._fenced > _FENCE_SECONDS:
            self._fenced = time.monotonic()
            leader = self.mail.get("leader")
            if leader is not None and leader.get("who") != self.agent.who:
                raise Occupied("another member leads now, because this one was silent for too long")
        tools.pause(max(POLL_SECONDS, len(self.hosts) / _LOOKS_PER_SECOND), self.signals)


def _after(reply: Reply, seconds: float) -> Reply:
    return Reply(reply.host, reply.kind, reply.rc, reply.stdout, reply.detail, seconds)
