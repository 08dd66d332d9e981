"""The values of the product. Everything else imports them; they import nothing of ours.

All values are immutable and checked when they are made: a number that is not finite, an interval that does not hold
its value, or a failed probe with measurements cannot exist. Units are base units, and the unit is part of the metric's
name (``storage_read_bytes_per_second``); people see MB/s and percent on the screen, files never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator
from pydantic.json_schema import SkipJsonSchema

SCHEMA = "aiready-bench/run"
SCHEMA_VERSION = 1

#: Base unit -> its sign. A name ends with exactly one of them (longest first), or is a plural noun that counts things.
UNITS = {
    "bytes_per_second": "B/s",
    "operations_per_second": "op/s",
    "tokens_per_second": "tokens/s",
    "samples_per_second": "samples/s",
    "flops_per_second": "FLOP/s",
    "per_second": "/s",
    "seconds": "s",
    "bytes": "B",
    "ratio": "%",
    "watts": "W",
    "joules": "J",
    "celsius": "°C",
    "hertz": "Hz",
    "info": "",
}

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=100)]
Text = Annotated[str, StringConstraints(max_length=4000)]
Label = Annotated[str, StringConstraints(max_length=500)]


class Frozen(BaseModel):
    """An immutable value. Unknown fields of a newer minor version are ignored when a file is read."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", ser_json_inf_nan="constants", populate_by_name=True, serialize_by_alias=True,
        defer_build=True,  # most of them are only ever read as parts of a run
    )  # fmt: skip


class Outcome(StrEnum):
    """How a probe ended. Five words, because different people act on each."""

    OK = "ok"
    SKIPPED = "skipped"  # the operator said no
    UNSUPPORTED = "unsupported"  # this node cannot
    FAILED = "failed"  # it should have worked
    TIMED_OUT = "timed_out"


class Decision(StrEnum):
    GO = "GO"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "INCONCLUSIVE"


class Status(StrEnum):
    """One gate's part of a verdict."""

    PASS = "pass"
    FAIL = "fail"
    NO_DATA = "no_data"
    UNDECIDED = "undecided"


class Effort(StrEnum):
    QUICK = "quick"
    STANDARD = "standard"
    THOROUGH = "thorough"


class Code(StrEnum):
    """The machine-readable word that begins a reason, before its colon. What code decides by is this, never a sentence.

    The words stand in run documents, logs and exports: one that is there stays. ``code_of`` reads them back.
    """

    # findings: why a gate did not simply pass or fail
    PROBE_SKIPPED = "probe_skipped"
    PROBE_UNSUPPORTED = "probe_unsupported"
    PROBE_FAILED = "probe_failed"
    PROBE_TIMED_OUT = "probe_timed_out"
    NOT_MEASURED = "not_measured"
    NOT_APPLICABLE = "not_applicable"
    STAND_IN = "stand_in"
    INVALID = "invalid"
    STRADDLES_LIMIT = "straddles_limit"
    STALE = "stale"
    # a run against the nights before
    SUSPECT = "suspect"
    REGRESSED = "regressed"
    WARMING = "warming"
    UNDETECTABLE = "undetectable"
    SLOWER = "slower"
    # probes: how they ended
    NOT_ASKED_FOR = "not_asked_for"
    NOT_AS_EXPECTED = "not_as_expected"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"
    EMPTY = "empty"
    NO_STAGE = "no_stage"
    BAD_OPTION = "bad_option"
    TOOL_MISSING = "tool_missing"
    TOOL_TOO_OLD = "tool_too_old"
    TOOL_FAILED = "tool_failed"
    TOOL_TIMED_OUT = "tool_timed_out"
    TOOL_OUTPUT = "tool_output"
    SERVER_FAILED = "server_failed"
    SERVER_TIMED_OUT = "server_timed_out"
    REPLAY_UNUSABLE = "replay_unusable"
    NOT_RECORDED = "not_recorded"
    # directories and fio
    PATH_HANGS = "path_hangs"
    PLACE_OUTPUT = "place_output"
    REFUSED = "refused"
    NOT_A_DIRECTORY = "not_a_directory"
    MISSING = "missing"
    UNUSABLE = "unusable"
    NO_SPACE = "no_space"
    READ_ONLY = "read_only"
    TMPFS = "tmpfs"
    FIO_OUTPUT = "fio_output"
    FIO_ERROR = "fio_error"
    FIO_FAILED = "fio_failed"
    FIO_TIMED_OUT = "fio_timed_out"
    FIO_EMPTY = "fio_empty"
    FIO_SHORT = "fio_short"
    FEW_OPERATIONS = "few_operations"
    BUFFERED = "buffered"
    # the feed
    IN_MEMORY = "in_memory"
    READ_FAILED = "read_failed"
    ACCELERATOR_FAILED = "accelerator_failed"
    ACCELERATOR_MEMORY = "accelerator_memory"
    PACKAGE_MISSING = "package_missing"
    UNKNOWN_LOADER = "unknown_loader"
    UNKNOWN_PATTERN = "unknown_pattern"
    UNKNOWN_ACCELERATOR = "unknown_accelerator"
    UNKNOWN_WORKLOAD = "unknown_workload"
    WORKLOAD_UNUSABLE = "workload_unusable"
    NOT_COLD = "not_cold"
    UNWRITTEN = "unwritten"
    CONTENDED = "contended"
    ACCELERATOR_DRIFTED = "accelerator_drifted"
    NOT_REPEATABLE = "not_repeatable"
    NOT_STEADY = "not_steady"
    TOO_SHORT = "too_short"
    BURST = "burst"
    # accelerators and the load on them
    EMULATED = "emulated"
    TORCH_MISSING = "torch_missing"
    TORCH_BROKEN = "torch_broken"
    TORCH_WITHOUT_CUDA = "torch_without_cuda"
    CUDA_UNAVAILABLE = "cuda_unavailable"
    NO_CUDA = "no_cuda"
    NO_GPU = "no_gpu"
    GPU_MISSING = "gpu_missing"
    GPU_LOST = "gpu_lost"
    NVML_MISSING = "nvml_missing"
    NVML_BROKEN = "nvml_broken"
    NVML_HANGS = "nvml_hangs"
    COUNTER_RESET = "counter_reset"
    LOAD_FAILED = "load_failed"
    SCHEDULE_LAG = "schedule_lag"
    SEARCH_UNFINISHED = "search_unfinished"
    # the network and its peers
    NO_PEER = "no_peer"
    PEER_REFUSED = "peer_refused"
    PEER_TIMED_OUT = "peer_timed_out"
    PEER_UNREACHABLE = "peer_unreachable"
    PEER_UNKNOWN = "peer_unknown"
    PEER_GARBAGE = "peer_garbage"
    PEER_BUSY = "peer_busy"
    PEER_FAILED = "peer_failed"
    PEER_GONE = "peer_gone"
    PEER_SILENT = "peer_silent"
    PEER_WITHOUT_RDMA = "peer_without_rdma"
    PEER_WITHOUT_RANKS = "peer_without_ranks"
    KEY_NEEDED = "key_needed"
    KEY_REFUSED = "key_refused"
    KEY_UNUSABLE = "key_unusable"
    NOT_ALLOWED = "not_allowed"
    LOOPBACK_FAILED = "loopback_failed"
    NOTHING_ARRIVED = "nothing_arrived"
    SOCKET_BUFFER = "socket_buffer"
    CONGESTION_CONTROL = "congestion_control"
    RATE_CEILING = "rate_ceiling"
    RECEIVER_SOCKET = "receiver_socket"
    ECHO_FAILED = "echo_failed"
    CLOCK_SET = "clock_set"
    HOST_CONTENDED = "host_contended"
    STAMPS_MISSING = "stamps_missing"
    NO_PORTS = "no_ports"
    NO_DEVICE = "no_device"
    RDMA_FAILED = "rdma_failed"
    NO_RANKS = "no_ranks"
    COLLECTIVE_FAILED = "collective_failed"
    WRONG_SUM = "wrong_sum"
    STRAGGLER = "straggler"
    # a server of somebody else's over HTTP
    HOST_UNKNOWN = "host_unknown"
    CONNECTION_REFUSED = "connection_refused"
    CONNECT_TIMED_OUT = "connect_timed_out"
    UNREACHABLE = "unreachable"
    CONNECTION_RESET = "connection_reset"
    TLS_EXPIRED = "tls_expired"
    TLS_WRONG_HOST = "tls_wrong_host"
    TLS_FAILED = "tls_failed"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    MODEL_UNKNOWN = "model_unknown"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    BAD_REQUEST = "bad_request"
    REDIRECTED = "redirected"
    WRONG_CONTENT = "wrong_content"
    GARBLED = "garbled"
    TOO_LARGE = "too_large"
    ENDLESS = "endless"
    TORN = "torn"
    NO_CONTENT = "no_content"
    TOO_SLOW = "too_slow"
    CLIENT_LIMITED = "client_limited"
    NOT_AS_DECLARED = "not_as_declared"


def code_of(reason: str | None) -> Code | None:
    """The code that a reason begins with; None where it has none, or one that this version does not know."""
    word = (reason or "").partition(":")[0]
    return Code(word) if word in Code._value2member_map_ else None


def unit_of(metric: str) -> str:
    """The base unit at the end of a metric's name; empty for a count of things."""
    return next((unit for unit in UNITS if metric == unit or metric.endswith("_" + unit)), "")


class Metric(Frozen):
    """What a probe declares that it can measure.

    ``better`` says in which direction the number improves; ``none`` marks a fact that is neither good nor bad. A ratio
    is a share of something, and a limit for it lies between 0 and 1, unless it may go ``over_one``.
    ``session_spread``: by how much whole sessions of a sound node differ, as a standard deviation (a share of the
    figure; of a share in points), as long as the node's own nights do not say it, and ``session_source`` where that
    number comes from. None: the figure is a fact of its session (a count, a share of a count, a link's nominal rate).
    ``varying``: those of the labels that tell what was found (``limited_by``), not what was measured.
    """

    name: Name
    help: str
    labels: tuple[str, ...] = ()
    better: Literal["higher", "lower", "none"] = "none"
    over_one: bool = False
    session_spread: Annotated[FiniteFloat, Field(ge=0)] | None = None
    session_source: str = ""
    varying: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _named_by_the_rule(self) -> Self:
        if self.name.endswith(("_total", "_count")):
            raise ValueError(f"{self.name}: _total and _count belong to Prometheus counters and histograms")
        words = self.name.split("_")  # accelerators_feedable, checks_open: the noun leads, and how many are so
        if self.unit == "" and not (words[-1].endswith("s") or words[0].endswith("s")):
            raise ValueError(f"{self.name}: neither a base unit nor a plural noun")
        if not set(self.varying) <= set(self.labels):
            raise ValueError(f"{self.name}: {', '.join(self.varying)} vary, and are not all among its labels")
        return self

    def identity(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels that say which series a figure belongs to: all but those that tell what was found."""
        return {name: value for name, value in labels.items() if name not in self.varying}

    @property
    def unit(self) -> str:
        """The base unit, ``bytes_per_second`` say; empty for a count of things."""
        return unit_of(self.name)

    @property
    def is_share(self) -> bool:
        return self.unit == "ratio" and not self.over_one


#: Few measurements have it, and a document has hundreds of them: it is not written where it is None.
_ONLY_IF_SET: Any = Field(exclude_if=lambda value: value is None)
_ONLY_IF_ANY: Any = Field(exclude_if=lambda value: not value)
#: One round's values in ascending order, each with how many there were.
Distribution = tuple[tuple[float, int], ...]


class Measurement(Frozen):
    """One number: the metric, its labels, how many samples it stands on, and a 95 % interval around it.

    Raw data are kept so that more rounds can be added and the interval made anew (`bench.judge.pooling`): ``repeats``
    of a median, ``counts`` (k of n) of a share, ``distributions`` of a quantile, one a round. The last are not written
    to the run's document: they are long, and the raw output beside it holds them.
    ``invalid`` says why the number must not decide anything (the host was contended, the reads were not cold): shown,
    never judged. ``wide`` says what made the interval wide (the accelerator drifted), and decides nothing.
    """

    metric: Name
    value: FiniteFloat
    interval: tuple[FiniteFloat, FiniteFloat]
    samples: Annotated[int, Field(ge=1, le=1 << 53)]  # what JSON's readers, and a column of 64 bit, hold
    labels: dict[Name, Label] = {}
    repeats: tuple[FiniteFloat, ...] = ()
    counts: Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None, _ONLY_IF_SET] = None
    distributions: Annotated[SkipJsonSchema[tuple[Distribution, ...]], Field(exclude=True, repr=False)] = ()
    invalid: Text | None = None
    wide: Annotated[Text | None, _ONLY_IF_SET] = None

    @model_validator(mode="after")
    def _interval_holds_value(self) -> Self:
        low, high = self.interval
        if not low <= self.value <= high:
            raise ValueError(f"{self.metric}: {self.value} is outside of its interval [{low}, {high}]")
        return self

    @property
    def stand_in(self) -> str | None:
        """What stood in for the real thing (``cpu``, ``emulated``, ``loopback``), or None."""
        return self.labels.get("stand_in")


class Series(Frozen):
    """A time line: values of one metric, for plots; never judged.

    ``seconds`` are since its stage began; a watcher's, an endpoint's and a service's, since the watchers of the run
    began: those have one clock.
    """

    metric: Name
    labels: dict[Name, Label] = {}
    seconds: tuple[FiniteFloat, ...]
    values: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.seconds) != len(self.values):
            raise ValueError(f"{self.metric}: {len(self.seconds)} times but {len(self.values)} values")
        return self


class Evidence(Frozen):
    """A file with raw tool output, its path relative to the run document's folder."""

    path: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Source(Frozen):
    """What a run was made by (the product, a file of declared checks), and its digest."""

    kind: Name
    name: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ProbeResult(Frozen):
    """What one probe found. It has measurements if and only if it is ok, and a reason otherwise.

    ``reason`` begins with a machine-readable word and a colon: ``tool_missing: fio is not installed``.
    ``remedy`` is the command or step that fixes it. ``warnings`` are doubts that do not void the numbers. ``sources``
    are the files that were measured or measured by.
    """

    probe: Name
    outcome: Outcome
    reason: Text | None = None
    remedy: Text | None = None
    duration_seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    evidence: tuple[Evidence, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    series: tuple[Series, ...] = ()
    warnings: tuple[Text, ...] = ()
    sources: Annotated[tuple[Source, ...], _ONLY_IF_ANY] = ()

    @model_validator(mode="after")
    def _measured_or_says_why(self) -> Self:
        if self.outcome is Outcome.OK:
            if not self.measurements:
                raise ValueError(f"{self.probe}: ok without a measurement")
        elif self.measurements:
            raise ValueError(f"{self.probe}: {self.outcome} with measurements")
        elif not self.reason:
            raise ValueError(f"{self.probe}: {self.outcome} without a reason")
        return self


class Node(Frozen):
    """Which machine this is. ``fingerprint`` is a digest of the facts that identify it."""

    hostname: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    fingerprint: Text
    facts: dict[str, Any] = {}


class Request(Frozen):
    """What was asked for."""

    effort: Effort
    probes: tuple[str, ...]
    storage: tuple[Text, ...] = ()
    peers: tuple[Text, ...] = ()
    accelerator: Text = "auto"
    options: dict[str, Any] = {}


Ratio = FiniteFloat | None


class Components(Frozen):
    """Parts of starvation, by falling ceilings; they sum to the whole. Null where a ceiling was not measured."""

    transfer: Ratio = None
    preprocess: Ratio = None
    storage: Ratio = None
    overlap: Ratio = None


Bottleneck = Literal["storage", "preprocess", "transfer", "loader", "accelerator", "undetermined"]


class Attribution(Frozen):
    """What the accelerator waited for. Numbers are null when they were not measured; never zero for that."""

    bottleneck: Bottleneck
    starved: bool | None = None
    starvation_ratio: Ratio = None
    components: Components = Components()
    demand_bytes_per_second: Ratio = None
    supply_bytes_per_second: Ratio = None
    supply_gap_ratio: Ratio = None
    valid: bool
    explanation: Text
    path: Text | None = None
    stand_in: Text | None = None


class Limit(Frozen):
    """``min`` or ``max``, one of them, in the metric's own base unit."""

    min: FiniteFloat | None = None
    max: FiniteFloat | None = None


class Finding(Frozen):
    """One gate's part of a verdict. ``reason`` begins with a machine-readable word unless the gate passed or failed."""

    metric: Name
    labels: dict[Name, Label] = {}
    observed: FiniteFloat | None = None
    interval: tuple[FiniteFloat, FiniteFloat] | None = None
    limit: Limit
    status: Status
    required: bool
    source: Text = ""
    remedy: Text = ""
    reason: Text | None = None
    stand_in: Text | None = None


class Verdict(Frozen):
    """One profile's answer for one run. ``digest`` is the sha256 of the profile that was judged by.

    The score is that of the weakest required gate, and a gate without data has 0. So beside it stands what was shown:
    how many gates are ``required``, how many of them were ``measured``, and the lowest score of those, None for none.
    Documents of before have none of the three.
    """

    profile: Text
    digest: Text
    decision: Decision
    score: Annotated[FiniteFloat, Field(ge=0, le=100)]
    required: Annotated[Annotated[int, Field(ge=0)] | None, _ONLY_IF_SET] = None
    measured: Annotated[Annotated[int, Field(ge=0)] | None, _ONLY_IF_SET] = None
    weakest_measured_score: Annotated[FiniteFloat, Field(ge=0, le=100)] | None = None
    findings: tuple[Finding, ...]


class Run(Frozen):
    """Everything one ``bench run`` measured on one node: one immutable document."""

    schema_name: Annotated[Literal["aiready-bench/run"], Field(alias="schema")] = "aiready-bench/run"
    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    started_at: Text
    finished_at: Text | None = None
    bench_version: Text | None = None
    replay_of: Text | None = None
    interrupted_by: int | None = None  # the signal's number
    node: Node
    request: Request
    sources: Annotated[tuple[Source, ...], _ONLY_IF_ANY] = ()
    results: tuple[ProbeResult, ...] = ()
    attribution: Attribution | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def confirms(self) -> str | None:
        """The id of the run that this one was made to confirm, if it was."""
        first = self.request.options.get("confirms")
        return first if isinstance(first, str) else None

    def measurements(self) -> list[Measurement]:
        """Every measurement of every probe that was ok."""
        return [m for result in self.results for m in result.measurements]

    def find(self, metric: str, /, **labels: str) -> list[Measurement]:
        """The measurements of that metric that carry at least these labels."""
        return [m for m in self.measurements() if m.metric == metric and labels.items() <= m.labels.items()]
