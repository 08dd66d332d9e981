"""What fio's JSON means, of 3.28 and later, and what its refusals do.

- ``bw_bytes`` is bytes per second; ``bw`` is KiB per second, which half of the world takes for kB.
- ``iops`` and ``total_ios`` leave out what was still in flight at the end, though ``bw_bytes`` and ``runtime`` hold it:
  at depth 16 and 30 operations ``iops`` is 35 % low. Operations are therefore bytes over the block.
- Latency is ``lat_ns``, from before the submission to the completion: what a waiting program feels. Of ``json+`` its
  whole histogram is read, so that rounds can be put together; fio keeps it in any case, and only prints it then.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from bench.errors import first_mistake
from bench.measure.probe import Completed, Failed, Unsupported
from bench.model import Code
from probes.storage.fio import ANOTHER, MIB, FioJob, Reading

OLDEST = (3, 28)
_NODE_CANNOT = {
    errno.ENOSPC: Code.NO_SPACE,
    errno.EDQUOT: Code.NO_SPACE,
    errno.EROFS: Code.READ_ONLY,
    errno.EACCES: Code.READ_ONLY,
}
#: How kernels, filters and file systems refuse an engine or O_DIRECT.
_REFUSALS = frozenset((errno.EPERM, errno.EAGAIN, errno.ENOMEM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))
_SHORTEST_RATIO = 0.9  # of the seconds asked for; a job that ended earlier did not measure what was asked


def version_of(text: str) -> tuple[int, int]:
    """``fio-3.33`` (or ``fio-3.36-12-gabcdef``) -> (3, 33). Raises Failed when it is not fio that answers."""
    found = re.match(r"fio-(\d{1,4})\.(\d{1,4})", text.strip())
    if not found:
        raise Failed(Code.FIO_OUTPUT, f"{text.strip()[:80]!r} is not a version of fio")
    return int(found[1]), int(found[2])


_Count = Annotated[int, Field(ge=0, le=1 << 63)]
_Amount = Annotated[FiniteFloat, Field(ge=0)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", defer_build=True)


class _Latency(_Shape):
    max: _Amount
    mean: _Amount
    N: _Count = 0
    percentile: dict[Annotated[str, Field(pattern=r"^[0-9]{1,3}[.][0-9]{1,6}$")], _Amount] = {}
    bins: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], _Count] = {}


class _Side(_Shape):
    io_bytes: _Count
    bw_bytes: _Amount
    runtime: _Amount
    lat_ns: _Latency


class _JobOutput(_Shape):
    jobname: str
    error: int
    read: _Side
    write: _Side

    def side(self, name: str) -> _Side:
        return self.write if name == "write" else self.read


class _Output(_Shape):
    jobs: list[_JobOutput]


def parse(text: str, jobs: Sequence[FioJob], seconds: Mapping[str, float]) -> dict[str, Reading]:
    """fio's answer to `round_arguments` -> readings by the job's name.

    Raises Failed, one line, unless every job is there once, without error, ran at least 90 % of its ``seconds`` and
    moved at least one byte. Milliseconds and nanoseconds become seconds here and nowhere else.
    """
    found = _jobs(text, [job.name for job in jobs])
    return {job.name: _reading(job, found[job.name].side(job.side), seconds[job.side]) for job in jobs}


def parse_layout(text: str, names: Sequence[str]) -> dict[str, int]:
    """fio's answer to `layout_arguments` -> whole MiB written to each file, in bytes. Raises Failed."""
    return {name: job.write.io_bytes // MIB * MIB for name, job in _jobs(text, names).items()}


def refused(done: Completed) -> bool:
    """The engine or O_DIRECT does not work here, which another engine may mend."""
    return _error_of(done.stdout) in _REFUSALS or ("engine" in done.stderr and "load" in done.stderr)


def refuse_failed(done: Completed, path: str) -> None:
    """Did it run right? Comes before was it fast: fio prints plausible figures after errors too.

    Raises Unsupported for a full or read-only file system, Failed for any other fault.
    """
    error = _error_of(done.stdout)
    if done.returncode == 0 and not error:
        return
    if error in _NODE_CANNOT:
        text = f"{path}: {os.strerror(error)}"
        raise Unsupported(_NODE_CANNOT[error], text, ANOTHER)
    said = os.strerror(min(abs(error), 4095)) if error else _short((done.stderr or done.stdout).strip()[-80:])
    raise Failed(Code.FIO_FAILED, f"{path}: {said} (status {done.returncode})", "try the recorded command line by hand")


def _error_of(text: str) -> int | None:
    """The first job's errno in an answer that may be of any kind; None if there is none to be read."""
    try:
        errors = [job.error for job in _output(text).jobs]
    except Failed:
        return None
    return next((error for error in errors if error), None)


def _reading(job: FioJob, side: _Side, seconds: float) -> Reading:
    ran = side.runtime / 1e3
    if side.io_bytes < job.block_bytes or not side.bw_bytes:
        raise Failed(Code.FIO_EMPTY, f"{job.name} moved nothing")
    if ran < _SHORTEST_RATIO * seconds:
        raise Failed(Code.FIO_SHORT, f"{job.name} ran {ran:.3f} s of the {seconds:.3f} s asked for")
    longest = side.lat_ns.max / 1e9
    # A bucket is named by its middle, and is up to 1/64 wide: it may stand past the largest value.
    bins = [(float(nanoseconds), count) for nanoseconds, count in side.lat_ns.bins.items()] or _steps(side.lat_ns)
    counted = sorted((nanoseconds, count) for nanoseconds, count in bins if count)
    if not counted:
        raise Failed(Code.FIO_OUTPUT, f"{job.name} has no latencies")
    return Reading(
        job=job.name,
        transferred_bytes=side.io_bytes,
        bytes_per_second=float(side.bw_bytes),
        operations_per_second=side.bw_bytes / job.block_bytes,
        longest_seconds=longest,
        mean_seconds=side.lat_ns.mean / 1e9,
        latency_seconds=tuple((min(nanoseconds / 1e9, longest), count) for nanoseconds, count in counted),
    )


def _steps(latency: _Latency) -> list[tuple[float, int]]:
    """For recordings without a histogram: all latencies between two quantiles are taken to be as slow as the upper."""
    upto = sorted(
        (math.ceil(round(float(key) / 100 * latency.N, 6)), value) for key, value in latency.percentile.items()
    )
    steps = [(0, 0.0), *upto, (latency.N, latency.max)] if upto else []
    return [(value, count - before) for (before, _), (count, value) in pairwise(steps)]


def _jobs(text: str, names: Sequence[str]) -> dict[str, _JobOutput]:
    jobs = _output(text).jobs
    got = [job.jobname for job in jobs]
    if sorted(got) != sorted(names):
        raise Failed(Code.FIO_OUTPUT, f"expected {len(names)} jobs, each once, but the answer holds {_short(got)}")
    for job in jobs:
        if job.error:
            raise Failed(Code.FIO_ERROR, f"{job.jobname}: {os.strerror(min(abs(job.error), 4095))} (error {job.error})")
    return {job.jobname: job for job in jobs}


def _output(text: str) -> _Output:
    """The JSON object in ``text``. fio prints its errors before it, on the same stream. Raises Failed."""
    try:
        return _Output.model_validate(_object(text))
    except ValidationError as error:
        raise Failed(Code.FIO_OUTPUT, ": ".join(map(_short, first_mistake(error)))) from error
    except (ValueError, RecursionError) as error:
        raise Failed(Code.FIO_OUTPUT, f"not the JSON of fio ({_short(error)}); it begins {_short(text)}") from error


def _object(text: str) -> Any:
    """From where an object may begin: at a line's start (an error line may name a path with a brace), else anywhere."""
    at_line = re.search(r"^\{", text, re.MULTILINE)
    first = at_line.start() if at_line else text.find("{")
    if first < 0:
        raise ValueError("no object in it")
    return json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text, first)[0]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _short(value: object) -> str:
    return repr(str(value)[:80].encode("ascii", "replace").decode())
