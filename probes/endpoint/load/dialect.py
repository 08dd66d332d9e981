"""How a server is to be spoken to, found by one real completion: its path, its model, and what it takes beside.

The plain protocol has two paths, and servers differ in what they take beyond it. A request that is refused with 400 is
sent again with less; a server that takes no chat is asked for completions, whatever it calls that; a model that loads
is waited for. The models are listed only where none was named: some gateways keep the list from whom they
serve.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from bench.model import Code
from probes.common.http import Broken, of_status
from probes.endpoint.load.client import Client
from probes.endpoint.plan import EXTRAS, Api, Settings, apis, body, completions, prompt, url
from probes.endpoint.records import Answer, Opened, Place

_LOADING = 503  # while a model is loaded (llama.cpp, vLLM behind a router, TGI)
_ASK_AGAIN_SECONDS = 1.0
_NOT_TAKEN = (400, 422)
#: What servers say where there is no chat: no such path, or (vLLM, of a model without a template) no such request.
_NO_CHAT = (400, 404, 405, 422, 501)
_MOST_WORDS = 8.0  # of a token; of a word there may be many, where each byte is one


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask: where, for which model, with what."""

    url: str
    api: Api
    model: str
    extras: tuple[str, ...]
    words: int
    prefix: int
    output: int

    def body(self, draw: random.Random) -> bytes:
        text = prompt(draw, self.words, self.prefix)
        return json.dumps(body(self.api, self.model, text, self.output, self.extras)).encode()


async def opened(client: Client, settings: Settings) -> tuple[Dialect, Opened]:
    """One real completion; how the server is spoken to, and what it took. Raises Broken."""
    listed = [] if settings.model else await _models(client, settings)
    if (model := settings.model or next(iter(listed), None)) is None:
        raise Broken(Code.MODEL_UNKNOWN, "the server lists no models")
    loop, answers = asyncio.get_running_loop(), list[Answer]()
    began, draw = loop.time(), random.Random(settings.seed)
    for api in apis(settings.address):
        for extras in EXTRAS:
            where, words = completions(settings.address, api), settings.prompt_tokens
            dialect = Dialect(where, api, model, extras, words, settings.shared_prefix, settings.output_tokens)
            answer = await _loaded(client, dialect, draw)
            if answer.status not in _NOT_TAKEN:
                break
        answers.append(answer)
        if answer.status not in _NO_CHAT:
            break
    if answer.code is not None:
        refused = next((one for one in answers if one.code != Code.NOT_FOUND), answers[0])
        raise await _refused(client, settings, refused, model, listed)
    ratio = settings.prompt_tokens / answer.prompt if answer.prompt else None
    ratio = ratio if ratio and ratio < _MOST_WORDS else None  # else it counts something else
    scaled = Dialect(where, api, model, extras, _scaled(words, ratio), _scaled(settings.shared_prefix, ratio),
                     settings.output_tokens)  # fmt: skip
    seconds, (place, peer) = loop.time() - began, await _placed(client, settings.peers)
    return scaled, Opened(api, client.secrets.clean(model), extras, round(seconds, 6), ratio, place, peer)


async def _placed(client: Client, peers: Sequence[str]) -> tuple[Place, str | None]:
    """Where the server is, by the address that its connection has: here, or at one of the peers."""
    ours, its = client.ends or ("", "")
    if its in ("", ours) or ip_address(its).is_loopback:
        return "node", None
    for peer in peers:
        with suppress(OSError, ValueError):
            found = await asyncio.get_running_loop().getaddrinfo(urlsplit(f"//{peer}").hostname, None)
            if its in {str(one[4][0]) for one in found}:
                return "peer", peer
    return "elsewhere", None


def _scaled(words: int, ratio: float | None) -> int:
    return max(1 if words else 0, round(words * (ratio or 1.0)))


async def _loaded(client: Client, dialect: Dialect, draw: random.Random) -> Answer:
    """The answer, once the model is loaded, or when the patience for that is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + client.timeout
    while True:
        answer = await client.ask(dialect.url, dialect.body(draw), "warm-up", loop.time(), 0.0, dialect.output)
        if answer.status != _LOADING or loop.time() + _ASK_AGAIN_SECONDS > until:
            return answer
        await asyncio.sleep(_ASK_AGAIN_SECONDS)


async def _models(client: Client, settings: Settings) -> list[str]:
    """The names of the server's models; none where it does not list them."""
    until = asyncio.get_running_loop().time() + client.timeout
    while True:
        status, text = await client.small("GET", url(settings.address, "/models"))
        if status != _LOADING or asyncio.get_running_loop().time() + _ASK_AGAIN_SECONDS > until:
            break
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
    if (code := of_status(status)) in (Code.UNAUTHORIZED, Code.REDIRECTED):
        raise Broken(code)
    try:
        found = json.loads(text) if status == 200 else {}
    except (ValueError, RecursionError):
        return []
    rows = found.get("data") if isinstance(found, Mapping) else None
    rows = rows if isinstance(rows, list) else []
    return [row["id"] for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str)]


async def _refused(client: Client, settings: Settings, answer: Answer, model: str, listed: Sequence[str]) -> Broken:
    """Why there is nothing to measure; of a model that is not there, which are."""
    code, detail = Code(answer.code or Code.SERVER_ERROR), answer.detail
    if code is Code.NOT_FOUND and ("model" in detail.lower() or model in detail):
        with suppress(Broken):
            listed = listed or await _models(client, settings)
        code, detail = Code.MODEL_UNKNOWN, f"{model}; there are {', '.join(listed[:5])}" if listed else model
    return Broken(code, client.secrets.clean(detail))
