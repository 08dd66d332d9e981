"""What a probe is, and what it is given.

A probe is a module, or a package's ``probe.py``, whose last line is ``PROBE = Probe(...)``. It either *measures* (takes
its turn, alone on the node) or *watches* (is sampled once a second and at every stage's ends while others measure).
All that it learns comes through ``Context.tools``, so that every figure can be traced to recorded output and replayed
from it.
"""

from __future__ import annotations

import difflib
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from bench.model import Code, Effort, Measurement, Metric, Outcome, ProbeResult, Request, Series, Source, code_of


class ProbeError(Exception):
    """A probe ended without measurements. ``reason`` is a code and a sentence: ``tool_missing: fio is not installed``.

    ``completed`` is what a tool had printed until then, where one was running.
    """

    outcome = Outcome.FAILED
    completed: Completed | None = None

    def __init__(self, code: Code, text: str, remedy: str | None = None) -> None:
        self.code: Code | None = code
        self.reason = _one_line(f"{code}: {text}")
        self.remedy = remedy
        super().__init__(self.reason)

    @classmethod
    def told(cls, reason: str, remedy: str | None = None) -> Self:
        """The same from a whole reason, as a child program, a recording or a peer words it."""
        error = cls(Code.INTERNAL, "", remedy)
        error.code, error.reason = code_of(reason), _one_line(reason)
        error.args = (error.reason,)
        return error


def _one_line(text: str) -> str:
    """Return it as one printable line: a tool's or a peer's own words may hold line ends and terminal escapes."""
    if text.isprintable():
        return text
    return " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())


class Failed(ProbeError):
    """It should have worked."""


class Unsupported(ProbeError):
    """This node cannot: a tool, a device, a permission is missing."""

    outcome = Outcome.UNSUPPORTED


class Skipped(ProbeError):
    """The operator said no."""

    outcome = Outcome.SKIPPED


class TimedOut(ProbeError):
    """The tool, the probe or the run used up its time."""

    outcome = Outcome.TIMED_OUT


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived; the process tree below is already ended when this is raised."""

    completed: Completed | None = None

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


class Completed(NamedTuple):
    """A tool that ended by itself. Seconds are wall clock."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float


class Option(NamedTuple):
    """What ``bench run --option PROBE.NAME=VALUE`` may set for a probe. A run document keeps the value as text.

    ``quotable``: its text may be repeated to the user; not that of an address, which may hold a secret.
    ``type`` turns the text into the value and raises ValueError for one that is none. ``choices`` are all the texts
    there are. ``check`` looks at a value before anything is measured (the file must be there); it raises ValueError,
    and a replay does without it. ``affects_comparability``: figures that were measured with different values are not
    of one series. ``code`` is the reason's code where a stored request asks for a value that is none. ``typed``: the
    words that a person types for its text, each behind ``--NAME``, where that is another than the text.
    """

    name: str
    help: str
    type: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    check: Callable[[Any], object] | None = None
    default: Any = None
    affects_comparability: bool = True
    code: Code = Code.BAD_OPTION
    quotable: bool = True
    typed: Callable[[str], Sequence[str]] | None = None

    def value(self, text: str) -> Any:
        """The value that the text stands for. Raises ValueError."""
        if self.choices and text not in self.choices:
            near = difflib.get_close_matches(text, self.choices, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{text!r} is not one of {', '.join(self.choices)}{hint}")
        return self.type(text)

    @property
    def summary(self) -> str:
        """The help with all the choices there are, for lists of options."""
        return f"{self.help}: {', '.join(self.choices)}" if self.choices else self.help


def positive_number(text: str) -> float:
    """A finite number above 0. Raises ValueError."""
    with suppress(ValueError):
        if 0.0 < (value := float(text)) < math.inf:
            return value
    raise ValueError(f"{text!r} is not a number above 0")


def positive_integer(text: str) -> int:
    """A whole number above 0. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{text!r} is not a whole number above 0")
    return int(text)


class Check(NamedTuple):
    """One line of ``bench doctor``: can this be measured here, and if not, what fixes it?"""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


class Call(NamedTuple):
    """One tool to run. ``name`` labels its recorded output; ``timeout`` in seconds; no standard input by default.

    ``env`` is added to the few names that every tool sees. ``on_line`` is told each line of standard output at once.
    """

    argv: tuple[str, ...]
    name: str
    timeout: float
    stdin: str | None = None
    env: Mapping[str, str] | None = None
    on_line: Callable[[str], None] | None = None


def python_argv(module: str, *arguments: str) -> list[str]:
    """This Python with ``-m module``."""
    return [sys.executable, "-m", module, *arguments]


class Tools(ABC):
    """The way to processes, as a probe sees it. Every call is bounded, recorded, and answered again by a replay."""

    @abstractmethod
    def require(self, tool: str) -> str:
        """The absolute path of an executable. Raises Unsupported with the command that installs it."""

    @abstractmethod
    def call(self, call: Call) -> Completed:
        """Run it to the end.

        Raises Unsupported if the tool is missing, TimedOut (the tree is ended first), Interrupted.
        A return code other than 0 is the caller's to judge: tools lie in both directions.
        """

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        name: str,
        timeout: float,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """`call`, its words given one by one."""
        return self.call(Call(tuple(map(str, argv)), name, timeout, stdin, env, on_line))

    def python(
        self, module: str, *arguments: str, name: str, timeout: float, on_line: Callable[[str], None] | None = None
    ) -> Completed:
        """``run`` with this Python and ``-m module``: how the programs in a probe's ``load/`` are started."""
        return self.run(python_argv(module, *arguments), name=name, timeout=timeout, on_line=on_line)

    @abstractmethod
    def serve(
        self, argv: Sequence[str | Path], *, name: str, ready: str, timeout: float
    ) -> AbstractContextManager[str]:
        """A server that lives as long as the ``with``; yields the first line that contains ``ready``.

        Raises Failed when it ends before, TimedOut when it is not ready in time.
        """

    @abstractmethod
    def record(self, name: str, text: str) -> str:
        """Keep ``text`` as evidence. A replay answers with the recorded text in place of the one given."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Sleep, but wake for a signal (Interrupted) and never past the probe's deadline (TimedOut)."""


class Watch(Protocol):
    """An observer. ``sample`` returns one JSON-able object; the runner adds ``t`` (seconds) and ``stage``."""

    def sample(self, event: str) -> Mapping[str, Any]:
        """``event`` is ``tick`` (once a second), ``begin`` or ``end`` (of a stage)."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Context:
    """What a probe may use. ``seconds`` is the time it should take; ``remaining()`` what is left until it is ended."""

    probe: Probe
    request: Request
    tools: Tools
    seconds: float
    remaining: Callable[[], float]
    workspace: Callable[[Path, int], AbstractContextManager[Path]]
    stage: Callable[[str], AbstractContextManager[None]]
    progress: Callable[[str, float | None], None]
    seed: int = 7
    watched_since: float = 0.0
    warnings: list[str] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    @property
    def effort(self) -> Effort:
        return self.request.effort

    def warn(self, text: str) -> None:
        """A doubt that does not void the numbers; shown on the screen, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def each(
        self, named: Sequence[str], measure: Callable[[int, str], Sequence[Measurement]], *, show: bool = False
    ) -> list[Measurement]:
        """What ``measure`` found of each. One that fails is a warning if another did not, else the first one's error.

        ``show``: the warning begins with its name.
        """
        found: list[Measurement] = []
        failures: list[ProbeError] = []
        for number, name in enumerate(named):
            try:
                found += measure(number, name)
            except ProbeError as error:
                failures.append(error)
                self.warn(f"{name}: {error.reason}" if show else error.reason)
        if failures and not found:
            raise failures[0]
        return found

    def clock(self) -> float | None:
        """When the clock of the watchers began, by the machine's monotonic one: what is stamped by that can be laid
        beside what they saw. None where a recording does not say.
        """
        with suppress(Skipped, ValueError):
            return positive_number(self.tools.record("clock", f"{self.watched_since:.6f}"))
        return None

    def option(self, name: str) -> Any:
        """The value of one of the probe's own options. Raises KeyError for one that it does not declare."""
        return self.probe.option(self.request, name)


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe's declaration. Exactly one of ``measure`` and ``watch`` is given; a watcher has ``parse`` too.

    What it does: ``parse`` turns a watcher's recorded samples into measurements (pure). ``doctor`` says what can be
    measured here, ``about`` what it knows of the node, by name, before anything is measured. ``calibrate`` runs the
    instrument against a known truth and says its error on this machine, within a minute. ``check`` raises ProbeError
    for a request that no machine could measure (a name that is none): wrong usage. ``preview``: what it would send to
    somebody else's server, in lines for a person. ``options`` are all that ``--option`` may set; those of one name in
    several probes mean the same.

    When and how long: ``seconds``, by effort, is the time it should take without waiting for anything (its share of
    `bench.measure.budget`), for each directory where it is ``per_path``; ``peer_seconds`` is that of each peer, where
    there are peers; ``card_seconds`` is added where the node has several cards. The runner ends it at twice that and
    30 s. ``order``: light probes run before heavy ones. ``needs``: the option without which there is nothing to
    measure and no time is planned. ``on_cards``: it loads the accelerators, which a server under test has for itself.

    How its figures count: ``guards_itself``: it detects a contended host better than the look before the run, which
    then does not void its figures. ``stops``: why nothing else needs to be measured; None where the run goes on.
    ``pool`` makes one set of measurements of several rounds' (pure), for figures that follow from others; else each is
    pooled by itself (`bench.judge.pooling.pooled`). ``best``: its shares and quantiles if a round goes as well as it
    can; what they leave undecided no further round decides. ``once``: it goes on by itself for as long as that helps,
    so a further round decides no more. ``changed``: how the input that it ``needs`` differs from what a run's
    measurements say of it. ``also``: metrics of another probe that this one measures too, of something else.
    ``facts``: of the node, by dotted name, on which its series depend beside the machine itself: when they change,
    earlier nights are another epoch; ``mounts`` is the mount of the series' own path, ``accelerator`` and ``peers``
    (for series of all of them) are what was asked.
    """

    name: str
    help: str
    metrics: tuple[Metric, ...]
    seconds: Mapping[Effort, float]
    measure: Callable[[Context], Sequence[Measurement]] | None = None
    watch: Callable[[Context], Watch] | None = None
    parse: Callable[[Sequence[Mapping[str, Any]], Context], Sequence[Measurement]] | None = None
    doctor: Callable[[Tools, Request], Sequence[Check]] | None = None
    order: int = 50
    peer_seconds: Mapping[Effort, float] | None = None
    card_seconds: Mapping[Effort, float] | None = None
    per_path: bool = False
    guards_itself: bool = False
    calibrate: Callable[[Tools], Sequence[Check]] | None = None
    check: Callable[[Request], None] | None = None
    options: tuple[Option, ...] = ()
    stops: Callable[[Sequence[Measurement]], str | None] | None = None
    pool: Callable[[Sequence[Sequence[Measurement]]], Sequence[Measurement]] | None = None
    best: Callable[[Request], Sequence[Measurement]] | None = None
    facts: tuple[str, ...] = ()
    about: Callable[[Tools], Mapping[str, Any]] | None = None
    needs: str | None = None
    changed: Callable[[Tools, Sequence[Measurement], str], str | None] | None = None
    once: bool = False
    also: tuple[str, ...] = ()
    on_cards: bool = False
    preview: Callable[[Request], Sequence[str]] | None = None

    def terms(self, request: Request) -> dict[str, str]:
        """The values of the options that change what its series mean, as text."""
        named = [option.name for option in self.options if option.affects_comparability]
        return {name: self._told(request, name) for name in named}

    def _told(self, request: Request, name: str) -> str:
        try:
            return str(self.option(request, name))
        except ProbeError as error:  # a stored value that is none any more is still not another one
            return error.reason

    def option(self, request: Request, name: str) -> Any:
        """The value that a request has for a declared option, else its default.

        Raises KeyError for one that is not declared, Unsupported for a stored value that is none.
        """
        declared = next((option for option in self.options if option.name == name), None)
        if declared is None:
            raise KeyError(f"{self.name} declares no option {name!r}")
        given = request.options.get(f"{self.name}.{name}", request.options.get(name))
        try:
            return declared.default if given is None else declared.value(str(given))
        except ValueError as error:
            raise Unsupported(declared.code, f"{name}: {error}", f"--option {self.name}.{name}=VALUE") from error

    def time(self, request: Request, cards: int = 1) -> float:
        """Seconds that it should take for this request: for each of its peers, or directories, where that is so."""
        if self.needs is not None and self.needs not in request.options:
            return 0.0
        beside = self.card_seconds[request.effort] if self.card_seconds and cards > 1 else 0.0
        if self.peer_seconds is not None and request.peers:
            return self.peer_seconds[request.effort] * len(request.peers) + beside
        return self.seconds[request.effort] * (max(1, len(request.storage)) if self.per_path else 1) + beside

    def __post_init__(self) -> None:
        if (self.measure is None) == (self.watch is None) or (self.watch is None) != (self.parse is None):
            raise ValueError(f"{self.name}: a probe either measures, or watches and parses")


class Progress(NamedTuple):
    """What is going on: for a live display. ``fraction`` of the probe, 0 to 1, or None when it is not known."""

    probe: str
    text: str
    fraction: float | None = None
    ended: ProbeResult | None = None
