"""The inference probe: a Llama-shaped decoder with random weights, prefilling, decoding and serving.

It tells whether this node can serve at all at the speed its accelerator promises: tokens a second, the time to the
first token from the *scheduled* arrival, the time between tokens, and the share of requests that kept the limits. The
figures qualify the node, not a customer's model. Without a GPU the CPU stands in, and every figure says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from bench.measure import budget
from bench.measure.probe import (
    Check,
    Completed,
    Context,
    Option,
    Probe,
    ProbeError,
    TimedOut,
    Tools,
    Unsupported,
    positive_integer,
)
from bench.model import Code, Effort, Measurement, Request
from probes.common.metrics import Between, metrics
from probes.common.open_loop import OPEN_LOOP
from probes.inference.shapes import SHAPES

if TYPE_CHECKING:
    from probes.common.pipe import Record
    from probes.inference.events import DeviceFacts

MODULE = "probes.inference.load.main"
NODE_MODULE = "probes.inference.load.multi_gpu"
_NOTHING = "an emulated accelerator computes nothing"
_WRONG = {
    "first": "values of a repeated product were not those of the first one",
    "answer": "values of products with a known answer were not that answer",
    "cards": "product is not, bit for bit, that of the other cards of its kind",
}
_EXIT_SECONDS = 2.0  # kept back for ending the child
_ROUNDS = {Effort.QUICK: 5, Effort.STANDARD: 6, Effort.THOROUGH: 10}


def measure(ctx: Context) -> Sequence[Measurement]:
    """Run the load in a child and parse what it printed; of one that is ended at its bound, what it had finished.

    Raises Unsupported, Failed; TimedOut where nothing was finished.
    """
    from probes.common.pipe import of, refusal
    from probes.inference.events import Window, device_of, read, unfinished
    from probes.inference.parse import MISMATCHED, parse

    if _emulated(ctx.request):
        raise Unsupported(Code.EMULATED, f"{_NOTHING}, so there is no inference to measure")
    done, late = _run(ctx, MODULE, "load", _arguments(ctx))
    found = read(done.stdout, cut=late is not None or done.returncode != 0)
    in_part = isinstance(late, TimedOut) and bool(of(found, Window))
    if not in_part and (error := late or refusal(found, done.returncode, done.stderr, "the inference load")):
        raise error
    _tell(ctx, found)
    device = device_of(found)
    if late is None:
        made = [*parse(found), *_beside_each_other(ctx, device)]
    else:
        made = parse(found)
        left = unfinished(found, ctx.effort is Effort.QUICK) + ["the other cards"] * ((device.devices or 1) > 1)
        ctx.warn(f"{late.reason}; it had not finished {', '.join(left)}")
    for wrong in (m for m in made if m.metric == MISMATCHED and m.value):
        what = _WRONG[wrong.labels["against"]]
        ctx.warn(f"accelerator {wrong.labels['device']} computes wrong: {wrong.value:g} {what}")
    return made


def _beside_each_other(ctx: Context, device: DeviceFacts) -> list[Measurement]:
    """The node's cards alone and together, where there are several; its failure costs those figures only."""
    from probes.common.pipe import of, refusal
    from probes.inference.events import Lost, read
    from probes.inference.parse import parse_node

    workers = (ctx.option("cpu_workers") or 1) if device.kind == "cpu" else device.devices or 1
    if workers < 2:
        return []
    words = ["--accelerator", device.kind, "--workers", str(workers), "--seconds", f"{budget.CARDS[ctx.effort]:g}"]
    words += ["--soak", f"{budget.SOAK[ctx.effort]:g}", "--seed", str(ctx.seed)]
    done, late = _run(ctx, NODE_MODULE, "node", words)
    beside = read(done.stdout, cut=True)
    if why := late or refusal(beside, done.returncode, done.stderr, "the inference load"):
        ctx.warn(f"the node's {workers} accelerators were not measured together to the end: {why.reason}")
    for lost in of(beside, Lost):
        ctx.warn(f"accelerator {lost.device} did not finish: {lost.reason}")
    return parse_node(beside)


def _run(ctx: Context, module: str, name: str, words: Sequence[str]) -> tuple[Completed, ProbeError | None]:
    """What a load printed, its stages opened and closed as it goes through them, and what ended it before its end."""
    from probes.inference.events import PIPE

    timeout = max(1.0, ctx.remaining() - _EXIT_SECONDS)
    try:
        with ExitStack() as stages:
            follow = partial(PIPE.follow, ctx, stages)
            return ctx.tools.python(module, *words, name=name, timeout=timeout, on_line=follow), None
    except ProbeError as error:
        return error.completed or Completed((), 0, "", "", 0.0), error


def _emulated(request: Request) -> bool:
    return request.accelerator.partition(":")[0] == "emulated"


def _arguments(ctx: Context) -> list[str]:
    words = ["--accelerator", ctx.request.accelerator, "--seed", str(ctx.seed)]
    words += ["--seconds", f"{budget.INFERENCE[ctx.effort]:g}", "--soak", f"{budget.SOAK[ctx.effort]:g}"]
    words += ["--rounds", str(_ROUNDS[ctx.effort])]
    if ctx.effort is Effort.QUICK:
        words.append("--quick")
    for name in (option.name for option in OPTIONS if option.name != "cpu_workers"):
        if ctx.option(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(ctx.option(name))]
    return words


def _tell(ctx: Context, found: Sequence[Record]) -> None:
    from probes.common.sustained import none_sustained
    from probes.inference import datasheet
    from probes.inference.events import Compiled, DeviceFacts, Warmup

    for event in found:
        if isinstance(event, Warmup) and not event.steady:
            ctx.warn("the load's speed had not settled within 3 % when its time for warming up was over")
        if isinstance(event, Compiled) and event.why:
            ctx.warn(f"a decode step runs uncompiled, some 10 % slower at batch 1: {event.why}")
        if isinstance(event, DeviceFacts) and event.kind == "cuda" and datasheet.find(event.name) is None:
            ctx.warn(f"{event.name} is not in the table of accelerators: compare it with its data sheet")
    for text in none_sustained(found):
        ctx.warn(text)


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Can the load run here? Starts the child with no time to measure in."""
    from probes.common.pipe import refusal
    from probes.inference.events import device_of, read

    if _emulated(request):
        return [Check("inference", False, _NOTHING, "--accelerator auto")]
    done = tools.python(MODULE, "--accelerator", request.accelerator, "--check", name="doctor", timeout=60.0)
    found = read(done.stdout, cut=True)
    if (error := refusal(found, done.returncode, done.stderr, "the inference load")) is not None:
        return [Check("inference", False, str(error), error.remedy)]
    device = device_of(found)
    stand_in = " stands in for a GPU" if device.stand_in else ""
    return [Check("inference", True, f"torch {device.torch} on {device.kind}{stand_in}")]


_DEVICE = "device shape stand_in"
_BETWEEN = Between(
    "Ten runs of 10 s on a quiet machine without a GPU differed by 4.5 to 7.7 % in a median time and by 13 to 29 % in "
    "a p99 of some 33 requests; decode's share of the copy ceiling on two H200 by 0.026; rates are our choice, "
    "as of storage.",
    {
        **dict.fromkeys(("tokens_per_second", "bytes_per_second", "flops_per_second"), 0.03),
        **dict.fromkeys(("inference_requests_per_second", "inference_sustained_requests_per_second"), 0.03),
        **dict.fromkeys(("accelerator_datasheet_ratio", "accelerator_expectation_ratio", "joules"), 0.03),
        **dict.fromkeys(("inference_bandwidth_utilization_ratio", "inference_flops_utilization_ratio"), 0.03),
        "seconds": 0.05,
    },
)
_LOAD = metrics(
    ("inference_tokens_per_second",
     "Tokens a second of the synthetic load: prefill and decode at full speed; serve carries what is offered.",
     "stage batch counted* endpoint", "higher"),
    ("inference_first_token_seconds",
     "Time to the first token: of one prompt (prefill), or from the scheduled arrival (serve).",
     "stage statistic batch endpoint", "lower"),
    ("inference_inter_token_seconds",
     "Time between two tokens of a request.", "stage statistic batch endpoint", "lower"),
    ("inference_longest_gap_seconds",
     "The longest pause between two tokens of a request, over the requests.", "stage statistic endpoint", "lower"),
    ("inference_goodput_ratio",
     "Share of requests that kept the limits named in the labels; failed and late ones count against it.",
     "stage first_token_limit_seconds inter_token_limit_seconds endpoint", "higher"),
    ("inference_unfinished_requests",
     "Requests that the end of the window cut off while they still kept the limits; left out of the goodput.",
     "stage", "none"),
    ("inference_offered_requests_per_second",
     "Mean rate of the arrivals, fixed before the start.", "stage endpoint", "none"),
    ("inference_requests_per_second", "Requests finished a second.", "stage", "higher"),
    ("inference_schedule_lag_seconds",
     "How much later than possible a request was released; the stage is void when it is large.",
     "stage statistic endpoint", "lower"),
    ("inference_run_delay_ratio",
     "Share of its time that the load waited for a CPU (run-queue delay); over 5 % the figures are void.",
     "stage batch", "lower"),
    ("accelerator_busy_ratio", "Share of the stage's time in which the accelerator computed.", "stage batch", "higher"),
    ("inference_sustained_requests_per_second",
     "The highest rate at which the named share of requests keeps the limits; held for the trial's window.",
     "stage first_token_limit_seconds inter_token_limit_seconds share endpoint", "higher"),
    ("inference_bandwidth_utilization_ratio",
     "Bytes a decode step must read over the copy ceiling of the same run (model bandwidth utilization).",
     "stage batch", "higher"),
    ("inference_flops_utilization_ratio",
     "Operations of a prefill over the matrix-product ceiling of the same run (model FLOPs utilization).",
     "stage batch", "higher"),
    ("inference_token_joules", "Energy of the card a token.", "stage batch", "lower"),
    ("accelerator_mismatched_values",
     "Values of matrix products that were not those of the first one, not the known answer, or (1) whose digest is not "
     "that of the other cards: 0 where it is sound.", "stage against", "lower"),
    ("accelerator_datasheet_ratio", "A measured ceiling over the card's data sheet.", "quantity stage", "higher"),
    ("accelerator_expectation_ratio",
     "A measured ceiling over the least that a sound card of this kind reaches (accelerators.toml).",
     "quantity stage", "higher"),
    ("accelerator_together_ratio",
     "What is left of a card's speed when all cards of the node work at once.", "quantity", "higher"),
    last=_DEVICE, over_one="accelerator_expectation_ratio accelerator_datasheet_ratio",
    between=_BETWEEN,
)  # fmt: skip
_NODE = metrics(
    ("accelerator_spread_ratio", "The slowest card of the node over the median card.", "quantity stage", "higher"),
    last="stand_in",
)
_CEILINGS = metrics(
    ("accelerator_host_to_device_bytes_per_second", "Copies from pinned host memory to the card.", "stage", "higher"),
    ("accelerator_device_to_host_bytes_per_second", "Copies from the card to pinned host memory.", "stage", "higher"),
    ("accelerator_device_to_device_bytes_per_second", "Copies from one card to another, over nvlink, pcie or host.",
     "stage peer transport*", "higher"),
    ("accelerator_matmul_flops_per_second",
     "Matrix-product ceiling in the load's own number format, random operands.", "stage", "higher"),
    ("accelerator_copy_bytes_per_second",
     "Memory-copy ceiling; bytes read and bytes written both count.", "stage", "higher"),
    last=_DEVICE, between=_BETWEEN,
)  # fmt: skip
METRICS = (*_LOAD, *_NODE, *_CEILINGS)

OPTIONS = (
    Option("shape", "the decoder's shape, by default what suits the device",
           choices=("auto", *SHAPES)),
    *OPEN_LOOP,
    Option("threads", "torch's threads where the CPU stands in", type=positive_integer),
    Option("cpu_workers", "measure that many workers beside each other, where the CPU stands in",
           type=positive_integer),
)  # fmt: skip

PROBE = Probe(
    name="inference",
    help="Synthetic LLM inference in torch: tokens a second, time to first token, time between tokens, goodput.",
    metrics=METRICS,
    seconds=budget.INFERENCE,
    card_seconds=budget.BESIDE,
    measure=measure,
    doctor=doctor,
    on_cards=True,
    order=40,
    options=OPTIONS,
    facts=("accelerator", "gpus", "nvidia_driver", "versions.torch", "versions.python"),
)
