"""The storage probe alone and brief, by the real runner: ``python -m tests.probes.storage.run DIR`` for signals.

Brief: one or a few jobs of 0.12 s, two rounds, 64 MiB. Prints each step as it begins, and the run as JSON at the end.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bench.measure.probe import Progress
from bench.measure.recording import Recording
from bench.measure.runner import RunPlan, execute
from bench.model import Effort, Node, ProbeResult, Request, Run
from probes.storage import probe as storage
from probes.storage.fio import MIB, FioJob

BRIEF_JOBS = (storage.JOBS[1], storage.JOBS[2], storage.JOBS[7])


def shorten(jobs: Sequence[FioJob] = BRIEF_JOBS, repeats: int = 2, seconds: float = 0.12, ramp: float = 0.05) -> None:
    """Make the probe brief, for this process."""
    storage.JOBS = tuple(jobs)
    storage.REPEATS = repeats
    storage.job_seconds = lambda total: (seconds, ramp)
    storage._READ_BYTES = dict.fromkeys(Effort, 64 * MIB)


def run(
    *directories: Path | str,
    evidence: Path,
    listen: Callable[[Progress], None] = lambda _: None,
    replay: Recording | None = None,
    seconds: float = 26.0,
) -> Run:
    """The probe on these directories; ``evidence`` is a folder to be made."""
    request = Request(effort=Effort.QUICK, probes=("storage",), storage=tuple(map(str, directories)))
    probe = replace(storage.PROBE, seconds=dict.fromkeys(Effort, seconds))
    node = Node(hostname="h", fingerprint="f")
    return execute(
        RunPlan(id="t", request=request, probes=[probe], node=node, evidence=evidence, listen=listen, replay=replay)
    )


def only(run: Run) -> ProbeResult:
    (result,) = run.results
    return result


def left_in(folder: Path) -> list[str]:
    """What is left there, and the processes that work there."""
    found = [entry.name for entry in folder.iterdir() if entry.name != "lost+found"]
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and os.readlink(process / "cwd").startswith(str(folder)):
                found.append(f"process {process.name}")
    return found


if __name__ == "__main__":
    shorten(seconds=1.0)
    with tempfile.TemporaryDirectory() as folder:
        ended = run(sys.argv[1], evidence=Path(folder, "t.raw"), listen=lambda step: print(step.text, flush=True))
    print(ended.model_dump_json(), flush=True)
