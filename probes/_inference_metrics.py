"""What the inference probe declares."""

from __future__ import annotations

from bench.model import Metric

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
        name="inference_sustained_requests_per_second",
        help="The highest rate at which the named share of requests keeps the limits; held for the trial's window.",
        labels=("stage", "first_token_limit_seconds", "inter_token_limit_seconds", "share", *_DEVICE), better="higher",
    ),
    Metric(
        name="inference_bandwidth_utilization_ratio",
        help="Bytes a decode step must read over the copy ceiling of the same run (model bandwidth utilization).",
        labels=("stage", "batch", *_DEVICE), better="higher",
    ),
    Metric(
        name="inference_flops_utilization_ratio",
        help="Operations of a prefill over the matrix-product ceiling of the same run (model FLOPs utilization).",
        labels=("stage", "batch", *_DEVICE), better="higher",
    ),
    Metric(
        name="inference_token_joules", help="Energy of the card a token.", labels=("stage", "batch", *_DEVICE),
        better="lower",
    ),
    Metric(
        name="accelerator_datasheet_ratio", help="A measured ceiling over the card's data sheet.",
        labels=("quantity", "stage", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_expectation_ratio",
        help="A measured ceiling over the least that a sound card of this kind reaches (accelerators.toml).",
        labels=("quantity", "stage", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_together_ratio",
        help="What is left of a card's speed when all cards of the node work at once.",
        labels=("quantity", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_spread_ratio", help="The slowest card of the node over the median card.",
        labels=("quantity", "stage", "stand_in"), better="higher",
    ),
    Metric(
        name="accelerator_host_to_device_bytes_per_second", help="Copies from pinned host memory to the card.",
        labels=("stage", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_device_to_host_bytes_per_second", help="Copies from the card to pinned host memory.",
        labels=("stage", *_DEVICE), better="higher",
    ),
    Metric(
        name="accelerator_device_to_device_bytes_per_second", help="Copies from one card to another.",
        labels=("stage", "peer", *_DEVICE), better="higher",
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
