"""What is sent to the server, and how much of it: known before anything is sent, so that a person can be told. Pure."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from bench.judge.statistics import samples_needed_for_quantile
from bench.measure.probe import positive_integer
from bench.model import Effort
from probes.common.http import Address, address
from probes.common.metrics import needed
from probes.common.open_loop import LEAST_KEPT, poisson

#: Requests a second that a server is asked for at most, as long as nobody says that it may be more.
DEFAULT_MAX_RATE = 5.0
KEY_VARIABLE = "BENCH_ENDPOINT_KEY"
#: Of the highest rate that keeps the limits, what is held: a server at its limit has queues of any length.
HELD_SHARE = 0.8
_SEARCH_SHARE = 0.3  # of the time
_FIRST_TRIAL_SHARE = 0.1  # of the time, if that many requests of a trial fit into it
LEAST_HELD_SHARE = 0.4  # of the time, however long the search took
MOST_TOKENS = 131_072  # of a prompt or an answer: the longest context that servers are commonly run with
LEAST_REQUESTS = 10
#: 64 decide with one violation (exact binomial, 99 %).
TRIAL_REQUESTS = samples_needed_for_quantile(LEAST_KEPT, over=1)
#: Requests of the held window, where they fit into the time. 368 hold a p99 with 95 %; over all looks 469 show a
#: success ratio of 99 % if none failed.
ENOUGH = {Effort.QUICK: 480, Effort.STANDARD: 560, Effort.THOROUGH: 4000}
#: What a server may take beyond the plain protocol, the most that we would like first; it is asked with less on 400.
EXTRAS: tuple[tuple[str, ...], ...] = (
    ("include_usage", "continuous_usage_stats", "ignore_eos", "min_tokens"),
    ("include_usage", "ignore_eos"),
    ("include_usage",),
    ("include_usage", "max_completion_tokens"),
    (),
)
Api = Literal["chat", "completions"]
_PATHS: Mapping[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}
#: Common English words of one token each in most vocabularies.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea kid body back "
    "parent face others level office door health person art war history party result change morning reason research"
).split()


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the child is told, over its standard input. ``key_file`` names a file; no key is in here."""

    url: str
    seconds: float
    enough: int
    max_rate: float = DEFAULT_MAX_RATE
    rate: float | None = None
    model: str | None = None
    key_file: str | None = None
    prompt_tokens: int = 128
    output_tokens: int = 64
    shared_prefix: int = 0
    first_token_limit: float = 0.2
    inter_token_limit: float = 0.05
    timeout: float = 30.0
    self_check: float = 4.0
    seed: int = 7
    peers: tuple[str, ...] = ()

    @property
    def address(self) -> Address:
        return address(self.url)

    def text(self) -> str:
        return json.dumps(asdict(self))


def tokens(text: str) -> int:
    """How many tokens. Raises ValueError for none, and for more than any request has."""
    if (found := positive_integer(text)) > MOST_TOKENS:
        raise ValueError(f"{text!r} is more than {MOST_TOKENS} tokens")
    return found


def url(base: Address, path: str) -> str:
    """Of one of the API's paths, whether or not the user named ``/v1``, or the whole path of the completions."""
    parts = base.parts
    whole = next((known for known in _PATHS.values() if parts.path.endswith(known)), "")
    root = parts.path.removesuffix(whole)
    if not whole and not re.fullmatch(r"v\d+", root.rpartition("/")[2]):
        root += "/v1"
    return parts._replace(path=root + path).geturl()


def apis(base: Address) -> tuple[Api, ...]:
    """Those that are tried, in turn: chat first, unless the path of the other was named."""
    chat, plain = (base.parts.path.endswith(path) for path in _PATHS.values())
    return ("completions", "chat") if plain and not chat else ("chat", "completions")


def completions(base: Address, api: Api) -> str:
    return url(base, _PATHS[api])


def prompt(draw: random.Random, words: int, prefix: int = 0) -> str:
    """So many words after a ``prefix`` that is always the same; the first is new each time, so that no cache has it."""
    shared = [_WORDS[i % len(_WORDS)] for i in range(prefix)]
    own = draw.choices(_WORDS, k=max(1, words - prefix - 1))
    return " ".join([*shared, f"{draw.getrandbits(48):012x}", *own])


def body(api: str, model: str, text: str, tokens: int, extras: tuple[str, ...]) -> dict[str, Any]:
    """One request for a stream of so many tokens."""
    asked: dict[str, Any] = {"model": model, "stream": True, "temperature": 1.0}
    asked |= {"messages": [{"role": "user", "content": text}]} if api == "chat" else {"prompt": text}
    asked["max_completion_tokens" if "max_completion_tokens" in extras else "max_tokens"] = tokens
    options = {name: True for name in ("include_usage", "continuous_usage_stats") if name in extras}
    if options:
        asked["stream_options"] = options
    if "ignore_eos" in extras:
        asked["ignore_eos"] = True
    if "min_tokens" in extras:
        asked["min_tokens"] = tokens
    return asked


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """A Poisson process of ``count`` requests, fixed before the start."""
    return list(islice(poisson(rate, random.Random(seed)), count))


def first_rate(settings: Settings) -> float:
    """Where the search begins: as low as a trial of enough requests fits into its part of the time."""
    lowest = TRIAL_REQUESTS / (_FIRST_TRIAL_SHARE * settings.seconds)
    return min(settings.max_rate, max(settings.max_rate / 4.0, lowest))


def search_seconds(settings: Settings) -> float:
    return 0.0 if settings.rate is not None else _SEARCH_SHARE * settings.seconds


def held_requests(settings: Settings, rate: float, seconds: float) -> int:
    """How many requests the held window has, of the seconds that are left for it."""
    return max(1, min(settings.enough, math.floor(rate * seconds)))


def announced(settings: Settings) -> list[str]:
    """What would be sent, and how much of it at most: for a person, before it begins."""
    highest = settings.rate or settings.max_rate
    held_seconds = settings.seconds - search_seconds(settings)
    most = held_requests(settings, highest, held_seconds)
    if settings.rate is not None:
        how = f"{settings.rate:g} requests/s (--rate)"
    else:
        first, between = settings.first_token_limit * 1e3, settings.inter_token_limit * 1e3
        highest_rate = f"the highest rate up to {settings.max_rate:g} requests/s (--endpoint-max-rate)"
        limits = f"{first:g} ms to the first token and {between:g} ms a token"
        how = f"{highest_rate} that keeps {limits}, then {HELD_SHARE:.0%} of it"
    whole = math.ceil(highest * settings.seconds)
    few = "" if most >= needed("p99") else f"; too few for a p99, which takes {needed('p99')}: name a higher rate"
    return [
        f"{settings.address.shown}: one completion, a warm-up, then {how}",
        f"at most {whole} requests in {settings.seconds:.0f} s, up to {most} of them in the held window{few}",
        f"each some {settings.prompt_tokens} tokens in and {settings.output_tokens} out, streamed",
    ]


def sample(settings: Settings) -> dict[str, Any]:
    """A request as it would be sent, for ``--dry-run``."""
    text = prompt(random.Random(settings.seed), 12, min(settings.shared_prefix, 4))
    return body("chat", settings.model or "(the first of /v1/models)", f"{text} ...", settings.output_tokens, EXTRAS[0])
