"""The endpoint probe: the real server, under a load that is fixed before it starts (``--endpoint URL``).

It tells whether an OpenAI-compatible server answers within its time at a rate that it is to carry: time to the first
token from the *scheduled* arrival, time between tokens, the share of requests that kept the limits and of those that
were answered at all, each with its interval. Nothing is sent unless a server was named, and never more than
``--endpoint-max-rate``. The client's own part is measured in the same run; where the client was the limit, the figures
decide nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.measure import budget
from bench.measure.probe import (
    Check,
    Context,
    Failed,
    Option,
    Probe,
    Skipped,
    Tools,
    Unsupported,
    positive_number,
    python_argv,
)
from bench.model import Code, Measurement, Request
from probes.common.http import INSTALL, address, environment, key_in, key_of
from probes.common.metrics import Between, metrics, of_counts, quantiles
from probes.common.open_loop import OPEN_LOOP
from probes.endpoint import plan

MODULE = "probes.endpoint.load.main"
ECHO = "probes.endpoint.load.echo"
ECHO_READY = "echo on port"
#: Kept back for opening, draining and the client's own check.
_AROUND_SECONDS = 12.0
_EXIT_SECONDS = 2.0


def measure(ctx: Context) -> Sequence[Measurement]:
    """Run the load in a child and parse what it printed. Raises Skipped, Unsupported, Failed, TimedOut."""
    from probes.common.pipe import refusal
    from probes.endpoint.parse import lines, parse, told
    from probes.endpoint.records import PIPE

    if ctx.option("endpoint") is None:
        raise Skipped(Code.NOT_ASKED_FOR, "no server was named (--endpoint URL)")
    settings = settings_of(ctx.request, ctx.seconds, ctx.seed)
    ctx.progress(plan.announced(settings)[1], None)
    with ctx.tools.serve(python_argv(ECHO), name="echo", ready=ECHO_READY, timeout=20.0) as line, ExitStack() as stages:
        port = line.rpartition(" ")[2]
        done = ctx.tools.run(
            python_argv(MODULE, "--echo", port if port.isdigit() else "0"),
            name="load", timeout=max(1.0, ctx.remaining() - _EXIT_SECONDS), stdin=settings.text() + "\n",
            env=environment(plan.KEY_VARIABLE), on_line=partial(PIPE.follow, ctx, stages),
        )  # fmt: skip
    found = PIPE.read(done.stdout, cut=done.returncode != 0)
    if (error := refusal(found, done.returncode, done.stderr, "the load on the endpoint")) is not None:
        raise error
    shown = settings.address.shown
    for text in told(found):
        ctx.warn(f"{shown}: {text}")
    ctx.series += lines(found, shown, ctx.clock())
    if not (made := parse(found, shown)):
        raise Failed(Code.EMPTY, f"{shown}: nothing was held")
    return made


def settings_of(request: Request, seconds: float, seed: int = 7) -> plan.Settings:
    """All that the child is told. No key is among it: the child reads that itself."""
    option = partial(PROBE.option, request)
    given = {name: option(name) for name in ("first_token_limit", "inter_token_limit", "rate")}
    return plan.Settings(
        url=option("endpoint").url, seconds=max(5.0, seconds - _AROUND_SECONDS), enough=plan.ENOUGH[request.effort],
        max_rate=option("endpoint_max_rate"), model=option("endpoint_model"), key_file=option("endpoint_key_file"),
        prompt_tokens=option("prompt_tokens"), output_tokens=option("output_tokens"),
        shared_prefix=option("endpoint_shared_prefix") or 0, timeout=option("request_timeout"), seed=seed,
        peers=request.peers,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip


def check(request: Request) -> None:
    """Raises Unsupported where the rates contradict each other or leave nothing to be sent, or the key is none."""
    rate, most = PROBE.option(request, "rate"), PROBE.option(request, "endpoint_max_rate")
    if PROBE.option(request, "endpoint") is None:
        return
    try:
        key_of(PROBE.option(request, "endpoint_key_file"), plan.KEY_VARIABLE)
    except ValueError as error:
        raise Unsupported(Code.BAD_OPTION, str(error)) from None
    if rate is not None and rate > most:
        over = f"--rate {rate:g} is over --endpoint-max-rate {most:g}"
        raise Unsupported(Code.BAD_OPTION, f"{over}: raise that if the server may be asked for so much")
    flag, highest, seconds = "--rate" if rate else "--endpoint-max-rate", rate or most, PROBE.time(request)
    if highest * seconds < (least := plan.LEAST_REQUESTS):
        few = f"{flag} {highest:g} makes fewer than {least} requests in {seconds:.0f} s, which tell nothing"
        raise Unsupported(Code.BAD_OPTION, f"{few}: name at least {least / seconds:.2g}")


def preview(request: Request) -> list[str]:
    """What would be sent, for a person; the last line is a request."""
    settings = settings_of(request, PROBE.time(request))
    key = "a key from a file" if settings.key_file else f"a key from {plan.KEY_VARIABLE}"
    key = key if settings.key_file or plan.KEY_VARIABLE in os.environ else "no key"
    return [*plan.announced(settings), f"with {key}", f"POST {json.dumps(plan.sample(settings))}"]


def best(request: Request) -> list[Measurement]:
    """All answered, and at once, of as many requests as fit into the time."""
    from probes.endpoint.parse import STAGE

    if PROBE.option(request, "endpoint") is None:
        return []
    settings = settings_of(request, PROBE.time(request))
    rate = settings.rate or settings.max_rate
    sent = plan.held_requests(settings, rate, settings.seconds - plan.search_seconds(settings))
    labels = {"stage": STAGE, "endpoint": settings.address.shown}
    made = [of_counts("endpoint_success_ratio", sent, sent, {"endpoint": settings.address.shown})]
    return [*made, *quantiles("inference_first_token_seconds", [0.0] * sent, labels)]


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Is the HTTP client there? Nothing is sent to anybody."""
    there = find_spec("aiohttp") is not None
    return [Check("endpoint", there, "aiohttp is there" if there else "aiohttp is missing", None if there else INSTALL)]


def _word(text: str) -> list[str]:
    """These options are flags of `bench run`: one word each."""
    return [text]


def _key_file(text: str) -> str:
    """The file's absolute name. Raises ValueError."""
    return str(Path(text).absolute())


_BETWEEN = Between(
    "Our choice, as of the network: no sessions of two servers were recorded.",
    {"seconds": 0.10, "endpoint_requests_per_second": 0.03, "endpoint_client_delay_seconds": None},
)
_OWN = metrics(
    ("endpoint_success_ratio",
     "Share of the requests that were answered whole; refused, torn, empty and too slow ones were not.", "", "higher"),
    ("endpoint_failed_requests", "Requests that failed, by how.", "code", "lower"),
    ("endpoint_requests_per_second", "Requests answered a second at the rate that was offered.", "", "higher"),
    ("endpoint_output_token_seconds",
     "Of each request the mean time of a token after its first chunk, by the server's own count of them.",
     "statistic", "lower"),
    ("endpoint_open_seconds", "The first real completion, in which a server may load its model.", "", "none"),
    ("endpoint_connect_seconds",
     "Opening a connection: name, TCP, TLS; of those that the load had to open.", "statistic", "lower"),
    ("endpoint_connected_first_token_seconds",
     "Time to the first token from when the request was sent, on an open connection.", "statistic", "lower"),
    ("endpoint_info", "How the server is spoken to, and where it is: on this node, on a peer's host, or elsewhere.",
     "api* place* peer*", "none"),
    ("endpoint_load_first_token_seconds",
     "Time to the first token at one offered load, in requests a second.", "offered statistic", "none"),
    ("endpoint_load_goodput_ratio", "Share of requests that kept the limits at one offered load.", "offered", "none"),
    ("endpoint_client_delay_seconds",
     "How late the client can have seen a chunk (held), and saw those of an echo of its own (echo).",
     "state statistic", "lower"),
    ("endpoint_client_chunks_per_second",
     "The most chunks a second that the client was seen to read on time, from an echo of its own.", "", "none"),
    first="endpoint", between=_BETWEEN,
)  # fmt: skip

PROBE = Probe(
    name="endpoint",
    help="A real OpenAI-compatible server under an open-loop load (--endpoint URL): first token, tokens, goodput.",
    metrics=_OWN,
    also=(
        "inference_first_token_seconds", "inference_inter_token_seconds", "inference_longest_gap_seconds",
        "inference_goodput_ratio", "inference_offered_requests_per_second", "inference_tokens_per_second",
        "inference_schedule_lag_seconds", "inference_sustained_requests_per_second",
    ),
    needs="endpoint",
    seconds=budget.ENDPOINT,
    measure=measure,
    doctor=doctor,
    check=check,
    best=best,
    preview=preview,
    order=45,
    guards_itself=True,
    options=(
        Option("endpoint", "an OpenAI-compatible server, http://HOST:8000 say", type=address, quotable=False,
               typed=_word),
        Option("endpoint_model", "one of the server's models; default: the first that it lists", typed=_word),
        Option("endpoint_key_file", f"a file with the server's key; default: {plan.KEY_VARIABLE} in the environment",
               type=_key_file, check=lambda file: key_in(Path(file)), affects_comparability=False, typed=_word),
        Option("endpoint_max_rate", "requests a second that the server is asked for at most",
               type=positive_number, default=plan.DEFAULT_MAX_RATE, affects_comparability=False, typed=_word),
        Option("endpoint_shared_prefix", "tokens at the beginning of each prompt that are always the same",
               type=plan.tokens, typed=_word),
        Option("prompt_tokens", "tokens of a prompt", type=plan.tokens, default=128),
        Option("output_tokens", "tokens of an answer", type=plan.tokens, default=64),
        Option("request_timeout", "seconds after which a request is too slow", type=positive_number, default=30.0),
        *OPEN_LOOP,
    ),
    facts=("accelerator", "gpus", "nvidia_driver"),
)  # fmt: skip
