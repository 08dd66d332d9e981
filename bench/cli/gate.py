"""``bench gate``: judge a stored run again, with any profile, without hardware."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.output import emit, emit_run, note
from bench.workflows import site as settings
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.judge.baseline.series import Regression
    from bench.model import Run
    from bench.store.runs import Store

Words = list[str] | None
RunArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run file, an id or its beginning; default: this node's newest.")
]
Results = Annotated[Path | None, typer.Option(envvar="BENCH_RESULTS", help="Where runs are stored.")]


def open_store(results: Path | None) -> Store:
    from bench.store.runs import Store

    return Store(settings.results_root(results), warn=note)


def find_run(store: Store, reference: str | None) -> Run:
    """The run that was named, else this node's newest. Raises CliError, one line."""
    from bench.store.errors import UnusableRun

    try:
        found = store.find(reference) if reference else _newest(store)
    except UnusableRun as error:
        raise CliError(str(error)) from error
    if found is None:
        raise CliError(f"no run of this node is stored in {store.root}; measure with: bench run")
    return found


def _newest(store: Store) -> Run | None:
    """This node's newest run; where that one measured only some probes, to confirm another, that other one."""
    found = store.newest(socket.gethostname())
    first = found.request.options.get("confirms") if found else None
    return store.find(first) if isinstance(first, str) else found


def gate(
    run: RunArgument = None,
    profile: Annotated[
        Words, typer.Option(envvar="BENCH_PROFILE", help="Profile by name or file; again for more.")
    ] = None,
    results: Results = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="One line a profile.")] = False,
    all_gates: Annotated[bool, typer.Option("--all-gates", help="A line for every gate, passes too.")] = False,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Status 0 whatever the verdict.")] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Also compare with this node's own nights: regressions are NO-GO.")
    ] = False,
    detect: Annotated[str, typer.Option(help="With --baseline: the drop that must be seen, 20% say.")] = "20%",
    max_age: Annotated[str | None, typer.Option(help="A run older than this, 26h say, is INCONCLUSIVE.")] = None,
    on_inconclusive: Annotated[
        str | None, typer.Option(help="fail: status 1 in place of 3; pass: status 0 (a prolog that must not drain).")
    ] = None,
) -> int:
    """Judge a stored run again. Nothing is measured and nothing is stored.

    Examples:  bench gate    bench gate 3f9a --profile ./mine.toml    bench gate --json | jq .verdicts
    bench gate --baseline --max-age 26h --on-inconclusive pass
    """
    from bench.cli import regression
    from bench.judge.gate import decide
    from bench.workflows.judging import concluded

    if on_inconclusive not in (None, "fail", "pass"):
        raise CliError(f"--on-inconclusive {on_inconclusive}: must be fail or pass")
    metrics = settings.declared_metrics()
    profiles = settings.load_profiles(profile or settings.config().get("profile", []), metrics)
    store = open_store(results)
    compared = regression.Compared(concluded(find_run(store, run), profiles, settings.metric_owners()))
    if baseline:
        asked = regression.ratio(detect, "--detect")
        compared = regression.against_baseline(compared.run, profiles, store, metrics, asked)
    if max_age is not None:
        compared = regression.fresh(compared, regression.duration(max_age, "--max-age"))
    if json:
        emit(as_json(compared.run, compared.regressions))
    else:
        emit_run(compared.run, profiles, quiet=quiet, all_gates=all_gates)
        if baseline and not quiet:
            emit("\n".join(regression.lines(compared)))
    return 0 if exit_zero else regression.status(decide(compared.run.verdicts), on_inconclusive)


def as_json(run: Run, regressions: Sequence[Regression] = ()) -> str:
    """The contract's answer: the run's id, the verdicts, the regressions."""
    from json import dumps

    verdicts = [verdict.model_dump(mode="json") for verdict in run.verdicts]
    entries = [entry.public() for entry in regressions]
    return dumps({"run": run.id, "verdicts": verdicts, "regressions": entries}, indent=2, allow_nan=False)
