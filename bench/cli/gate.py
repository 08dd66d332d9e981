"""``bench gate``: judge a stored run again, with any profile, without hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Option

from bench.cli import options
from bench.cli.options import Word, Words
from bench.cli.output import emit_json, emit_lines, emit_run
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.workflows.nightly import Compared


def gate(
    run: options.RunArgument = None,
    profile: options.Profiles = None,
    results: options.Results = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    all_gates: options.AllGates = False,
    exit_zero: options.ExitZero = False,
    baseline: Annotated[
        bool, Option("--baseline", help="Also compare with this node's own nights: regressions are NO-GO.")
    ] = False,
    detect: Annotated[str, Option(help="With --baseline: the drop that must be seen, 20% say.")] = "20%",
    data: Annotated[
        Words, Option(metavar="DIR", help="A data set that the run looked at: changed since, it is INCONCLUSIVE.")
    ] = None,
    max_age: Annotated[Word, Option(help="A run older than this, 26h say, is INCONCLUSIVE.")] = None,
    on_inconclusive: Annotated[
        Word, Option(help="fail: status 1 in place of 3; pass: status 0 (a prolog that must not drain).")
    ] = None,
) -> int:
    """Judge a stored run again. Nothing is measured and nothing is stored.

    Exit status: 0 GO, 1 NO-GO, 2 no verdict, 3 INCONCLUSIVE (--on-inconclusive says otherwise).

    Examples:  bench gate    bench gate 3f9a --profile ./mine.toml    bench gate --json | jq .verdicts
               bench gate --baseline --max-age 26h --on-inconclusive pass
    """
    from bench.judge.gate import decide, exit_status
    from bench.workflows.catalog import load_catalog
    from bench.workflows.judging import concluded, fresh, unchanged
    from bench.workflows.site import find_run, open_store

    inconclusive = {None: 3, "fail": 1, "pass": 0}
    if on_inconclusive not in inconclusive:
        raise UserError(f"--on-inconclusive {on_inconclusive}: must be fail or pass")
    catalog, store = load_catalog(profile), open_store(results)
    found = find_run(store, run)
    catalog = catalog.of(found.request)
    judged, compared = concluded(found, catalog, store), None
    if baseline:
        from bench.workflows.nightly import against_baseline

        compared = against_baseline(judged, catalog, store, options.ratio(detect, "--detect"))
        judged = compared.run
    judged = fresh(judged, options.age(max_age))
    judged = unchanged(judged, catalog, options.paths(data))
    if json:
        emit_json({
            "run": judged.id,
            "verdicts": [verdict.model_dump(mode="json") for verdict in judged.verdicts],
            "regressions": [entry.public() for entry in compared.regressions] if compared else [],
        })  # fmt: skip
    else:
        emit_run(judged, catalog.probes, quiet=quiet, all_gates=all_gates)
        if compared and not quiet:
            emit_lines(regression_lines(compared))
    status = exit_status(decide(judged.verdicts))
    if exit_zero:
        return 0
    return inconclusive[on_inconclusive] if status == 3 else status


def regression_lines(compared: Compared) -> list[str]:
    """For the screen: one line a series that is not simply well, and one that counts the others."""
    from bench.units import human, series_name

    told = [entry for entry in compared.regressions if entry.reason]
    found = [
        f"  {entry.status.value:<12} {series_name(entry.metric, entry.labels)}"
        + (f"  {human(entry.observed, entry.metric)}" if entry.observed is not None else "")
        + (f", expected {human(entry.expected, entry.metric)}" if entry.expected is not None else "")
        + f"; {entry.reason.partition(': ')[2]}"
        + ("" if entry.gating else " (shown, does not decide)")
        for entry in told
    ]
    well = len(compared.regressions) - len(told)
    return ["Against this node's nights:", *found, *([f"  ok           {well} series"] if well else [])]
