"""What the inference probe declares."""

from __future__ import annotations

from probes.common.metrics import metrics

_DEVICE = "device shape stand_in"
_LOAD = metrics(
    ("inference_tokens_per_second",
     "Tokens a second of the synthetic load: prefill and decode at full speed; serve carries what is offered.",
     "stage batch", "higher"),
    ("inference_first_token_seconds",
     "Time to the first token: of one prompt (prefill), or from the scheduled arrival (serve).",
     "stage statistic batch", "lower"),
    ("inference_inter_token_seconds", "Time between two tokens of a request.", "stage statistic batch", "lower"),
    ("inference_longest_gap_seconds",
     "The longest pause between two tokens of a request, over the requests.", "stage statistic", "lower"),
    ("inference_goodput_ratio",
     "Share of requests that kept the limits named in the labels; failed and late ones count against it.",
     "stage first_token_limit_seconds inter_token_limit_seconds", "higher"),
    ("inference_unfinished_requests",
     "Requests that the end of the window cut off while they still kept the limits; left out of the goodput.",
     "stage", "none"),
    ("inference_offered_requests_per_second", "Mean rate of the arrivals, fixed before the start.", "stage", "none"),
    ("inference_requests_per_second", "Requests finished a second.", "stage", "higher"),
    ("inference_schedule_lag_seconds",
     "How much later than possible a request was released; the stage is void when it is large.",
     "stage statistic", "lower"),
    ("inference_run_delay_ratio",
     "Share of its time that the load waited for a CPU (run-queue delay); over 5 % the figures are void.",
     "stage batch", "lower"),
    ("accelerator_busy_ratio", "Share of the stage's time in which the accelerator computed.", "stage batch", "higher"),
    ("inference_sustained_requests_per_second",
     "The highest rate at which the named share of requests keeps the limits; held for the trial's window.",
     "stage first_token_limit_seconds inter_token_limit_seconds share", "higher"),
    ("inference_bandwidth_utilization_ratio",
     "Bytes a decode step must read over the copy ceiling of the same run (model bandwidth utilization).",
     "stage batch", "higher"),
    ("inference_flops_utilization_ratio",
     "Operations of a prefill over the matrix-product ceiling of the same run (model FLOPs utilization).",
     "stage batch", "higher"),
    ("inference_token_joules", "Energy of the card a token.", "stage batch", "lower"),
    ("accelerator_datasheet_ratio", "A measured ceiling over the card's data sheet.", "quantity stage", "higher"),
    ("accelerator_expectation_ratio",
     "A measured ceiling over the least that a sound card of this kind reaches (accelerators.toml).",
     "quantity stage", "higher"),
    ("accelerator_together_ratio",
     "What is left of a card's speed when all cards of the node work at once.", "quantity", "higher"),
    last=_DEVICE,
)  # fmt: skip
_NODE = metrics(
    ("accelerator_spread_ratio", "The slowest card of the node over the median card.", "quantity stage", "higher"),
    last="stand_in",
)
_CEILINGS = metrics(
    ("accelerator_host_to_device_bytes_per_second", "Copies from pinned host memory to the card.", "stage", "higher"),
    ("accelerator_device_to_host_bytes_per_second", "Copies from the card to pinned host memory.", "stage", "higher"),
    ("accelerator_device_to_device_bytes_per_second", "Copies from one card to another.", "stage peer", "higher"),
    ("accelerator_matmul_flops_per_second",
     "Matrix-product ceiling in the load's own number format, random operands.", "stage", "higher"),
    ("accelerator_copy_bytes_per_second",
     "Memory-copy ceiling; bytes read and bytes written both count.", "stage", "higher"),
    last=_DEVICE,
)  # fmt: skip
METRICS = (*_LOAD, *_NODE, *_CEILINGS)
