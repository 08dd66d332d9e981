"""The inference probe: a Llama-shaped decoder with random weights, prefilling, decoding and serving.

It tells whether this node can serve at all at the speed its accelerator promises: tokens a second, the time to the
first token from the *scheduled* arrival, the time between tokens, and the share of requests that kept the limits. The
figures qualify the node, not a customer's model. Without a GPU the CPU stands in, and every figure says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.measure.probe import Check, Context, Probe, Tools, Unsupported
from bench.model import Effort, Measurement, Metric, Request
from probes._inference_events import Event, decoded, events, refusal
from probes._inference_parse import parse

MODULE = "probes.loads.inference"
_EXIT_SECONDS = 2.0  # kept back for ending the child
_ROUNDS = {Effort.QUICK: 5, Effort.STANDARD: 6, Effort.THOROUGH: 10}

_DEVICE = ("device", "shape", "stand_in")
METRICS = (
    Metric(
        name="inference_tokens_per_second",
        help="Tokens a second of the synthetic load: prefill and decode at full speed; serve carries what is offered.",
        labels=("stage", "batch", *_DEVICE), better="higher",
    ),
    Metric(
        name="inference_first_token_seconds",
        help="Time to the first token: of one prompt (prefill), or from the scheduled arrival (serve).",
        labels=("stage", "statistic", "batch", *_DEVICE), better="lower",
    ),
    Metric(
        name="inference_inter_token_seconds",
        help="Time between two tokens of a request.",
        labels=("stage", "statistic", "batch", *_DEVICE), better="lower",
    ),
    Metric(
        name="inference_longest_gap_seconds",
        help="The longest pause between two tokens of a request, over the requests.",
        labels=("stage", "statistic", *_DEVICE), better="lower",
    ),
    Metric(
        name="inference_goodput_ratio",
        help="Share of requests that kept the limits named in the labels; failed and late ones count against it.",
        labels=("stage", "first_token_limit_seconds", "inter_token_limit_seconds", *_DEVICE), better="higher",
    ),
    Metric(
        name="inference_unfinished_requests",
        help="Requests that the end of the window cut off while they still kept the limits; left out of the goodput.",
        labels=("stage", *_DEVICE),
    ),
    Metric(
        name="inference_offered_requests_per_second", help="Mean rate of the arrivals, fixed before the start.",
        labels=("stage", *_DEVICE),
    ),
    Metric(
        name="inference_requests_per_second", help="Requests finished a second.", labels=("stage", *_DEVICE),
        better="higher",
    ),
    Metric(
        name="inference_schedule_lag_seconds",
        help="How much later than possible a request was released; the stage is void when it is large.",
        labels=("stage", "statistic", *_DEVICE), better="lower",
    ),
    Metric(
        name="inference_run_delay_ratio",
        help="Share of its time that the load waited for a CPU (run-queue delay); over 5 % the figures are void.",
        labels=("stage", "batch", *_DEVICE), better="lower",
    ),
    Metric(
        name="accelerator_busy_ratio",
        help="Share of the stage's time in which the accelerator computed.",
        labels=("stage", "batch", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_matmul_flops_per_second",
        help="Matrix-product ceiling in the load's own number format, random operands.",
        labels=("stage", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_copy_bytes_per_second",
        help="Memory-copy ceiling; bytes read and bytes written both count.",
        labels=("stage", *_DEVICE), better="higher",
    ),
)  # fmt: skip


def measure(ctx: Context) -> Sequence[Measurement]:
    """Run the load in a child and parse what it printed. Raises Unsupported, Failed, TimedOut."""
    _refuse_emulated(ctx.request.accelerator)
    with ExitStack() as stages:
        done = ctx.tools.python(
            MODULE, *_arguments(ctx), name="load", timeout=max(1.0, ctx.remaining() - _EXIT_SECONDS),
            on_line=lambda line: _follow(ctx, stages, line),
        )  # fmt: skip
    found = events(done.stdout) if done.returncode == 0 else _readable(done.stdout)
    error = refusal(found, done.returncode, done.stderr)
    if error is not None:
        raise error
    _tell(ctx, found)
    return parse(found)


def _refuse_emulated(accelerator: str) -> None:
    if accelerator.partition(":")[0] == "emulated":
        raise Unsupported("emulated: an emulated accelerator computes nothing, so there is no inference to measure")


def _arguments(ctx: Context) -> list[str]:
    words = ["--accelerator", ctx.request.accelerator, "--seconds", f"{ctx.seconds:g}", "--seed", str(ctx.seed)]
    words += ["--rounds", str(_ROUNDS[ctx.effort])]
    if ctx.effort is Effort.QUICK:
        words.append("--quick")
    for option in ("shape", "first_token_limit", "inter_token_limit", "rate", "threads"):
        if ctx.option(option) is not None:
            words += [f"--{option.replace('_', '-')}", str(ctx.option(option))]
    return words


def _readable(text: str) -> list[Event]:
    """The events of an output that was cut off, as far as they can be read."""
    return [event for event in map(decoded, text.splitlines()) if event is not None]


def _follow(ctx: Context, stages: ExitStack, line: str) -> None:
    """Stage marks open and close the watchers' stages while the child runs."""
    event = decoded(line)
    if event is None:
        return
    if event["event"] == "begin":
        stages.enter_context(ctx.stage(str(event.get("stage"))))
        ctx.progress(str(event.get("stage")), None)
    elif event["event"] == "end":
        stages.pop_all().close()


def _tell(ctx: Context, found: Sequence[Event]) -> None:
    for event in found:
        if event["event"] == "warmup" and not event.get("steady"):
            ctx.warn("the load's speed had not settled within 3 % when its time for warming up was over")
        if event["event"] == "note":
            ctx.warn(str(event.get("text")))


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Can the load run here? Starts the child with no time to measure in."""
    if request.accelerator.partition(":")[0] == "emulated":
        return [Check("inference", False, "an emulated accelerator computes nothing", "--accelerator auto")]
    done = tools.python(MODULE, "--accelerator", request.accelerator, "--check", name="doctor", timeout=60.0)
    found = _readable(done.stdout)
    error = refusal(found, done.returncode, done.stderr)
    if error is not None:
        return [Check("inference", False, str(error), error.remedy)]
    device = next((event for event in found if event["event"] == "device"), {"kind": "unknown"})
    stand_in = " stands in for a GPU" if device.get("stand_in") else ""
    return [Check("inference", True, f"torch {device.get('torch')} on {device['kind']}{stand_in}")]


PROBE = Probe(
    name="inference",
    help="Synthetic LLM inference in torch: tokens a second, time to first token, time between tokens, goodput.",
    metrics=METRICS,
    seconds={Effort.QUICK: 14.0, Effort.STANDARD: 50.0, Effort.THOROUGH: 240.0},
    measure=measure,
    doctor=doctor,
    order=40,
)
