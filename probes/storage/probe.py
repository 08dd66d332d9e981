"""How fast the path under each ``--storage`` directory reads and writes, by fio, round the page cache.

Eight jobs: sequential read and write of 1 MiB, random read of 4 KiB and of 128 KiB, each with one request in flight
(label ``queue_depth`` ``1``: what one waiting reader gets) and with many (``deep``: 16 of 1 MiB, 32 of 128 KiB, 64 of
4 KiB: what the path can do). They take turns, five rounds of all eight, so that a drift of the device hits all alike.
Each figure is the median of its five repeats with a 95 % interval. A latency's quantiles are those of all five repeats'
histograms, each counting alike, so that what is slow in one of them is not outvoted; ``max`` and ``mean`` are medians.

Use it to see whether the path can feed the accelerators: sequential read for shards and checkpoints, random 128 KiB
for samples, random 4 KiB for indices, and the latency at depth 1 for a loader that reads without prefetching.

It writes only into a folder of its own, which it removes: files of at most 0.6, 5 or 17 GiB (quick, standard,
thorough), and over them ten writing jobs of at most 2 s and a ramp each, so at most 40 s of what the path can write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import budget
from bench.measure.jsonl import record
from bench.measure.probe import Check, Completed, Context, Failed, Probe, ProbeError, TimedOut, Tools, Unsupported
from bench.model import Code, Effort, Measurement, Request
from probes.common.io_counters import block_counters
from probes.common.metrics import Between, metrics, needed, of_distributions, of_repeats
from probes.storage import fio
from probes.storage.fio import ANOTHER, MIB, FioJob, IoEngine, Reading, StoragePlan

if TYPE_CHECKING:
    from probes.storage.directory import Place

REPEATS = 5
JOBS: tuple[FioJob, ...] = (
    FioJob("read", MIB, 1),
    FioJob("read", MIB, 16),
    FioJob("randread", 4096, 1),
    FioJob("randread", 4096, 64),
    FioJob("randread", 128 * 1024, 1),
    FioJob("randread", 128 * 1024, 32),
    FioJob("write", MIB, 1),
    FioJob("write", MIB, 16),
)
_READ_BYTES = {Effort.QUICK: 1 << 29, Effort.STANDARD: 4 << 30, Effort.THOROUGH: 16 << 30}
_LEAST_READ_BYTES, _LEAST_BYTES = 64 * MIB, 16 * MIB
_LAYOUT_RATIO = 0.04  # of the directory's time, at most, goes into writing the files
_LONGEST_WRITE_SECONDS = 2.0  # bounds the wear of the device
_REMOVAL_SECONDS = 45.0  # kept back, so that a path that hangs still ends within the probe's time
_LOOK_SECONDS, _MARGIN_SECONDS = 0.1, 0.03  # fio looks for a job's end so often; ending just before loses the least
_AROUND_SECONDS = 0.3  # looking at the directory, making the folder and removing it
_RAMP_RATIO, _SHORTEST_RAMP, _LONGEST_RAMP = 0.1, 0.05, 2.0
_COLD_RATIO = 0.95  # the device must have delivered this share of what fio read, or a cache did
_COUNTED_RATIO = 0.5  # of the layout, seen by the device's counters, or they do not count this path
_LABELS = "path pattern block_bytes queue_depth io"
_LATENCY = "from before the submission to the completion; quantiles over all repeats, which count alike"
#: The busy machine's sessions come out through their repeats, which have their say in it (`bench.judge.sessions`).
_BETWEEN = Between(
    "Our choice, for a machine of one's own. In 22 recorded sessions of fio on a busy virtual machine they differed by "
    "8 to 21 % in rate and by 16 to 71 % in p99, beyond what their repeats explain.",
    {"bytes_per_second": 0.03, "operations_per_second": 0.03, "seconds": 0.10},
)


def measure(ctx: Context) -> list[Measurement]:
    """Every ``--storage`` directory, one after the other; one that cannot be measured ends the probe.

    All are looked at before the first is measured: a directory left out would be a gate passed without data.
    """
    from probes.storage.directory import look

    tool = ctx.tools.require("fio")
    check_version(ctx.tools, tool)
    looked = [look(ctx.tools, path) for path in ctx.request.storage or (".",)]
    places = list({place.path: place for place in looked}.values())
    found: list[Measurement] = []
    for index, place in enumerate(places):
        left = (ctx.remaining() - _REMOVAL_SECONDS) / (len(places) - index)
        seconds = max(5.0, min(ctx.seconds / len(places), left))
        found += _Directory(ctx, tool, place, seconds, (index / len(places), 1 / len(places))).measure()
    return found


def check_version(tools: Tools, tool: str) -> str:
    """fio's version. Raises Unsupported when it does not start or is too old, Failed when something else answers."""
    from probes.storage.parse import OLDEST, version_of

    done = tools.run([tool, "--version"], name="version", timeout=10)
    if done.returncode and done.stderr.strip():  # ld.so's word for a library that was not brought along
        from bench.measure.tools import install_command

        said = done.stderr.strip().splitlines()[-1][:300]
        raise Unsupported(Code.TOOL_FAILED, f"fio does not start: {said}", install_command("fio"))
    version = version_of(done.stdout)
    text = ".".join(map(str, version))
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Unsupported(Code.TOOL_TOO_OLD, f"fio {text} is older than {oldest}", f"install fio {oldest} or later")
    return text


def engines(place: Place) -> list[IoEngine]:
    """What may work here, best first."""
    direct = [IoEngine("io_uring", True)] if place.io_uring else []
    direct += [IoEngine("libaio", True), IoEngine("psync", True)]
    return [*(direct if place.direct else ()), IoEngine("psync", False)]


def file_sizes(place: Place, effort: Effort) -> dict[str, int]:
    """Bytes to lay out, by file: as large as the effort wants and half of the free space allows, 64 MiB at least."""
    usable = (place.free_bytes - place.reserve_bytes) // 2 // MIB * MIB
    read = max(_LEAST_READ_BYTES, min(_READ_BYTES[effort], usable))
    return {"read.dat": read, "write.dat": max(_LEAST_BYTES, min(read // 4 // MIB * MIB, 1 << 30))}


def job_seconds(total: float) -> tuple[float, float]:
    """(seconds, ramp) of one job when a directory has ``total`` seconds; 0.12 s at least, however few they are.

    The layout counts at its longest, so that the same effort always asks the same of the device.
    """
    left = total * (1 - _LAYOUT_RATIO) - _AROUND_SECONDS
    turn = (left / REPEATS - fio.START_SECONDS) / len(JOBS) - fio.TURN_SECONDS
    whole = max(2.0, turn // _LOOK_SECONDS) * _LOOK_SECONDS - _MARGIN_SECONDS
    ramp = min(_LONGEST_RAMP, max(_SHORTEST_RAMP, whole * _RAMP_RATIO))
    return round(whole - ramp, 3), round(ramp, 3)


class _Directory:
    """The measurement of one directory: lay out, five rounds, five repeats of every figure."""

    def __init__(self, ctx: Context, tool: str, place: Place, seconds: float, part: tuple[float, float]) -> None:
        self.ctx, self.tool, self.place, self.seconds, self._part = ctx, tool, place, seconds, part
        self._counts: list[tuple[int, int] | None] = []

    def measure(self) -> list[Measurement]:
        sizes = file_sizes(self.place, self.ctx.effort)
        with self.ctx.workspace(Path(self.place.path), sum(sizes.values())) as folder:
            plan = self._lay_out(str(folder), sizes)
            rounds = [self._round(str(folder), plan, number) for number in range(1, REPEATS + 1)]
        doubts = cold_doubts(plan, self._counts, rounds)
        return list(_figures(self.place.path, plan.engine, rounds, doubts))

    def _lay_out(self, folder: str, wanted: Mapping[str, int]) -> StoragePlan:
        from probes.storage.parse import refused

        self._say("writes the files to read from", 0.0)
        self._count()
        choices, limit = engines(self.place), self.seconds * _LAYOUT_RATIO
        while refused(done := self._write_files(folder, choices[0], wanted, limit)) and choices[1:]:
            choices = choices[1:]
        written = self._written(done, wanted)
        if min(written.values()) < _LEAST_BYTES:  # a slow path: the least that is of use, however long it takes
            least = dict.fromkeys(wanted, _LEAST_BYTES)
            written = self._written(self._write_files(folder, choices[0], least, 60.0), least)
        self._count()
        path, read = self.place.path, written["read.dat"]
        if read < _LEAST_READ_BYTES:
            self.ctx.warn(f"{path}: only {read // MIB} MiB could be laid out; a cache of the device may serve them")
        if not choices[0].direct:
            why = self.place.direct_error or "refused"
            self.ctx.warn(f"{path}: measured through the page cache, because O_DIRECT does not work here ({why})")
        return self._plan(choices[0], written)

    def _write_files(self, folder: str, engine: IoEngine, sizes: Mapping[str, int], limit: float) -> Completed:
        return self._run(folder, fio.layout_arguments(engine, sizes, limit), "layout", 2 * limit + 20)

    def _written(self, done: Completed, wanted: Mapping[str, int]) -> dict[str, int]:
        from probes.storage.parse import parse_layout, refuse_failed

        refuse_failed(done, self.place.path)
        return parse_layout(done.stdout, list(wanted))

    def _plan(self, engine: IoEngine, written: Mapping[str, int]) -> StoragePlan:
        seconds, ramp = job_seconds(self.seconds)
        plan = StoragePlan(
            engine=engine,
            sizes={"read": written["read.dat"], "write": written["write.dat"]},
            seconds={"read": seconds, "write": min(seconds, _LONGEST_WRITE_SECONDS)},
            ramp=ramp,
            cpus=self.place.cpus,
        )
        # Recorded, so that a replay holds the answers against the seconds that were asked for then.
        kept = record(self.ctx.tools.record("plan", json.dumps(asdict(plan))), StoragePlan)
        if kept is None:
            raise Failed(Code.TOOL_OUTPUT, "the recorded plan is none")
        return kept

    def _round(self, folder: str, plan: StoragePlan, number: int) -> dict[str, Reading]:
        from probes.storage.parse import parse, refuse_failed

        self._say(f"round {number} of {REPEATS}", number / (REPEATS + 1))
        arguments = fio.round_arguments(plan, JOBS)
        done = self._run(folder, arguments, "round", 2 * plan.round_seconds(JOBS) + 10)
        self._count()
        refuse_failed(done, self.place.path)
        return parse(done.stdout, JOBS, plan.seconds)

    def _run(self, folder: str, arguments: Sequence[str], name: str, timeout: float) -> Completed:
        allowed = min(timeout, max(5.0, self.ctx.remaining() - _REMOVAL_SECONDS))
        try:
            return self.ctx.tools.run([*fio.command(self.tool, folder), *arguments], name=name, timeout=allowed)
        except TimedOut as error:
            reason = f"fio ({name}) did not end within {allowed:.0f} s: {self.place.path} hangs or is too slow"
            raise TimedOut(Code.FIO_TIMED_OUT, reason, ANOTHER) from error

    def _count(self) -> None:
        from probes.storage.directory import parse_counters

        text = self.ctx.tools.record("counters", block_counters(self.place.device))
        self._counts.append(parse_counters(text))

    def _say(self, text: str, fraction: float) -> None:
        self.ctx.progress(f"{self.place.path}: {text}", self._part[0] + self._part[1] * fraction)


def cold_doubts(
    plan: StoragePlan, counts: Sequence[tuple[int, int] | None], rounds: Sequence[Mapping[str, Reading]]
) -> dict[str, str | None]:
    """Why the figures of a side must not be judged. ``counts`` of the device: before and after the layout, each round.

    O_DIRECT is believed unless the device's own counters contradict it; the page cache is not, unless they confirm.
    """
    buffered = None if plan.engine.direct else f"{Code.BUFFERED}: writes may have ended in memory"
    seen = [count for count in counts if count is not None]
    if len(seen) < len(counts) or seen[1][1] - seen[0][1] < _COUNTED_RATIO * sum(plan.sizes.values()):
        unproven = f"{Code.NOT_COLD}: without O_DIRECT and without counters nothing proves that the device was read"
        return {"read": None if plan.engine.direct else unproven, "write": buffered}
    asked = sum(taken[job.name].transferred_bytes for taken in rounds for job in JOBS if job.side == "read")
    share = (seen[-1][0] - seen[1][0]) / asked
    warm = f"{Code.NOT_COLD}: the device delivered {share:.0%} of what was read; a cache the rest"
    return {"read": warm if share < _COLD_RATIO else None, "write": buffered}


def _figures(
    path: str, engine: IoEngine, rounds: Sequence[Mapping[str, Reading]], doubts: Mapping[str, str | None]
) -> Iterator[Measurement]:
    for job in JOBS:
        labels = {"path": path, **job.labels, **({} if engine.direct else {"io": "buffered"})}
        taken, doubt, side = [one[job.name] for one in rounds], doubts[job.side], f"storage_{job.side}"
        yield of_repeats(f"{side}_bytes_per_second", [r.bytes_per_second for r in taken], labels, doubt)
        if job.side == "read":
            yield of_repeats(f"{side}_operations_per_second", [r.operations_per_second for r in taken], labels, doubt)
        latency, histograms = f"{side}_latency_seconds", [r.latency_seconds for r in taken]
        for statistic in ("p50", "p99", "p99.9"):
            few = _too_few(statistic, sum(count for one in histograms for _, count in one))
            yield of_distributions(latency, histograms, statistic, labels, doubt or few)
        yield of_repeats(latency, [r.longest_seconds for r in taken], {**labels, "statistic": "max"}, doubt)
        yield of_repeats(latency, [r.mean_seconds for r in taken], {**labels, "statistic": "mean"}, doubt)


def _too_few(statistic: str, operations: int) -> str | None:
    if operations >= (least := needed(statistic)):
        return None
    return f"{Code.FEW_OPERATIONS}: {operations} were made, and {statistic} needs {least}"


def doctor(tools: Tools, request: Request) -> list[Check]:
    """fio and its version, then each directory: file system, free space, O_DIRECT, io_uring."""
    from probes.storage.directory import checks

    try:
        version = check_version(tools, tools.require("fio"))
    except ProbeError as error:
        found = [Check("fio", False, error.reason, error.remedy)]
    else:
        found = [Check("fio", True, f"fio {version}")]
    return found + [check for path in request.storage or (".",) for check in checks(tools, path)]


PROBE = Probe(
    name="storage",
    help="Throughput, operations and latency of each --storage directory (fio, O_DIRECT)",
    metrics=metrics(
        ("storage_read_bytes_per_second", "Bytes read per second, cold", "", "higher"),
        ("storage_write_bytes_per_second", "Bytes written per second", "", "higher"),
        ("storage_read_operations_per_second", "Reads completed a second", "", "higher"),
        ("storage_read_latency_seconds", f"Time of one read, {_LATENCY}", "statistic", "lower"),
        ("storage_write_latency_seconds", f"Time of one write, {_LATENCY}", "statistic", "lower"),
        first=_LABELS,
        between=_BETWEEN,
    ),
    seconds=budget.STORAGE,
    per_path=True,
    measure=measure,
    doctor=doctor,
    order=20,
    facts=("mounts", "versions.fio"),
)
