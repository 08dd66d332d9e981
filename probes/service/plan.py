"""Which services are asked, how, and how often: the ``[[service]]`` tables of ``bench.toml``, read strictly.

Pure, but for the files that a table names.

::

    [[service]]
    name = "crm"
    url = "https://crm.example.org/api/accounts"
    query = { limit = "1" }
    headers_env = { Authorization = "CRM_AUTHORIZATION" }   # or headers_file, of lines `Name: value`
    pointer = "/records/0/id"                               # must be in the answer (RFC 6901)
    budget_seconds = 0.5
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from bench.judge.toml_lines import StrictTable, form, parse, refuse
from bench.measure.regular_files import NotReadable, read_regular
from bench.model import Effort
from probes.common.http import address
from probes.common.looks import Looks

#: The most requests that one service gets, and the most a second. What tells 98.5 % from 99.5 % is the last.
MOST: Mapping[Effort, int] = {Effort.QUICK: 500, Effort.STANDARD: 900, Effort.THOROUGH: 8_000}
HIGHEST_RATE = 10.0
#: Each so many requests, one on a connection of its own.
COLD_EVERY = 10
#: So many in a row from the start that are not let in, and no more are sent: a token may be locked.
MOST_NOT_LET_IN = 10
MOST_LAG_SHARE_OF_BUDGET = 0.05
_FIRST_LOOK, _STEP = 50, 10.0
_MOST_BYTES, _MOST_SERVICES = 1 << 20, 50
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")  # RFC 6901, 3
_URL = "must be http:// or https:// with a host, without user, password, query or fragment"


def _url(text: str) -> str:
    try:
        found = address(text)
    except ValueError:
        raise ValueError(f"url {_URL}; `query` is a table, a secret belongs into headers_file") from None
    return found.url


def _pointer(text: str) -> str:
    if not _POINTER.fullmatch(text):
        raise ValueError("pointer is none of RFC 6901: begin it with /, as in /records/0/id")
    return text


def _header_variables(found: dict[str, str]) -> dict[str, str]:
    if not all(_TOKEN.fullmatch(name) and _VARIABLE.fullmatch(variable) for name, variable in found.items()):
        raise ValueError("headers_env must map a header's name to that of an environment variable")
    return found


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("name must be one printable line")
    return text


class Service(StrictTable):
    """One service. Files are absolute paths. No secret is in it: those are in its files and in the environment."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_line)]
    url: Annotated[str, Field(max_length=2000), AfterValidator(_url)]
    query: dict[str, str] = Field(default_factory=dict)
    method: Literal["GET", "HEAD", "POST"] = "GET"
    safe: bool = False
    headers_file: str = ""
    headers_env: Annotated[dict[str, str], AfterValidator(_header_variables)] = Field(default_factory=dict)
    body_file: str = ""
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    pointer: Annotated[str, AfterValidator(_pointer)] = ""
    schema_file: str = ""
    budget_seconds: Annotated[float, Field(ge=0.01, le=30.0)] = 1.0
    rate: Annotated[float, Field(gt=0.0, le=HIGHEST_RATE)] = HIGHEST_RATE

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.method == "POST" and not self.safe:
            raise ValueError("is asked with POST, which may change something: say `safe = true` if it does not")
        if self.body_file and self.method != "POST":
            raise ValueError(f'has a body_file, and {self.method} sends no body: say `method = "POST"`')
        if self.method == "HEAD" and (self.pointer or self.schema_file):
            raise ValueError("is asked with HEAD, whose answer has no body to hold against a pointer or a schema")
        return self

    def looks(self, effort: Effort, seconds: float) -> Looks:
        """When enough was seen, of as many requests as fit into the seconds."""
        return Looks(max(1, min(MOST[effort], int(seconds * self.rate))), _FIRST_LOOK, _STEP)

    def counts(self, lag: float) -> bool:
        """Does a request count that we sent so late ourselves? Lateness takes a part of the budget from the service."""
        return lag <= MOST_LAG_SHARE_OF_BUDGET * self.budget_seconds

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(self.headers_env.values())

    @property
    def secret_from(self) -> str:
        """Where its token comes from, for a person."""
        return ", ".join(filter(None, [*(f"${name}" for name in self.variables), self.headers_file]))


class _Services(StrictTable):
    services: Annotated[
        tuple[Service, ...], Field(alias="service", strict=False, min_length=1, max_length=_MOST_SERVICES)
    ]


def declared(text: str, name: str, folder: Path) -> tuple[Service, ...]:
    """The services of a ``bench.toml``, whose other settings are not looked at. Raises TomlError, a line a mistake."""
    raw = parse(text, name)
    if "service" not in raw:
        return ()
    only = {"service": raw["service"]}
    mistakes = dict(form(only, _Services, Service, "service"))
    if len(mistakes) > 1:
        mistakes.pop(("service",), None)
    refuse(mistakes, text, name)
    found = _Services.model_validate(only).services
    names = [one.name for one in found]
    twice = [(at, one) for at, one in enumerate(names) if one in names[:at]]
    refuse({("service", at, "name"): f"the service {one!r} is there twice" for at, one in twice}, text, name)
    return tuple(_placed(one, folder) for one in found)


def _placed(service: Service, folder: Path) -> Service:
    named = {key: getattr(service, key) for key in ("headers_file", "body_file", "schema_file")}
    return service.model_copy(update={key: str((folder / file).absolute()) for key, file in named.items() if file})


def chosen(words: Sequence[str], known: Sequence[Service]) -> tuple[Service, ...]:
    """Those that were named, by name or by URL; all that are declared where none is. Raises ValueError."""
    names = {one.name: one for one in known}
    found = []
    for word in words:
        if word in names:
            found.append(names[word])
        elif "://" in word:
            found.append(_by_url(word))
        else:
            there = ", ".join(names) or "none"
            raise ValueError(f"{word[:100]}: no such [[service]] in bench.toml (there are: {there}), and no URL")
    return tuple({one.name: one for one in found or known}.values())


def _by_url(word: str) -> Service:
    """Its text is not repeated: it may hold a secret."""
    try:
        return Service(name=address(word).shown[:200], url=word)
    except ValueError:
        raise ValueError(f"URL: {_URL}; declare it as [[service]] in bench.toml where it needs more") from None


def told(services: Sequence[Service]) -> str:
    """The text of a request's option."""
    return json.dumps([one.model_dump(exclude_defaults=True) for one in services])


def services(text: str) -> tuple[Service, ...]:
    """The services in a request's option. Raises ValueError."""
    try:
        return TypeAdapter(tuple[Service, ...]).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"is no list of services: {first['msg']}") from None


def typed(text: str) -> tuple[str, ...]:
    """The words by which a person names them: of one without a table its name is its URL. Raises ValueError."""
    return tuple(one.name for one in services(text))


# --- what is in their files


def usable(found: Sequence[Service]) -> None:
    """Raises ValueError for a file that cannot be read, a variable that is not set, a schema that is none."""
    for service in found:
        headers_of(service, os.environ)
        body_of(service)
        schema_of(service)


def headers_of(service: Service, environ: Mapping[str, str]) -> dict[str, str]:
    """The headers that are sent. Raises ValueError, which quotes nothing of them."""
    found = dict(_in_file(service.headers_file)) if service.headers_file else {}
    for name, variable in service.headers_env.items():
        if not _is_value(value := environ.get(variable, "").strip()):
            raise ValueError(f"{service.name}: ${variable} is not set to one line of ASCII; export it for {name}")
        found[name] = value
    return found


def _in_file(file: str) -> Iterator[tuple[str, str]]:
    try:
        lines = _read(file).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file}: holds no headers: write lines of ASCII, `Name: value`") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not (colon and _TOKEN.fullmatch(name) and _is_value(value.strip())):
            raise ValueError(f"{file}:{number}: is no header: write `Name: value`")
        yield name, value.strip()


def _is_value(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()


def body_of(service: Service) -> bytes | None:
    """What is sent with POST. Raises ValueError."""
    return _read(service.body_file) if service.body_file else None


def schema_of(service: Service) -> Any:
    """The JSON Schema of its answer, or None. Raises ValueError."""
    if not service.schema_file:
        return None
    data = _read(service.schema_file)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{service.schema_file}: is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{service.schema_file}: is no JSON Schema: it must be an object")
    return found


def _read(file: str) -> bytes:
    """A regular file of at most 1 MiB. Raises ValueError."""
    try:
        return read_regular(Path(file), _MOST_BYTES)
    except NotReadable as error:
        raise ValueError(f"{file}: {error}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: {getattr(error, 'strerror', None) or 'cannot be read'}") from None


# --- what is said before


def announced(service: Service, looks: Looks, limit: float) -> str:
    """How many requests it gets, and what they can show: one line."""
    most = looks.most
    spared = next((f for f in range(most) if looks.interval(most - f, most)[0] < limit), most) - 1
    fails = next((f for f in range(most + 1) if looks.interval(most - f, most)[1] < limit), most + 1)
    share = f"{limit * 100:g} %"
    shows = f"show {share} if at most {spared} fail" if spared >= 0 else f"are too few to show {share}"
    first = next((n for n in looks.sizes if looks.interval(n, n)[0] >= limit), None)
    soon = f", {first} if none does" if first is not None and first < most else ""
    return (
        f"{service.name}: at most {most} requests, {service.rate:g} a second, {most / service.rate:.0f} s; "
        f"they {shows}{soon}, refute it if {fails} do"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the child is told, on its standard input."""

    services: tuple[Service, ...]
    effort: Effort
    seconds: float
    limit: float

    def text(self) -> str:
        return json.dumps({"services": json.loads(told(self.services)), "effort": self.effort,
                           "seconds": self.seconds, "limit": self.limit})  # fmt: skip


def settings(text: str) -> Settings:
    """What a child was told. Raises ValueError."""
    return TypeAdapter(Settings).validate_json(text)
