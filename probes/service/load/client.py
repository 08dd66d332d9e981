"""One request to a service: on time, bounded, judged at once; nothing of the answer is kept."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from bench.model import Code
from probes.common.http import Broken, Secrets, of_error, of_status
from probes.service.load.timing import CURRENT, Timing
from probes.service.plan import Service, body_of, headers_of, schema_of
from probes.service.records import Answer

_MOST_BYTES = 16 << 20
_MOST_JSON_BYTES = 1 << 20
_MOST_REDIRECTS = 5
_SHORTEST_SECRET = 6
_KEEP_SECONDS = 1.5  # of an idle connection: less than servers wait, so that none is closed as we send
_REDIRECTS = (301, 302, 303, 307, 308)
#: What there is none of within the budget, by the step of opening a connection that has no end.
_NOT_OPENED = {
    "resolve": (Code.HOST_UNKNOWN, "no word of the resolver"),
    "connect": (Code.CONNECT_TIMED_OUT, "no connection"),
    "tls": (Code.TLS_FAILED, "a connection, and no end of the TLS handshake"),
}
_ABSENT = object()


class Client:
    """Asks one service, on a kept connection or on one of its own."""

    def __init__(self, service: Service, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ValueError for a file or a variable that cannot be used."""
        self.service = service
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "aiready-bench"}
        given, self._body = headers_of(service, environ), body_of(service)
        self._headers |= ({"Content-Type": "application/json"} if self._body else {}) | given
        self._url = URL(service.url).update_query(service.query) if service.query else URL(service.url)
        words = [*given.values(), *" ".join(given.values()).split(), (self._body or b"").decode("utf-8", "replace")]
        self._secrets = Secrets(tuple(word for word in words if len(word) >= _SHORTEST_SECRET))
        self._validator = _validator(schema_of(service), service.schema_file)

    async def __aenter__(self) -> Self:
        trace, trusted = aiohttp.TraceConfig(), ssl.create_default_context()
        trace.on_connection_reuseconn.append(_reused)

        def session(cold: bool) -> aiohttp.ClientSession:
            how: dict[str, Any] = {"force_close": True} if cold else {"keepalive_timeout": _KEEP_SECONDS}
            connector = aiohttp.TCPConnector(
                limit=0, use_dns_cache=False, resolver=aiohttp.ThreadedResolver(), ssl=trusted, **how
            )
            return aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False, trust_env=False, trace_configs=[trace],
            )  # fmt: skip

        self._kept, self._cold = session(False), session(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kept.close()
        await self._cold.close()

    async def ask(self, n: int, start: float, at: float, cold: bool) -> Answer:
        """Request ``n``, due at ``at`` after the start; given up when its budget is over."""
        loop, timing, code, detail = asyncio.get_running_loop(), Timing(), None, ""
        CURRENT.set(timing)
        sent, due = loop.time(), start + at
        try:
            async with asyncio.timeout_at(due + self.service.budget_seconds):
                await self._answer(self._cold if cold else self._kept, timing)
        except TimeoutError:
            code, detail = self._too_slow(timing)
        except Broken as broken:
            code, detail = broken.code, broken.detail
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            code, detail = of_error(error), ""
            if timing.first_byte is not None and code in (Code.CONNECTION_RESET, Code.GARBLED):
                code = Code.TORN
        whole = loop.time() - due
        if code is None and whole > self.service.budget_seconds:
            code, detail = Code.TOO_SLOW, f"no end within {self.service.budget_seconds:g} s"
        return Answer(
            self.service.name, n, _micro(at), _micro(sent - due), _micro(whole), not timing.step,
            resolve=_some(timing.resolve), connect=_some(timing.connect), tls=_some(timing.tls),
            first_byte=_some(timing.first_byte), certificate=_some(timing.certificate), code=code,
            detail=self._secrets.clean(detail),
        )  # fmt: skip

    def _too_slow(self, timing: Timing) -> tuple[Code, str]:
        most = f"within {self.service.budget_seconds:g} s"
        if timing.step and timing.ready is None:
            code, what = _NOT_OPENED[timing.step]
            return code, f"{what} {most}"
        where = "before its headers" if timing.first_byte is None else "in its body"
        return Code.TOO_SLOW, f"no end {most}, {where}"

    async def _answer(self, session: aiohttp.ClientSession, timing: Timing) -> None:
        """Raises Broken for an answer that is not the declared one."""
        url, asked = self._url, set[URL]()
        while url not in asked and len(asked) <= _MOST_REDIRECTS:
            asked.add(url)
            began, timing.taken = asyncio.get_running_loop().time(), 0
            async with session.request(
                self.service.method, url, headers=self._headers, data=self._body, allow_redirects=False
            ) as response:
                timing.first_byte = asyncio.get_running_loop().time() - max(began, timing.ready or began)
                body = await self._read(response)
                there = self._elsewhere(response, url)
            if timing.broken:
                raise Broken(Code.CONNECTION_RESET, "its connection broke; another one was answered")
            if there is None:
                self._hold(response.status, response.headers.get("Content-Encoding", ""), body)
                return
            url = there
        raise Broken(Code.REDIRECTED, "in a circle" if url in asked else f"more than {_MOST_REDIRECTS} times")

    def _elsewhere(self, response: aiohttp.ClientResponse, url: URL) -> URL | None:
        """Where it points to on the same host. Raises Broken for another one."""
        if response.status not in _REDIRECTS or response.status == self.service.status:
            return None
        if not (named := response.headers.get("Location", "")):
            raise Broken(Code.REDIRECTED, "without a word of where to")
        try:
            there = urljoin(str(url), named)
            parts = urlsplit(there)
        except ValueError:
            raise Broken(Code.REDIRECTED, "to what is no address") from None
        try:
            same = URL(there).origin() == url.origin()
        except ValueError:
            same = False
        if not same or self.service.method == "POST":
            raise Broken(Code.REDIRECTED, f"to {parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        return URL(there)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The body where it is looked at; else it is read and dropped."""
        wanted, total, body = bool(self.service.pointer or self._validator), 0, bytearray()
        most = _MOST_JSON_BYTES if wanted else _MOST_BYTES
        async for chunk in response.content.iter_any():
            total += len(chunk)
            if total > most:
                raise Broken(Code.TOO_LARGE, f"more than {most >> 20} MiB")
            if wanted:
                body += chunk
        return bytes(body)

    def _hold(self, status: int, encoding: str, body: bytes) -> None:
        """Hold the answer against what was declared. Raises Broken; nothing of the answer is in its words."""
        if status != self.service.status:
            if (code := of_status(status)) is not None:
                raise Broken(code, f"HTTP {status}")
            if self.service.status is not None:
                raise Broken(Code.NOT_AS_DECLARED, f"HTTP {status}, declared is {self.service.status}")
        if not (self.service.pointer or self._validator):
            return
        if encoding not in ("", "identity"):
            raise Broken(Code.WRONG_CONTENT, "compressed, which was not asked for")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            raise Broken(Code.WRONG_CONTENT, "no JSON") from None
        if self.service.pointer and at_pointer(found, self.service.pointer) is _ABSENT:
            raise Broken(Code.NOT_AS_DECLARED, f"{self.service.pointer} is not there")
        if self._validator is not None:
            _hold_against(self._validator, found)


def _hold_against(validator: Any, found: Any) -> None:
    """Raises Broken where an answer is not as its schema says."""
    try:
        error = next(validator.iter_errors(found), None)
    except RecursionError:
        raise Broken(Code.NOT_AS_DECLARED, "nested too deep for its schema") from None
    if error is not None:
        where = "/".join(map(str, error.absolute_schema_path))
        raise Broken(Code.NOT_AS_DECLARED, f"against its schema at #/{where}")


async def _reused(_: object, __: object, ___: object) -> None:
    CURRENT.get().taken += 1


def at_pointer(found: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to; `_ABSENT` where that is nothing."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and _is_index(key) and int(key) < len(found):
            found = found[int(key)]
        else:
            return _ABSENT
    return found


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 10 and (key == "0" or key[0] != "0")


def _validator(schema: Any, file: str) -> Any:
    """Raises ValueError for what is no JSON Schema. Nothing that it refers to is fetched."""
    if schema is None:
        return None
    import jsonschema
    from jsonschema_specifications import REGISTRY
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        made = kind(schema, registry=Registry())
        next(made.iter_errors({}), None)
    except jsonschema.SchemaError:
        raise ValueError(f"{file}: is no JSON Schema") from None
    except RecursionError:
        raise ValueError(f"{file}: is a JSON Schema that refers to itself without end") from None
    except Unresolvable:
        raise ValueError(f"{file}: {_NOT_THERE}") from None
    known = REGISTRY.with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _references(schema):
        try:
            known.lookup(reference)
        except Unresolvable:
            raise ValueError(f"{file}: {_NOT_THERE}") from None
    return made


_NOT_THERE = "is a JSON Schema that refers to what is not in it, and nothing is fetched: put that into its $defs"
_LITERAL = ("const", "enum", "examples", "default")


def _references(schema: Any) -> Iterator[str]:
    """Every reference of a schema; none of one whose parts have names of their own ($id), which is not looked into."""
    found, todo = list[str](), [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, dict):
            if isinstance(one.get("$id"), str) or isinstance(one.get("$anchor"), str):
                return
            found += [one["$ref"]] if isinstance(one.get("$ref"), str) else []
            todo += [value for key, value in one.items() if key not in _LITERAL]
    yield from found


def _micro(seconds: float) -> float:
    return round(seconds, 6)


def _some(seconds: float | None) -> float | None:
    return None if seconds is None else _micro(seconds)
