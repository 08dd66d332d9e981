"""What is known of a fleet: what became of each named host, of each pair, who deviates from its siblings, one verdict.

A host that was named has exactly one `State`. Only three of them stand on a result of its own; all others are holes,
and a hole never passes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from bench.model import Decision, Frozen, Label, Name, Text

SCHEMA = "aiready-bench/fleet"
SCHEMA_VERSION = 1


class State(StrEnum):
    """What became of a named host."""

    PASS = "pass"  # measured, and GO for every profile
    FAIL = "fail"  # measured, and NO-GO for one
    INCONCLUSIVE = "inconclusive"  # measured, and one profile could not be decided
    BAD_RESULT = "bad-result"  # it answered with something that is not a run of that host
    NODE_TIMEOUT = "node-timeout"  # its own bound ended it
    CONTROLLER_TIMEOUT = "controller-timeout"  # it had not ended when the controller's bound was reached
    UNREACHABLE = "unreachable"  # no connection
    LOST = "lost"  # started, or said to be started, and no result came
    NOT_RUN = "not-run"  # never started
    DUPLICATE = "duplicate"  # answered twice, or is the same machine as another name


ANSWERED = frozenset({State.PASS, State.FAIL, State.INCONCLUSIVE})

Host = Annotated[str, Field(min_length=1, max_length=255)]
Level = Literal["warn", "act"]


class NodeOutcome(Frozen):
    """One named host: its one state, and what was measured if it answered.

    ``reason`` begins with a machine-readable word. ``failed`` are the required gates that did not pass, in short.
    """

    host: Host
    state: State
    reason: Text | None = None
    hostname: Text | None = None
    machine: Text | None = None
    node_class: Text | None = None
    run: Text | None = None
    decisions: dict[str, Decision] = Field(default_factory=dict)
    score: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = None
    failed: tuple[Text, ...] = ()
    attempt: int = 1


class PairOutcome(Frozen):
    """One ordered pair: rates in bytes per second as the client saw them, null where nothing was measured.

    A pair that passed has a ``reason`` where it could not write by RDMA although the client has the hardware.
    """

    round: int
    client: Host
    server: Host
    state: State
    reason: Text | None = None
    send_bytes_per_second: FiniteFloat | None = None
    receive_bytes_per_second: FiniteFloat | None = None
    rdma_bytes_per_second: FiniteFloat | None = None
    stand_in: Text | None = None


class Outlier(Frozen):
    """A figure that is worse than that of its siblings. ``deviation_ratio`` is relative to what is expected, > 0.

    ``part`` says what is slow: ``disk /data``, ``port``, ``GPU 3``, ``CPU``, ``path to n7``. ``confirmed`` when
    a second and separate measurement says the same.
    """

    host: Host
    part: Text
    metric: Name
    labels: dict[Name, Label] = Field(default_factory=dict)
    observed: FiniteFloat
    expected: FiniteFloat
    deviation_ratio: FiniteFloat
    modified_z: FiniteFloat
    siblings: int
    level: Level
    confirmed: bool = False


class Shift(Frozen):
    """All siblings of a class moved together against their baseline: the fleet changed, not one node.

    ``shift_ratio`` is towards worse; ``level`` is ``act`` where it decides, ``confirmed`` when a second and separate
    measurement of the same hosts shows it too.
    """

    node_class: Text
    metric: Name
    labels: dict[Name, Label] = Field(default_factory=dict)
    shift_ratio: FiniteFloat
    nodes: int
    level: Level = "warn"
    confirmed: bool = False


class Collective(Frozen):
    """An all-reduce over the survivors. ``bus_bytes_per_second`` by the definition of nccl-tests, over all ranks.

    ``ranks`` are the hosts that took part, ``world`` is how many ranks they had together (0: unknown).
    """

    state: State
    reason: Text | None = None
    ranks: tuple[Host, ...] = ()
    world: int = 0
    message_bytes: int = 0
    bus_bytes_per_second: FiniteFloat | None = None
    straggler: Text | None = None
    straggler_late_seconds: FiniteFloat | None = None
    rows: tuple[tuple[Host, State, Text | None], ...] = ()


class FleetVerdict(Frozen):
    """One profile's answer for the fleet. ``nodes`` counts states or decisions; ``score`` is the weakest node's."""

    profile: Text
    digest: Text
    decision: Decision
    score: Annotated[FiniteFloat, Field(ge=0, le=100)]
    nodes: dict[str, int]
    reasons: tuple[Text, ...] = ()


class SharedStorage(Frozen):
    """One storage system read by one node alone, and by all at once: bytes per second that each one got."""

    path: Text
    alone: dict[str, FiniteFloat] = Field(default_factory=dict)
    together: dict[str, FiniteFloat] = Field(default_factory=dict)
    missing: tuple[Host, ...] = ()


class Fleet(Frozen):
    """Everything that is known of one fleet run. Every expected host is in ``nodes``, once, in the order named.

    ``measured_at`` is when the oldest of the runs that count began, for whoever asks whether they still speak.
    """

    schema_name: Annotated[Literal["aiready-bench/fleet"], Field(alias="schema")] = "aiready-bench/fleet"
    schema_version: int = SCHEMA_VERSION
    id: Text
    joined_at: Text | None = None
    measured_at: Text | None = None
    bench_version: Text | None = None
    nodes: tuple[NodeOutcome, ...]
    strangers: tuple[Text, ...] = ()
    pairs: tuple[PairOutcome, ...] = ()
    collective: Collective | None = None
    shared: tuple[SharedStorage, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    shifts: tuple[Shift, ...] = ()
    verdicts: tuple[FleetVerdict, ...] = ()
    decision: Decision = Decision.INCONCLUSIVE
    reasons: tuple[Text, ...] = ()
