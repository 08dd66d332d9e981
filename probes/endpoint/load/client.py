"""One request to an OpenAI-compatible server, from its scheduled moment to the end of its stream.

Every way to fail has a code of its own, and every wait and every size a bound. The stamp of a chunk is taken before it
is read as JSON. Nothing is decompressed: we ask for the identity and take no other encoding.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp

from bench.model import Code
from probes.common.http import Address, Broken, Secrets, of_error, of_status
from probes.endpoint.load.clock import StampingSelector
from probes.endpoint.load.deltas import DONE, Garbled, delta, message
from probes.endpoint.load.sse import Events, TooLong
from probes.endpoint.records import Answer, Stage

CONNECT_SECONDS = 5.0
_READ_BYTES = 4 << 20  # of a connection's buffer: aiohttp's own 64 KiB stops the reading of long answers
_MOST_BYTES = 64 << 20  # of an answer
_MOST_SMALL_BYTES = 1 << 20  # of what is no stream: an error, a list of models
_AFTER_END_SECONDS = 1.0  # for the end of the HTTP message after the end of the stream, so that it can be used again
#: A request into a connection that the server closes at that moment is lost, so an idle one is not used for long:
#: uvicorn and llama.cpp close theirs after 5 s, gunicorn after 2 s. None is sent twice: it would hide that it was lost.
_KEEP_ALIVE_SECONDS = 1.5
_CONNECTIONS_TRIED = 4
_MOST_TIMES_ASKED = 4  # chunks for each token that was asked for, and some


@dataclass(slots=True)
class Stream:
    """What was seen of an answer so far."""

    chunks: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    first_byte: float | None = None
    finished: bool = False
    done: bool = False
    completion: int | None = None
    prompt: int | None = None
    status: int | None = None
    retry_after: float | None = None


class Client:
    """A session with one server. ``timeout``: seconds from the scheduled moment until a request is too slow."""

    #: What its usage says are tokens; of our own echo they are moments.
    counts_tokens = True

    def __init__(
        self, address: Address, key: str | None, stamps: StampingSelector, timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.address, self.secrets, self.stamps, self.timeout = address, Secrets((key,) if key else ()), stamps, timeout
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "aiready-bench", **(headers or {})}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None
        self.ends: tuple[str, str] | None = None  # of the last connection: our address, and the server's

    async def __aenter__(self) -> Client:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_start.append(_connecting)
        trace.on_connection_create_end.append(_connected)
        connector = aiohttp.TCPConnector(
            limit=0, ssl=ssl.create_default_context(), keepalive_timeout=_KEEP_ALIVE_SECONDS, ttl_dns_cache=300
        )
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, read_bufsize=_READ_BYTES, trace_configs=[trace],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS), headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def small(self, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and the body of an answer that is not streamed. Raises Broken."""
        try:
            async with asyncio.timeout(self.timeout), self._request(method, url, body, SimpleNamespace()) as response:
                return response.status, await _bounded(response)
        except Broken:
            raise
        except Exception as error:
            broken = self._broken(error)
            raise Broken(broken.code, self.secrets.clean(broken.detail)) from error

    async def ask(self, url: str, body: bytes, stage: Stage, start: float, scheduled: float, output: int) -> Answer:
        """Send it now, and see it through. ``start``: of the window (monotonic seconds); ``scheduled`` after it."""
        loop, seen, how = asyncio.get_running_loop(), Stream(), SimpleNamespace()
        lag, code, detail = loop.time() - start - scheduled, None, ""
        try:
            async with asyncio.timeout_at(start + scheduled + self.timeout):
                await self._streamed(url, body, how, seen, output)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one request is its outcome
            broken = error if isinstance(error, Broken) else self._broken(error, seen)
            code, detail = broken.code, self.secrets.clean(broken.detail)
        tokens, counted = (seen.completion, "usage") if seen.completion else (len(seen.chunks), "chunks")
        counts = seen.counts if len(seen.counts) == len(seen.chunks) and seen.counts[-1:] == [tokens] else []
        return Answer(
            stage=stage, scheduled=_micro(scheduled), lag=_micro(max(0.0, lag)),
            chunks=tuple(_micro(at - start) for at in seen.chunks), late=tuple(map(_micro, seen.late)),
            counts=tuple(counts), ended=_micro(loop.time() - start), code=code, detail=detail, status=seen.status,
            retry_after=seen.retry_after, token_count=tokens, counted=counted, prompt=seen.prompt,  # type: ignore[arg-type]
            connect=getattr(how, "connect", None),
            first_byte=None if seen.first_byte is None else _micro(seen.first_byte - start),
        )  # fmt: skip

    async def _streamed(self, url: str, body: bytes, how: SimpleNamespace, seen: Stream, output: int) -> None:
        """On another connection where the one that was chosen had closed before anything was written into it."""
        for left in reversed(range(_CONNECTIONS_TRIED)):
            try:
                async with self._request("POST", url, body, how) as response:
                    await self._read(response, seen, output)
                return
            except aiohttp.ClientOSError as error:
                unsent = any(isinstance(e, aiohttp.ClientConnectionResetError) for e in (error, error.__cause__))
                if not (left and unsent) or seen.status is not None:
                    raise

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, url: str, body: bytes | None, how: SimpleNamespace
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        async with self._session.request(
            method, url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=how
        ) as response:
            yield response

    async def _read(self, response: aiohttp.ClientResponse, seen: Stream, output: int) -> None:
        seen.status, seen.first_byte = response.status, self.stamps.stamp()[0]
        self.ends = _ends(response) or self.ends
        if (code := of_status(response.status)) is not None:
            seen.retry_after = _retry_after(response.headers)
            said = await _said(response, code)
            if seen.retry_after is not None:
                said = f"{said or code}; it asks to wait {seen.retry_after:g} s"
            raise Broken(code, said)
        encoding, kind = response.headers.get("Content-Encoding", "identity"), response.content_type
        if encoding.lower() != "identity":
            raise Broken(Code.WRONG_CONTENT, f"it is encoded as {encoding}, which was not asked for")
        if kind != "text/event-stream":
            said = await _said(response, Code.WRONG_CONTENT)
            raise Broken(Code.WRONG_CONTENT, f"it is {kind}, not text/event-stream{said and f': {said}'}")
        await self._events(response, seen, most := _MOST_TIMES_ASKED * output + 64)
        if self.counts_tokens and seen.completion is not None and seen.completion > most:
            seen.completion = None
            raise Broken(Code.GARBLED, f"its usage says more than {most} tokens, and {output} were asked for")
        if not (seen.done or seen.finished):
            raise Broken(Code.TORN, f"the stream ended after {len(seen.chunks)} chunks, without a reason or [DONE]")
        if not seen.chunks:
            raise Broken(Code.NO_CONTENT, "the stream ended without any content")

    async def _events(self, response: aiohttp.ClientResponse, seen: Stream, most: int) -> None:
        events, read, content = Events(), 0, response.content
        while data := await content.readany():
            if (read := read + len(data)) > _MOST_BYTES:
                raise Broken(Code.TOO_LARGE, f"more than {_MOST_BYTES >> 20} MiB")
            for number, event in enumerate(_fed(events, data)):
                self._take(event, seen, number == 0)
            if len(seen.chunks) > most:
                raise Broken(Code.ENDLESS, f"more than {most} chunks")
            if seen.done:
                with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                    async with asyncio.timeout(_AFTER_END_SECONDS):
                        while len(await content.readany()):
                            pass
                return
        for event in events.end():
            self._take(event, seen, first=False)

    def _take(self, event: bytes, seen: Stream, first: bool) -> None:
        if event.strip() == DONE:
            seen.done = True
            return
        try:
            one = delta(event)
        except Garbled as error:
            raise Broken(Code.GARBLED, str(error)) from error
        if one.error is not None:
            raise Broken(Code.SERVER_ERROR, f"in the stream: {one.error}")
        seen.finished |= one.finished
        seen.completion = seen.completion if one.completion is None else one.completion
        seen.prompt = seen.prompt if one.prompt is None else one.prompt
        if one.content and not seen.done:
            arrived, late = self.stamps.stamp(first)
            seen.chunks.append(arrived)
            seen.late.append(late)
            if one.completion is not None:
                seen.counts.append(one.completion)

    def _broken(self, error: Exception, seen: Stream | None = None) -> Broken:
        """How it failed: an exception of the client's as one of our codes."""
        code, said = of_error(error), str(error) or type(error).__name__
        began = seen is not None and seen.status is not None
        if code in (Code.CONNECTION_RESET, Code.GARBLED) and began:
            code = Code.TORN
        if code is Code.TOO_SLOW:
            said = f"no end within {self.timeout:g} s, {_where(seen)}"
        return Broken(code, said)


def _where(seen: Stream | None) -> str:
    if seen is None or seen.status is None:
        return "before its headers"
    return "in the stream" if seen.chunks else "before its first token"


def _fed(events: Events, data: bytes) -> list[bytes]:
    try:
        return events.feed(data)
    except TooLong as error:
        raise Broken(Code.TOO_LARGE, str(error)) from error


def _ends(response: aiohttp.ClientResponse) -> tuple[str, str] | None:
    """Addresses at both ends of its connection, while it still has one."""
    transport = response.connection.transport if response.connection else None
    if transport is None:
        return None
    ours, its = (transport.get_extra_info(name) for name in ("sockname", "peername"))
    return (str(ours[0]), str(its[0])) if ours and its else None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(_MOST_SMALL_BYTES + 1)
    while body and len(body) <= _MOST_SMALL_BYTES and (more := await response.content.readany()):
        body += more
    if len(body) > _MOST_SMALL_BYTES:
        raise Broken(Code.TOO_LARGE, f"more than {_MOST_SMALL_BYTES >> 20} MiB")
    return body


async def _said(response: aiohttp.ClientResponse, code: Code) -> str:
    """What the server says of an error; never of a key that it did not take."""
    if code is Code.REDIRECTED:
        there = response.headers.get("Location", "nowhere").partition("?")[0]
        return f"to {re.sub('//[^/@]*@', '//', there)}"
    if code is Code.UNAUTHORIZED:
        return ""
    with contextlib.suppress(Broken, ValueError, RecursionError, aiohttp.ClientError):
        return message(json.loads(await _bounded(response)))
    return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of Retry-After (RFC 9110, 10.2.3), of a date after the server's own; None where it has none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        dates = [parsedate_to_datetime(one) for one in (text, headers.get("Date", ""))]
        return max(0.0, (dates[0] - dates[1]).total_seconds())
    return None


def _micro(seconds: float) -> float:
    return round(seconds, 6)


# --- what aiohttp's own trace says of a connection


async def _connecting(_: object, context: SimpleNamespace, __: object) -> None:
    context.began = asyncio.get_running_loop().time()


async def _connected(_: object, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.connect = _micro(asyncio.get_running_loop().time() - context.began)
