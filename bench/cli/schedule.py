"""``bench schedule``: the nightly run, installed, asked after, removed; and old nights pruned."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from bench.cli.options import Json, Results, duration
from bench.cli.output import emit, emit_json
from bench.errors import UserError

schedule = Typer(no_args_is_help=True, help="The nightly run, as a systemd timer.", rich_markup_mode=None)

Words = Annotated[list[str] | None, Option(help="As for bench run; again for more.")]
Word = Annotated[str | None, Option(help="As for bench run.")]
User = Annotated[bool | None, Option("--user/--system", help="A unit of your own, or of the system (root's default).")]
KeepSigned = Annotated[int | None, Option(min=0, help="Signed runs to keep beside them, the newest; default: all.")]
_KEEP = 400


@schedule.command("install")
def install(
    storage: Words = None,
    peer: Words = None,
    profile: Words = None,
    accelerator: Word = None,
    effort: Word = None,
    results: Results = None,
    at: Annotated[str, Option(help="When, HH:MM of the node's own clock.")] = "02:00",
    delay: Annotated[str, Option(help="Spread the nodes over this long, each by a fixed part.")] = "90m",
    keep: Annotated[int, Option(min=30, help="Nights to keep; pinned ones are never removed.")] = _KEEP,
    keep_signed: KeepSigned = None,
    account: Annotated[str | None, Option(help="The account that the system unit runs as; default root.")] = None,
    user: User = None,
    show: Annotated[bool, Option("--print", help="Print the files; install nothing.")] = False,
) -> None:
    """Measure every night and compare with the nights before.

    Examples:  bench schedule install --storage /data --peer 10.0.0.2    bench schedule install --user --at 03:30
    """
    from bench import schedule as nightly_run
    from bench.store.index import cache_folder
    from bench.workflows.catalog import load_catalog
    from bench.workflows.request import RunOptions, request_of
    from bench.workflows.site import config, results_root

    where = nightly_run.place(_user(user))
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", at):
        raise UserError(f"--at {at}: must be HH:MM, 02:00 say")
    if account is not None and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", account):
        raise UserError(f"--account {account!r}: is not the name of an account")
    if (spread := duration(delay, "--delay")) > 24 * 3600:
        raise UserError(f"--delay {delay}: must be at most 24h, the time between two nights")
    places = [Path(word) for word in storage or []]
    asked = RunOptions(storage=places, peer=peer or [], accelerator=accelerator, effort=effort)
    folders = list(request_of(asked, config(), load_catalog(profile)).storage)  # refused now, not at night
    given: dict[str, list[str] | None] = {"--storage": folders, "--peer": peer, "--profile": profile}
    given |= {"--accelerator": [accelerator] if accelerator else [], "--effort": [effort] if effort else []}
    options = [word for name, words in given.items() for value in words or [] for word in (name, _fixed(name, value))]
    root = results_root(results).absolute()
    cache = None if account else cache_folder()
    writes = (root, *map(Path, folders), *([cache] if cache else []))
    bench = (sys.executable, "-m", "bench")
    signed = () if keep_signed is None else ("--keep-signed", str(keep_signed))
    nightly = nightly_run.Nightly(
        run=(*bench, "run", "--baseline", "--quiet", *options, "--results", str(root)),
        prune=(*bench, "schedule", "prune", "--keep", str(keep), *signed, "--results", str(root)),
        writes=writes,
        at=at,
        delay_minutes=max(1, int(spread // 60)),
        user=where.user,
        account=account,
    )
    try:
        if show:
            for kind, text in (("service", nightly_run.service(nightly)), ("timer", nightly_run.timer(nightly))):
                emit(f"# {nightly_run.NAME}.{kind}\n{text}")
        else:
            for folder in nightly.writes:  # a folder that is not there when the unit starts stays read-only for it
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            emit(nightly_run.install(nightly, where))
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


@schedule.command("status")
def status(user: User = None, results: Results = None, json: Json = False) -> int:
    """When it last ran, how it ended, when it runs next.

    Exit status: 0 it is installed, 3 it is not, 2 it cannot be said.

    Example:  bench schedule status --json
    """
    from dataclasses import asdict

    from bench import schedule as nightly_run
    from bench.workflows.site import results_root

    found = nightly_run.status(nightly_run.place(_user(user)))
    verdicts = _last_verdicts(results_root(results))
    if json:
        emit_json({**asdict(found), "last_run": verdicts})
    elif found.installed is None:
        emit("not installed: bench schedule install")
    else:
        ended = f"{found.last_ended}, status {found.last_status} ({found.last_result})" if found.last_ended else "never"
        emit(f"installed: {found.installed}\nlast started: {found.last_started or 'never'}\nlast ended: {ended}")
        emit(f"next: {found.next_start or 'not known'}\nnewest run: {verdicts or 'none'}")
    return 0 if found.installed else 3


@schedule.command("remove")
def remove(user: User = None) -> None:
    """Stop it and remove every file of it. Stored runs stay.

    Example:  bench schedule remove
    """
    from bench import schedule as nightly_run

    files = nightly_run.remove(nightly_run.place(_user(user)))
    emit("\n".join(f"removed {path}" for path in files) or "nothing was installed")


@schedule.command("prune")
def prune(
    keep: Annotated[
        int, Option(min=30, help="Nights to keep; pinned ones, and those that the gate needs, always are.")
    ] = _KEEP,
    keep_signed: KeepSigned = None,
    results: Results = None,
) -> None:
    """Remove this node's oldest runs. The nightly unit does it after each run, when the disk is idle.

    Examples:  bench schedule prune --keep 100    bench schedule prune --keep 100 --keep-signed 30
    """
    from bench.store.history import prune as remove_old
    from bench.workflows.site import results_root

    removed = remove_old(results_root(results), socket.gethostname(), keep, keep_signed)
    signed = "signed ones" if keep_signed is None else f"the newest {keep_signed} signed ones"
    emit(f"removed {len(removed)} runs; the newest {keep} nights, pinned ones, {signed} and those the gate needs stay")


def _user(asked: bool | None) -> bool:
    return os.geteuid() != 0 if asked is None else asked


def _fixed(option: str, value: str) -> str:
    """A file as it is from everywhere; other words as they are."""
    is_path = option == "--profile" and Path(value).suffix == ".toml"
    return str(Path(value).absolute()) if is_path else value


def _last_verdicts(root: Path) -> str | None:
    """``20260101T020000Z-3f9a: GO batch-inference, ...`` of this node's newest run; None without one."""
    from bench.store.runs import Store

    run = Store(root, warn=lambda _: None).newest(socket.gethostname())
    if run is None:
        return None
    return f"{run.started_at}: " + ", ".join(f"{v.decision.value} {v.profile}" for v in run.verdicts)
