"""``bench export``: a stored run in the words of another program."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from typer import Option

from bench.cli.options import Output, Results, RunArgument, Word, Words, age
from bench.cli.output import emit, write
from bench.errors import UserError, note
from bench.show.export import FORMATS, PLUGIN_STATUS, Export, answer_unknown, render

#: What is made without a run, from what the probes and the profiles declare.
GENERATED = ("grafana", "rules")


def export(
    run: RunArgument = None,
    format: Annotated[  # noqa: A002 - the option is called so
        str | None,
        Option(
            "--format",
            "-f",
            autocompletion=lambda: [*FORMATS, *GENERATED],
            help="openmetrics, junit, ctrf, markdown, nagios, npd, json, parquet, otlp; without a run: grafana, rules.",
        ),
    ] = None,
    output: Output = None,
    listen: Annotated[
        Word, Option(help="[ADDRESS]:PORT to serve this node's newest run on, as openmetrics, until SIGTERM.")
    ] = None,
    profile: Annotated[
        Words, Option(envvar="BENCH_PROFILE", help="Judge again by this profile; again for more. Default: as stored.")
    ] = None,
    max_age: Annotated[
        Word, Option(help="nagios, npd: a run older than this (26h, 90m) is no answer: unknown.")
    ] = None,
    results: Results = None,
) -> int:
    """A stored run for Prometheus, CI, Nagios, Kubernetes, a pull request or a notebook.

    Without a run, grafana is a dashboard and rules are Prometheus rules, both made from what the probes declare.

    Exit status: 0 it was written, 2 not. nagios and npd are plugins, theirs is the verdict: nagios 0, 2, 3, 3 and npd
    0, 1, 2, 2 for GO, NO-GO, no verdict, INCONCLUSIVE.

    Examples:  bench export -f openmetrics -o /var/lib/node_exporter/textfile/bench.prom
               bench export 3f9a -f junit -o bench.xml
               bench export -f markdown >> "$GITHUB_STEP_SUMMARY"
               bench export --listen 127.0.0.1:9817
    """
    if listen is not None:
        return _listen(listen, format, profile, results)
    name = known_format(format, (*FORMATS, *GENERATED))
    if name in GENERATED:
        write(generated(name).encode(), output, name)
        return 0
    from bench.judge.gate import decide, exit_status

    try:
        found = _export(run, profile, results, max_age)
        data = render(name, found)
    except UserError as error:
        if name not in PLUGIN_STATUS:
            raise
        return no_answer(name, error, answer_unknown(name, str(error)))
    write(data, output, name)
    return plugin_status(name, 3 if found.stale else exit_status(decide(found.run.verdicts)))


def known_format(format: str | None, formats: tuple[str, ...]) -> str:  # noqa: A002
    """The format that was named. Raises UserError for none, and for one that there is not."""
    if format in formats:
        return str(format)
    asked = f"--format {format}: must be" if format else "--format is needed:"
    raise UserError(f"{asked} one of {', '.join(formats)}")


def no_answer(name: str, error: UserError, unknown: str) -> int:
    """Say "unknown" by the plugin's own protocol; its exit status."""
    note(f"bench: {error}")
    emit(unknown)
    return PLUGIN_STATUS[name][2]


def plugin_status(name: str, status: int) -> int:
    """The contract's exit status as that of a plugin; what is none exits 0 when it was written."""
    return PLUGIN_STATUS[name][status] if name in PLUGIN_STATUS else 0


def generated(name: str) -> str:
    """The dashboard (``grafana``) or the rules (``rules``) of this version."""
    from bench.show.export.grafana import dashboard, rules
    from bench.workflows.catalog import declared, load_profiles, shipped_profiles

    catalog = declared()
    if name == "grafana":
        return dashboard(catalog.probes)
    profiles = load_profiles(list(shipped_profiles()), catalog.metrics)
    return rules((gate.metric for profile in profiles for gate in profile.gates), catalog.metrics)


def _export(reference: str | None, profile: Words, results: Path | None, max_age: str | None) -> Export:
    from bench.store.evidence import is_signed
    from bench.workflows.catalog import declared
    from bench.workflows.judging import judged, too_old
    from bench.workflows.site import find_run, open_store, path_of

    store = open_store(results)
    found = judged(find_run(store, reference), store, profile)
    old = too_old(found.started_at, f"run {found.id}", age(max_age))
    return Export(found, declared().metrics, old, is_signed(path_of(store, reference, found)))


def _listen(where: str, format: str | None, profile: Words, results: Path | None) -> int:  # noqa: A002
    """Serve until SIGTERM or SIGINT, which is how a service ends well: status 0."""
    from bench.show.export.http import MetricsServer

    if format not in (None, "openmetrics"):
        raise UserError(f"--listen serves openmetrics, not {format}")
    host, port = _address(where)

    def scrape() -> bytes:
        return render("openmetrics", _export(None, profile, results, None))

    try:
        serving = MetricsServer(host, port, scrape)
    except (OSError, OverflowError) as error:
        raise UserError(f"--listen {where}: {getattr(error, 'strerror', None) or error}") from error

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving, suppress(KeyboardInterrupt):
        shown = f"[{host}]" if ":" in host else host
        note(f"serving http://{shown}:{serving.server_address[1]}/metrics")
        serving.serve_forever(poll_interval=0.2)
    return 0


def _address(where: str) -> tuple[str, int]:
    """``:9817`` and ``9817`` are the loopback: to be seen by others, an address must be named."""
    host, _, port = where.rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise UserError(f"--listen {where}: must be [ADDRESS]:PORT, 127.0.0.1:9817")
    return host.strip("[]") or "127.0.0.1", int(port)
