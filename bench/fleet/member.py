"""One task a node, started by the site's own launcher: together they are a whole fleet run, without ssh.

All start the same command. The lowest rank that is alive leads: it is the controller, with the folder for its way to
the others, and walks through the very phases that ``bench fleet run`` does. When it dies the next one goes on where
the folder says that it was, as a controller that was killed does with ``--resume``. So every wait is bounded: for those
who never come once, for one who falls silent once, and what was asked of them has its outcome.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.fleet.agent import Agent
from bench.fleet.errors import FleetError, Occupied
from bench.fleet.files import PLAN, make_folder
from bench.fleet.jobs import Listen, Note
from bench.fleet.join.join import Judgement
from bench.fleet.mail import Letter, Mail, Sight, Watch
from bench.fleet.plan import HostVars, Plan, load
from bench.fleet.post import POLL_SECONDS, Post
from bench.fleet.run import Session
from bench.judge.fleet.model import Fleet
from bench.measure import tools
from bench.measure.probe import Interrupted
from bench.measure.processes import adopt_orphans
from bench.measure.tools import Signals
from bench.store.errors import one_line

DONE = "done"
_ID = re.compile(r"[A-Za-z0-9]{1,40}")


@dataclass(slots=True)
class Member:
    """``host`` is this node among ``hosts``. ``plan`` makes the plan of the whole run for nodes with these variables,
    by this member's own command line. ``wait``: for those who have not come, in seconds.
    """

    folder: Path
    hosts: tuple[str, ...]
    host: str
    variables: HostVars
    plan: Callable[[Mapping[str, HostVars]], Plan]
    by: Judgement
    signals: Signals
    wait: float = 120.0
    listen: Listen = lambda _: None
    _mail: Mail = field(init=False)
    _watch: Watch = field(init=False)
    _agent: Agent = field(init=False)

    def take_part(self) -> Fleet | None:
        """Until the run is over. The fleet, when this member led at the end. Raises FleetError, Interrupted."""
        make_folder(self.folder)
        self._resumed(self.plan({}))
        adopt_orphans()
        self._mail = Mail(self.folder)
        self._watch = Watch(self._mail, self.hosts)
        card = {"host": self.host, "address": self.variables.address, "python": self.variables.python}
        self._agent = Agent(self._mail, self.hosts.index(self.host), card, len(self.hosts))
        with closing(self._mail):
            self._agent.begin()
            try:
                return self._follow()
            finally:
                self._agent.close()

    def _follow(self) -> Fleet | None:
        """Do what the leader says; lead when nobody before this one can."""
        began = led = time.monotonic()
        while True:
            self._agent.step()
            if self._agent.ended is None and self._is_next(began):
                self._agent.step()  # a leader that has left said so before
                if self._agent.ended is None:
                    try:
                        return self._lead(began + self.wait)
                    except Occupied as error:
                        self._hopeless(error, led)
            else:
                led = time.monotonic()
            if self._agent.ended == DONE:
                return None
            if self._agent.ended is not None:
                raise FleetError(f"the leader ended the run: {self._agent.ended}")
            tools.pause(POLL_SECONDS, self.signals)

    def _is_next(self, began: float) -> bool:
        """Whether nobody leads, and all who would before this one are gone, or have not come in time."""
        if self._is_led():
            return False
        early = time.monotonic() - began < self.wait
        for rank in range(self._agent.rank):
            sight = self._watch.look(rank)
            if sight in (Sight.HERE, Sight.UNKNOWN) or (sight is Sight.ABSENT and early):
                return False
        return True

    def _is_led(self) -> bool:
        """Whether another member leads, or may do so."""
        leader = self._mail.get("leader") or {}
        rank = leader.get("rank")
        if type(rank) is not int or not 0 <= rank < len(self.hosts) or rank == self._agent.rank:
            return False
        sight = self._watch.look(rank)
        if sight is Sight.UNKNOWN:
            return True
        return sight is Sight.HERE and self._watch.card(rank).get("who") == leader.get("who")

    def _hopeless(self, error: Occupied, led: float) -> None:
        """The storage may hold a dead leader's lock for a while; not for ever. Raises Occupied."""
        if time.monotonic() - led > self.wait:
            raise error
        tools.pause(1.0, self.signals)

    # --- leading

    def _lead(self, come_by: float) -> Fleet:
        post = Post(self._mail, self._watch, self._agent, self.signals, come_by)
        why = "it was interrupted"
        try:
            here = post.assemble()
            for host in here:
                self.listen(Note("rendezvous", host, "here"))
            fleet = Session(self.folder, self._planned(here), post, self.listen).run(self.by)
            why = DONE
            return fleet
        except FleetError as error:
            why = "" if isinstance(error, Occupied) else str(error)
            raise
        except Interrupted:
            why = ""  # the next one goes on
            raise
        finally:
            if why:
                post.dismiss(why)

    def _planned(self, here: Mapping[str, Letter]) -> Plan:
        """The plan with the addresses of today, kept from an earlier start in all that must not change."""
        plan = self._resumed(self.plan({host: self._variables(host, here.get(host, {})) for host in self.hosts}))
        plan.save(self.folder)
        return plan

    def _resumed(self, plan: Plan) -> Plan:
        """This command line's plan, under the id of the run that was begun here. Raises FleetError for another one."""
        if not (self.folder / PLAN).exists():
            return plan
        old = load(self.folder)
        same = replace(plan, id=old.id, inventory=old.inventory, variables=old.variables)
        if same != old:
            raise FleetError(
                one_line(f"{self.folder / PLAN}: a run of other hosts or with other options was begun there; "
                         "name another folder")
            )  # fmt: skip
        if not _ID.fullmatch(old.id):
            raise FleetError(one_line(f"{self.folder / PLAN}: id: is none of ours; name another folder"))
        return replace(plan, id=old.id)

    def _variables(self, host: str, card: Letter) -> HostVars:
        """The common ones, with what the host says of itself."""
        address, python = card.get("address"), card.get("python")
        return replace(
            self.variables,
            address=address if isinstance(address, str) and address else host,
            python=python if isinstance(python, str) and python else self.variables.python,
        )
