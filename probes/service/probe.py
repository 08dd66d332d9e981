"""What an agent needs besides the model: does each service answer correctly, and within its share of the time?

Each ``--service`` is asked at a low, fixed pace, whatever became of the requests before. Its share counts those that
were answered as declared *and* in time; it has an exact binomial bound, and how many requests a decision takes is said
before the first is sent. Where the time goes (name, TCP, TLS, first byte, whole) is told for kept and for new
connections apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.measure import budget
from bench.measure.probe import Check, Context, Failed, Option, Probe, Skipped, Tools, python_argv
from bench.model import Code, Measurement, Request
from probes.common.http import INSTALL, environment
from probes.common.metrics import Between, metrics

if TYPE_CHECKING:
    from probes.service.plan import Service, Settings

MODULE = "probes.service.load.main"
#: Kept back of its time: starting, and the last answers.
_AROUND_SECONDS = 5.0
_EXIT_SECONDS = 2.0

METRICS = metrics(
    ("service_success_ratio", "Share of the requests that were answered as declared, and within the budget.",
     "budget_seconds", "higher"),
    ("service_response_seconds",
     "Time of an answer's phase: resolve, connect, tls, first_byte (sent to headers), whole (scheduled to last byte).",
     "connection phase statistic", "lower"),
    ("service_certificate_left_seconds", "How long the certificate of the service is still valid.", "", "none"),
    ("service_failed_requests", "Requests that failed, by how.", "code", "lower"),
    ("service_consecutive_failures", "The longest run of requests that failed one after the other.", "", "lower"),
    first="service",
    between=Between("Our choice, as of the network: no sessions of two services were recorded.", {"seconds": 0.10}),
)  # fmt: skip


def measure(ctx: Context) -> Sequence[Measurement]:
    """Ask them all beside each other, in a child. Raises Skipped, Unsupported, Failed, TimedOut."""
    from probes.common.pipe import refusal
    from probes.service.parse import lines, parse, told
    from probes.service.records import Began, answers, read

    services = ctx.option("service")
    if services is None:
        raise Skipped(Code.NOT_ASKED_FOR, "no service was named (--service NAME_OR_URL)")
    settings, limit = settings_of(ctx.request, ctx.seconds), ctx.option("limit")
    looks = {one.name: one.looks(settings.effort, settings.seconds) for one in services}
    ctx.progress(f"asking {', '.join(looks)}"[:200], None)
    with ctx.stage("service"):
        done = ctx.tools.run(
            python_argv(MODULE), name="load", timeout=max(1.0, ctx.remaining() - _EXIT_SECONDS),
            stdin=settings.text() + "\n", env=environment(*(name for one in services for name in one.variables)),
        )  # fmt: skip
    records = read(done.stdout, cut=done.returncode != 0)
    if (error := refusal(records, done.returncode, done.stderr, "the load on the services")) is not None:
        raise error
    found: list[Measurement] = []
    seen, clock = answers(records), ctx.clock()
    for service in services:
        these = seen.get(service.name, [])
        for text in told(these, service, looks[service.name], limit):
            ctx.warn(text)
        found += parse(these, service, looks[service.name], limit)
    for began in records:
        if isinstance(began, Began) and clock is not None:
            ctx.series += lines(seen.get(began.service, []), began.service, began.at - clock)
    if not found:
        raise Failed(Code.EMPTY, "no service was asked")
    return found


def settings_of(request: Request, seconds: float) -> Settings:
    """All that the child is told. No secret is among it: the child reads those itself."""
    from probes.service.plan import Settings

    services, limit = PROBE.option(request, "service"), PROBE.option(request, "limit")
    return Settings(services, request.effort, max(1.0, seconds - _AROUND_SECONDS), limit)


def preview(request: Request) -> list[str]:
    """How many requests each service gets, and what they can show; the last line has the requests."""
    from probes.service.plan import announced

    told = settings_of(request, PROBE.time(request))
    lines = [announced(one, one.looks(told.effort, told.seconds), told.limit) for one in told.services]
    return [*lines, "; ".join(f"{one.method} {one.url}" for one in told.services)]


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Are the packages there? Nothing is sent to anybody."""
    missing = [name for name in ("aiohttp", "jsonschema") if find_spec(name) is None]
    if missing:
        return [Check("service", False, f"{', '.join(missing)} not installed: no service can be asked", INSTALL)]
    return [Check("service", True, "aiohttp and jsonschema are there")]


def _services(text: str) -> tuple[Service, ...]:
    from probes.service.plan import services

    return services(text)


def _usable(found: Sequence[Service]) -> None:
    from probes.service.plan import usable

    usable(found)


def _typed(text: str) -> tuple[str, ...]:
    from probes.service.plan import typed

    return typed(text)


PROBE = Probe(
    name="service",
    help="What an agent needs (--service): does each answer as declared, in time, and where does the time go.",
    metrics=METRICS,
    seconds=budget.SERVICE,
    measure=measure,
    doctor=doctor,
    preview=preview,
    order=12,
    guards_itself=True,
    options=(
        Option("service", "Services, as a JSON list of [[service]] tables", _services, check=_usable,
               affects_comparability=False, quotable=False, typed=_typed),
        Option("limit", "The share at which the requests may stop once it is clear", float, default=0.99,
               affects_comparability=False),
    ),
    needs="service",
    once=True,
)  # fmt: skip
