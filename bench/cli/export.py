"""``bench export``: a stored run in the words of another program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.gate import Results, RunArgument, find_run, open_store
from bench.cli.generated import GENERATED, generated
from bench.cli.output import emit, note
from bench.show.export import FORMATS
from bench.workflows import site as settings
from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.model import Run
    from bench.show.export import Export

Words = list[str] | None


def export(
    run: RunArgument = None,
    format: Annotated[  # noqa: A002 - the option is called so
        str | None,
        typer.Option(
            "--format",
            "-f",
            autocompletion=lambda: [*FORMATS, *GENERATED],
            help="openmetrics, junit, ctrf, markdown, nagios, npd, json, parquet, otlp; without a run: grafana, rules.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to put in place, atomically; default: standard output.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(help="[ADDRESS]:PORT to serve this node's newest run on, as openmetrics, until SIGTERM."),
    ] = None,
    profile: Annotated[
        Words,
        typer.Option(envvar="BENCH_PROFILE", help="Judge again by this profile; again for more. Default: as stored."),
    ] = None,
    max_age: Annotated[
        str | None, typer.Option(help="nagios, npd: a run older than this (26h, 90m) is no answer: unknown.")
    ] = None,
    results: Results = None,
) -> int:
    """A stored run for Prometheus, CI, Nagios, Kubernetes, a pull request or a notebook.

    Status 0 when it was written. nagios and npd are plugins: their exit status is the verdict, nagios 0, 2, 3, 3 and
    npd 0, 1, 2, 2 for GO, NO-GO, no verdict, INCONCLUSIVE.

    Without a run, grafana is a dashboard and rules are Prometheus rules, both made from what the probes declare.

    Examples:  bench export -f openmetrics -o /var/lib/node_exporter/textfile/bench.prom
               bench export 3f9a -f junit -o bench.xml
               bench export -f markdown >> "$GITHUB_STEP_SUMMARY"
               bench export --listen 127.0.0.1:9817
    """
    if listen is not None:
        return _listen(listen, format, profile, results)
    name = _known(format)
    if name in GENERATED:
        write(name, generated(name).encode(), output)
        return 0
    try:
        found = _export(run, profile, results, max_age)
        data = _rendered(name, found)
    except CliError as error:
        return _no_answer(name, error)
    write(name, data, output)
    return _status(name, found)


def _known(format: str | None) -> str:  # noqa: A002
    if format in (*FORMATS, *GENERATED):
        return str(format)
    listed = ", ".join((*FORMATS, *GENERATED))
    raise CliError(f"--format {format}: must be one of {listed}" if format else f"--format is needed: one of {listed}")


def _export(reference: str | None, profile: Words, results: Path | None, max_age: str | None) -> Export:
    from bench.show.export import Export

    found = _judged(find_run(open_store(results), reference), profile)
    return Export(found, settings.declared_metrics(), stale(found, max_age))


def _judged(run: Run, profile: Words) -> Run:
    """As it was stored; judged now if it never was, or if profiles are named."""
    wanted = profile or settings.config().get("profile", [])
    if run.verdicts and not profile:
        return run
    from bench.workflows.judging import concluded

    return concluded(run, settings.load_profiles(wanted, settings.declared_metrics()), settings.metric_owners())


def stale(run: Run, max_age: str | None) -> str | None:
    """Why the run is too old to speak for the node now, or None. Raises CliError for what is no age."""
    if max_age is None:
        return None
    import time

    from bench.cli.regression import duration, too_old

    return too_old(run, duration(max_age, "--max-age"), time.time())


def _rendered(name: str, found: Export) -> bytes:
    from bench.show.export import ExportError, render

    try:
        return render(name, found)
    except ExportError as error:
        raise CliError(str(error)) from error


def _no_answer(name: str, error: CliError) -> int:
    """A plugin must say "unknown" by its own protocol; elsewhere the error is the answer."""
    from bench.show.export import PLUGIN_STATUS, answer_unknown

    if name not in PLUGIN_STATUS:
        raise error
    note(f"bench: {error}")
    emit(answer_unknown(name, str(error)).decode())
    return PLUGIN_STATUS[name][2]


def write(name: str, data: bytes, output: Path | None) -> None:
    """Into the file, or to standard output. Raises CliError."""
    from bench.show.export import BINARY
    from bench.store.atomic import write_atomically

    if output is not None and str(output) != "-":
        try:
            write_atomically(output, data)
        except OSError as error:
            raise CliError(f"{output}: cannot be written: {error.strerror or error}") from error
    elif name not in BINARY:
        emit(data.decode())
    elif sys.stdout.isatty():
        raise CliError(f"{name} is not for a terminal: give a file with -o FILE")
    else:
        sys.stdout.buffer.write(data)


def _status(name: str, found: Export) -> int:
    from bench.judge.gate import decide, exit_status
    from bench.show.export import PLUGIN_STATUS

    if name not in PLUGIN_STATUS:
        return 0
    status = 3 if found.stale else exit_status(decide(found.run.verdicts))
    return PLUGIN_STATUS[name][status]


# --- listening


def _listen(where: str, format: str | None, profile: Words, results: Path | None) -> int:  # noqa: A002
    """Serve until SIGTERM or SIGINT, which is how a service ends well: status 0."""
    import signal

    from bench.show.export.http import ScrapeError, server

    if format not in (None, "openmetrics"):
        raise CliError(f"--listen serves openmetrics, not {format}")
    host, port = _address(where)

    def scrape() -> bytes:
        try:
            return _rendered("openmetrics", _export(None, profile, results, None))
        except CliError as error:
            raise ScrapeError(str(error)) from error

    try:
        serving = server(host, port, scrape)
    except (OSError, OverflowError) as error:
        raise CliError(f"--listen {where}: {getattr(error, 'strerror', None) or error}") from error

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    with serving:
        shown = f"[{host}]" if ":" in host else host
        note(f"serving http://{shown}:{serving.server_address[1]}/metrics")
        try:
            serving.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return 0
    return 0


def _address(where: str) -> tuple[str, int]:
    """``:9817`` and ``9817`` are the loopback: to be seen by others, an address must be named."""
    host, _, port = where.rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise CliError(f"--listen {where}: must be [ADDRESS]:PORT, 127.0.0.1:9817")
    return host.strip("[]") or "127.0.0.1", int(port)
