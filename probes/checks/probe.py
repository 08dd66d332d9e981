"""What cannot be measured and is asked all the same: who owns the data, where it may lie, whom to call at night.

Each declared check is held to an owner, an answer, evidence and an expiry (--checks FILE). What is missing, what has
expired, and evidence that is not the one that was declared are counted, and told with their lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import budget
from bench.measure.probe import Context, Failed, Option, Probe, Skipped
from bench.model import Code, Measurement
from probes.common.metrics import metrics

_SECONDS = 60.0


def measure(ctx: Context) -> Sequence[Measurement]:
    """Raises Skipped where no file was named, Failed where it cannot be used."""
    from probes.checks.parse import figures, parse, sources, told

    path = ctx.option("checks")
    if path is None:
        raise Skipped(Code.NOT_ASKED_FOR, "no checks were declared (--checks FILE)")
    done = ctx.tools.python("probes.checks.look", str(path), name="look", timeout=_SECONDS)
    if done.returncode != 0:
        raise Failed(Code.UNUSABLE, done.stderr.strip() or f"{path} cannot be read", "bench checks init")
    file, checks = parse(done.stdout)
    for line in told(file, checks):
        ctx.warn(line)
    ctx.sources += sources(file, checks)
    return figures(file, checks)


def usable(path: Path) -> None:
    """Raises UserError, with a line for each mistake."""
    from probes.checks.plan import load, read

    load(read(path), str(path))


PROBE = Probe(
    name="checks",
    help="Declared checks (--checks FILE): owner, answer, evidence and expiry of what cannot be measured.",
    metrics=metrics(
        ("checks_open", "Declared checks without owner, answer, expiry or the evidence that was declared.",
         "", "lower"),
        ("checks_expired", "Declared checks whose last day is over.", "", "lower"),
    ),
    seconds=budget.NONE,
    measure=measure,
    order=1,
    guards_itself=True,
    options=(Option("checks", "Declared checks, a TOML file", Path, check=usable, affects_comparability=False),),
)  # fmt: skip
