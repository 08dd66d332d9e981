"""``bench doctor``: what can be measured here, what cannot, and the command that mends it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.gate import Results
from bench.cli.output import emit
from bench.workflows import site as settings

if TYPE_CHECKING:
    from bench.measure.probe import Check, Probe
    from bench.model import Request

Words = list[str] | None
Paths = list[Path] | None


def doctor(
    storage: Annotated[
        Paths, typer.Option(envvar="BENCH_STORAGE", help="Directory to look at; again for more.")
    ] = None,
    peer: Annotated[
        Words, typer.Option(envvar="BENCH_PEER", help="HOST[:PORT] of a `bench peer`; again for more.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cuda, cpu or emulated[:NAME].")] = "auto",
    results: Results = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Run the instruments against known truths; prints their error here.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> int:
    """What can be measured here, what cannot, and the command that mends it.

    Status 0 if every probe can measure, 3 if one cannot, 2 if no run could be stored.

    Examples:  bench doctor    bench doctor --storage /data --peer 10.0.0.2
    """
    from bench.model import Effort, Request
    from probes import discover

    request = Request(
        effort=Effort.QUICK,
        probes=(),
        storage=tuple(str(path.absolute()) for path in storage or [Path()]),
        peers=tuple(peer or ()),
        accelerator=accelerator,
    )
    own = list(_own_checks(results))
    probes = discover()
    if calibrate:
        found = [check for probe in probes for check in _calibrated(probe)]
    else:
        found = [*own, *(check for probe in probes for check in _of_probe(probe, request))]
    _show(found, json)
    if not all(check.ok for check in own):
        return 2
    return 0 if all(check.ok for check in found) else 3


def _own_checks(results: Path | None) -> Iterator[Check]:
    from bench.measure.probe import Check
    from bench.store.errors import StoreError
    from bench.store.runs import Store
    from bench.workflows import installation as ownership
    from bench.workflows.errors import CliError

    try:
        ownership.check()
        yield Check("bench", True, "no other distribution owns it")
    except CliError as error:
        yield Check("bench", False, str(error), "python3 -m venv .venv")
    root = settings.results_root(results)
    try:
        Store(root).check(socket.gethostname())
        yield Check("results", True, f"{root} can be written")
    except StoreError as error:
        yield Check("results", False, str(error), "bench run --results DIR")


def _of_probe(probe: Probe, request: Request) -> list[Check]:
    """A probe's own checks. One that raises is a line of the answer, not the end of it."""
    from bench.measure.probe import Check, ProbeError
    from bench.measure.recording import LiveTools

    if probe.doctor is None:
        return []
    try:
        return list(probe.doctor(LiveTools(probe.name, None), request))
    except ProbeError as error:
        return [Check(probe.name, False, error.reason, error.remedy)]


def _calibrated(probe: Probe) -> list[Check]:
    from bench.measure.recording import LiveTools

    return list(probe.calibrate(LiveTools(probe.name, None))) if probe.calibrate is not None else []


def _show(found: list[Check], json: bool) -> None:
    if json:
        from dataclasses import asdict
        from json import dumps

        emit(dumps({"checks": [asdict(check) for check in found]}, indent=2))
        return
    from bench.show.text import clean

    width = max(len(check.name) for check in found)
    for check in found:
        emit(f"{'ok' if check.ok else 'NO':<3} {clean(check.name):<{width}}  {clean(check.detail)}")
        if check.remedy and not check.ok:
            emit(f"    {'':<{width}}  mend it: {clean(check.remedy)}")
