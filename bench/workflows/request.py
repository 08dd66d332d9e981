"""What ``bench run`` was asked for: the command line, then the site's settings, then the defaults."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.judge.gate import ENDPOINT, EXPECTATION
from bench.judge.toml_lines import parse
from bench.measure.probe import Option, Probe, ProbeError
from bench.measure.regular_files import read_text
from bench.model import Effort, Request
from bench.workflows.catalog import Catalog
from bench.workflows.site import CONFIG, config_file, said_by

_PEER = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:]+)(:\d{1,5})?")
_ACCELERATOR = re.compile(r"auto|cuda|cpu|emulated(:[A-Za-z0-9._*-]+)?")
#: What a request's options hold beside those of the probes.
OWN_OPTIONS = ("confirms", "quiet_check")
#: The probe that looks first, and the table of the site's settings.
EXPECT = "expect"
#: The option, and the tables of the site's settings.
SERVICE = "service"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line said; what it left open comes from the site's settings, then from the defaults.

    ``flags``: probe options that have a flag of their own, by name. ``option``: ``PROBE.NAME=VALUE`` words.
    ``precision``: a ratio; ``patience``: seconds to wait for a quiet node; ``confirms``: the id of a first run.
    ``services``: names out of the site's settings, and URLs.
    ``sign``: the key that the stored run is signed with, ``nonce`` a verifier's word.
    """

    profile: Sequence[str] = ()
    probe: Sequence[str] = ()
    storage: Sequence[Path] = ()
    peer: Sequence[str] = ()
    accelerator: str | None = None
    effort: str | None = None
    results: Path | None = None
    replay: Path | None = None
    flags: Mapping[str, str | None] = field(default_factory=dict)
    option: Sequence[str] = ()
    baseline: bool = False
    precision: float | None = None
    patience: float | None = None
    quiet_check: bool = True
    confirms: str | None = None
    expect: Path | None = None
    services: Sequence[str] = ()
    sign: Path | None = None
    nonce: str | None = None


def request_of(asked: RunOptions, site: Mapping[str, Any], catalog: Catalog) -> Request:
    """The request, checked. Raises UserError, one line, for what cannot be asked."""
    effort = asked.effort or site.get("effort", "standard")
    if effort not in (efforts := [one.value for one in Effort]):
        raise UserError(f"{said_by(asked.effort, 'effort', site)} {effort}: must be one of {', '.join(efforts)}")
    accelerator = asked.accelerator or site.get("accelerator", "auto")
    check_accelerator(accelerator, said_by(asked.accelerator, "accelerator", site))
    wanted = asked.probe or site.get("probe", [])
    flags = {**asked.flags, "checks": asked.flags.get("checks") or site.get("checks")}
    given = probe_options(flags, asked.option, catalog) | _expected(asked.expect, site, catalog)
    given |= _services(asked.services, site, by_itself=not wanted or SERVICE in wanted)
    named = probe_names(wanted, said_by(asked.probe, "probe", site), catalog)
    names = _chosen(named, given, catalog, all_of_them=not wanted)
    names = [name for name in names if name != EXPECT]
    names = [EXPECT, *names] if EXPECTATION in given else names
    where, places = said_by(asked.storage, "storage", site), asked.storage or map(Path, site.get("storage", ["."]))
    storage = [_directory(path, where) for path in places]
    peers = asked.peer or site.get("peer", [])
    for peer in peers:
        if not (found := _PEER.fullmatch(peer)) or not 0 < int((found[2] or ":1")[1:]) < 1 << 16:
            where = said_by(asked.peer, "peer", site)
            raise UserError(f"{where} {peer}: must be HOST or HOST:PORT ([ADDRESS]:PORT for IPv6)")
    own = {"confirms": asked.confirms} if asked.confirms else {}
    own |= {} if asked.quiet_check else {"quiet_check": "off"}
    request = Request(
        effort=Effort(effort),
        probes=tuple(names),
        storage=tuple(dict.fromkeys(storage)),
        peers=tuple(dict.fromkeys(peers)),
        accelerator=accelerator,
        options=given | own,
    )
    for probe in catalog.probes:
        try:
            if probe.check is not None and probe.name in names:
                probe.check(request)
        except ProbeError as error:
            raise UserError(f"{probe.name}: {error.reason.partition(': ')[2] or error.reason}") from error
    return request


def _expected(file: Path | None, site: Mapping[str, Any], catalog: Catalog) -> dict[str, str]:
    """The option with what the node should be: the file's tables, else the site's. Raises UserError."""
    where, tables = f"--expect {file}", site.get(EXPECT)
    if file is None and tables is None:
        return {}
    try:
        if file is not None:
            tables = parse(read_text(file), where)
        else:
            where = f"[{EXPECT}] in {CONFIG}"
        text = json.dumps(tables, default=str)
        dict(catalog.options())[f"{EXPECT}.{EXPECTATION}"].value(text)
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}; bench doctor --write-expect FILE writes one") from error
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    except ValueError as error:  # tables that say something else
        raise UserError(f"{where}: {error}") from error
    return {EXPECTATION: text}


def _services(words: Sequence[str], site: Mapping[str, Any], by_itself: bool) -> dict[str, str]:
    """The option with the services that were named, else the site's unless other probes were. Raises UserError."""
    if not words and not (by_itself and SERVICE in site):
        return {}
    from probes.service.plan import chosen, declared, told, usable

    file = config_file() if SERVICE in site else None
    known = declared(read_text(file), str(file), file.parent) if file else ()
    try:
        found = chosen(words, known)
        usable(found)
    except ValueError as error:
        raise UserError(f"--{SERVICE} {error}" if words else f"{file}: {error}") from error
    return {SERVICE: told(found)}


def check_accelerator(word: str, where: str) -> None:
    """Raises UserError for what is no accelerator; ``where`` it was said."""
    if not _ACCELERATOR.fullmatch(word):
        raise UserError(f"{where} {word}: must be auto, cuda, cpu or emulated[:NAME]")


def probe_names(wanted: Sequence[str], where: str, catalog: Catalog) -> list[str]:
    """Those that were named, in the order of the catalog; all where none was. Raises UserError."""
    known = [probe.name for probe in catalog.probes]
    for name in wanted:
        if name not in known:
            raise UserError(f"{where} {name}: no such probe; there are {', '.join(known)}")
    return [name for name in known if name in wanted] if wanted else known


def _chosen(names: Sequence[str], given: Mapping[str, str], catalog: Catalog, all_of_them: bool) -> list[str]:
    """Those that were named, and each whose own option was; of all of them none that loads cards of a server."""
    left = {p.name for p in catalog.probes if all_of_them and p.on_cards and ENDPOINT in given}
    asked = {p.name for p in catalog.probes if p.needs and p.needs in given}
    return [p.name for p in catalog.probes if p.name in asked or (p.name in names and p.name not in left)]


def why_not(probe: Probe, request: Request) -> str:
    """Why a probe is not among those of a request."""
    if probe.on_cards and ENDPOINT in request.options:
        return "the cards are the server's (--endpoint); --probe names it beside that all the same"
    return "--probe did not name it"


def _directory(path: Path, where: str) -> str:
    try:
        if not path.is_dir():
            raise UserError(f"{where} {path}: is not a directory; give one on the storage to be measured")
        return str(path.absolute())
    except OSError as error:  # for ``.``: a working directory that was removed
        raise UserError(f"{where} {path}: {error.strerror}") from error


def probe_options(flags: Mapping[str, str | None], words: Sequence[str], catalog: Catalog) -> dict[str, str]:
    """Option name -> text, each of them declared, with a value that its probe takes. Raises UserError.

    ``NAME=VALUE`` stands for every probe that declares the option, ``PROBE.NAME=VALUE`` for that probe alone.
    """
    found = {}
    for flag, key, text in _said(flags, words):
        name, option = _declared(flag, key, catalog)
        flag = flag if option.quotable else flag.partition(" ")[0]
        try:
            value = option.value(text)
            if option.check is not None:
                option.check(value)
        except ValueError as error:
            raise UserError(f"{flag}: {error}") from error
        found[name] = text
    return found


def _said(flags: Mapping[str, str | None], words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(what the user wrote, name, value) of each option."""
    for name, value in flags.items():
        if value is not None:
            yield f"--{name.replace('_', '-')} {value}", name, value
    for word in words:
        name, _, value = word.partition("=")
        if not name or not value:
            raise UserError(f"--option {word}: must be PROBE.NAME=VALUE")
        yield f"--option {word}", name, value


def _declared(flag: str, key: str, catalog: Catalog) -> tuple[str, Option]:
    """The option that was meant, and its name in the request: with its probe's only where the name is not its alone."""
    options = list(catalog.options())
    meant = {option for name, option in options if key in (name, option.name)}
    if not meant:
        near = difflib.get_close_matches(key, [*dict(options), *(option.name for _, option in options)], 1)
        hint = f"did you mean {near[0]}?" if near else "`bench probes` lists them"
        raise UserError(f"{flag}: no probe declares the option {key!r}; {hint}")
    if len(meant) > 1:
        named = [name for name, option in options if option in meant]
        raise UserError(f"{flag}: several probes have such an option; say which: {', '.join(named)}")
    (option,) = meant
    return (option.name if sum(one.name == option.name for _, one in options) == 1 else key), option
