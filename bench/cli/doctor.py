"""``bench doctor``, ``bench probes``, ``bench profiles``: what is there, and what can be measured here."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from bench.cli.options import Directories, File, Json, Peers, Results
from bench.cli.output import emit, emit_json
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.measure.probe import Check, Probe
    from bench.model import Request

#: What `bench probes --json` says of an option, beside its type.
_OF_OPTION = ("name", "help", "choices", "default", "affects_comparability")


def probes(json: Json = False) -> None:
    """The probes, and for each its options and every metric that it can measure, with unit and labels.

    Examples:  bench probes    bench probes --json | jq -r .[].metrics[].name
    """
    from bench.show.catalog import probes_table
    from bench.workflows.catalog import declared

    found = declared().probes
    if json:
        emit_json([_listed(probe) for probe in found])
    else:
        emit(probes_table(found))


def _listed(probe: Probe) -> dict[str, object]:
    return {
        "probe": probe.name,
        "help": probe.help,
        "options": [{n: getattr(o, n) for n in _OF_OPTION} | {"type": o.type.__name__} for o in probe.options],
        "metrics": [{**metric.model_dump(), "unit": metric.unit} for metric in probe.metrics],
    }


def profiles(json: Json = False) -> None:
    """The shipped profiles, and the gates of each with their limits and sources.

    Examples:  bench profiles    bench profiles --json
    """
    from bench.show.catalog import profiles_table
    from bench.workflows.catalog import declared, load_profiles

    found = load_profiles([], declared().metrics)
    if json:
        emit_json([{**p.model_dump(mode="json"), "digest": p.digest} for p in found])
    else:
        emit(profiles_table(found))


def doctor(
    storage: Directories = None,
    peer: Peers = None,
    accelerator: Annotated[str, Option(help="auto, cuda, cpu or emulated[:NAME].")] = "auto",
    results: Results = None,
    calibrate: Annotated[
        bool, Option("--calibrate", help="Run the instruments against known truths; prints their error here.")
    ] = False,
    write_expect: Annotated[
        File, Option(metavar="FILE", help="Write what this node is, for bench run --expect FILE on its like.")
    ] = None,
    json: Json = False,
) -> int:
    """What can be measured here, what cannot, and the command that mends it.

    Exit status: 0 every probe can measure, 3 one cannot, 2 no run could be stored.

    Examples:  bench doctor    bench doctor --storage /data --peer 10.0.0.2
               bench doctor --json | jq '.checks[] | select(.ok | not)'
    """
    from bench.measure.recording import LiveTools
    from bench.model import Effort, Request
    from bench.workflows.catalog import declared

    if write_expect is not None:
        return _write_expect(write_expect)
    request = Request(
        effort=Effort.QUICK,
        probes=(),
        storage=tuple(str(path.absolute()) for path in storage or [Path()]),
        peers=tuple(peer or ()),
        accelerator=accelerator,
    )
    own = list(_own_checks(results))
    if calibrate:
        found = [c for p in declared().probes if p.calibrate for c in p.calibrate(LiveTools(p.name, None))]
    else:
        found = [*own, *(check for probe in declared().probes for check in _of_probe(probe, request))]
    status = 2 if not all(check.ok for check in own) else 0 if all(check.ok for check in found) else 3
    _show(found, status, json)
    return status


def _write_expect(file: Path) -> int:
    """What this node is, as a file that says what its like should be. An existing file stays as it is."""
    from bench.measure.probe import ProbeError
    from bench.measure.recording import LiveTools
    from bench.model import Code, code_of
    from bench.workflows.request import EXPECT
    from probes.expect.parse import taken, written

    try:
        found = taken(LiveTools(EXPECT, None))
        if found.why and code_of(found.why) is not Code.NVML_MISSING:  # a node without a driver has no cards
            raise UserError(f"--write-expect {file}: {found.why}; write it on a node whose cards all answer")
        with file.open("x", encoding="utf-8") as opened:
            opened.write(written(found))
    except (ProbeError, OSError) as error:
        why = error.reason if isinstance(error, ProbeError) else error.strerror
        raise UserError(f"--write-expect {file}: {why}") from error
    emit(f"{file}: what this node is; look through it, then: bench run --expect {file}")
    return 0


def _own_checks(results: Path | None) -> Iterator[Check]:
    from bench.measure.probe import Check
    from bench.workflows.site import check_installation, open_store

    store = open_store(results)
    try:
        check_installation()
        yield Check("bench", True, "no other distribution owns it")
    except UserError as error:
        yield Check("bench", False, str(error), "python3 -m venv .venv")
    try:
        store.check(socket.gethostname())
        yield Check("results", True, f"{store.root} can be written")
    except UserError as error:
        yield Check("results", False, str(error), "bench run --results DIR")


def _of_probe(probe: Probe, request: Request) -> list[Check]:
    """A probe's own checks. One that raises is a line of the answer, not the end of it."""
    from bench.measure.probe import Check, ProbeError
    from bench.measure.recording import LiveTools

    try:
        return list(probe.doctor(LiveTools(probe.name, None), request)) if probe.doctor is not None else []
    except ProbeError as error:
        return [Check(probe.name, False, error.reason, error.remedy)]


def _show(found: list[Check], status: int, json: bool) -> None:
    from bench.measure.node import nvidia_driver, versions
    from bench.show.text import clean

    if json:
        tools = {**versions(), "nvidia_driver": nvidia_driver()}
        checks = [check._asdict() for check in found]
        emit_json({"node": socket.gethostname(), "status": status, "versions": tools, "checks": checks})
        return
    width = max(len(check.name) for check in found)
    for check in found:
        emit(f"{'ok' if check.ok else 'NO':<3} {clean(check.name):<{width}}  {clean(check.detail)}")
        if check.remedy and not check.ok:
            emit(f"    {'':<{width}}  mend it: {clean(check.remedy)}")
