"""What ``bench run`` was asked for: the command line, then the site's settings, then the defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workflows.errors import CliError

if TYPE_CHECKING:
    from bench.measure.probe import Probe
    from bench.model import Request

_PEER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]+)(:\d{1,5})?")
_ACCELERATOR = re.compile(r"auto|cuda|cpu|emulated(:[A-Za-z0-9._*-]+)?")
_EFFORTS = ("quick", "standard", "thorough")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line said; what it left open comes from the site's settings, then from the defaults."""

    profile: list[str]
    probe: list[str]
    storage: list[Path]
    peer: list[str]
    accelerator: str | None
    effort: str | None
    results: Path | None
    replay: Path | None


def request_of(asked: Asked, site: dict[str, Any], found: Sequence[Probe], options: dict[str, Any]) -> Request:
    """The request, checked. Raises CliError, one line, for what cannot be asked."""
    from bench.model import Effort, Request

    effort = asked.effort or site.get("effort", "standard")
    if effort not in _EFFORTS:
        raise CliError(f"--effort {effort}: must be one of {', '.join(_EFFORTS)}")
    accelerator = asked.accelerator or site.get("accelerator", "auto")
    if not _ACCELERATOR.fullmatch(accelerator):
        raise CliError(f"--accelerator {accelerator}: must be auto, cuda, cpu or emulated[:NAME]")
    names = _probe_names(asked.probe or site.get("probe", []), found)
    storage = [_directory(path) for path in asked.storage or [Path(p) for p in site.get("storage", ["."])]]
    peers = asked.peer or site.get("peer", [])
    for peer in peers:
        if not _PEER.fullmatch(peer):
            raise CliError(f"--peer {peer}: must be HOST or HOST:PORT ([ADDRESS]:PORT for IPv6)")
    request = Request(
        effort=Effort(effort),
        probes=tuple(names),
        storage=tuple(dict.fromkeys(storage)),
        peers=tuple(dict.fromkeys(peers)),
        accelerator=accelerator,
        options=options,
    )
    _check([probe for probe in found if probe.name in names], request)
    return request


def _check(probes: Sequence[Probe], request: Request) -> None:
    """Each probe's own look at what it was asked. Raises CliError."""
    from bench.measure.probe import ProbeError

    for probe in probes:
        try:
            if probe.check is not None:
                probe.check(request)
        except ProbeError as error:
            raise CliError(f"{probe.name}: {error.reason.partition(': ')[2] or error.reason}") from error


def _probe_names(wanted: Sequence[str], found: Sequence[Probe]) -> list[str]:
    known = [probe.name for probe in found]
    for name in wanted:
        if name not in known:
            raise CliError(f"--probe {name}: no such probe; there are {', '.join(known)}")
    return [name for name in known if name in wanted] if wanted else known


def _directory(path: Path) -> str:
    absolute = Path(path).absolute()
    try:
        is_directory = absolute.is_dir()
    except OSError as error:
        raise CliError(f"--storage {path}: {error.strerror}") from error
    if not is_directory:
        raise CliError(f"--storage {path}: is not a directory; give one on the storage to be measured")
    return str(absolute)


def probe_options(words: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` words as options that single probes read. Raises CliError for any other form."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or not re.fullmatch(r"[a-z][a-z_]*", name):
            raise CliError(f"--option {word}: must be NAME=VALUE")
        found[name] = value
    return found
