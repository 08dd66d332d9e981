"""An all-reduce between this node and its peers (or between this node's GPUs), as distributed training does it.

NCCL when every rank has a GPU, else gloo over TCP, which says whether the network and every rank's port keep up but not
how fast the GPUs' own fabric is, and is labelled as a stand-in. Each peer must run `bench peer` with torch installed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from bench.measure import budget
from bench.measure.probe import Context, Failed, Probe, TimedOut, Unsupported
from bench.model import Code, Effort, Measurement
from probes.common.metrics import BETWEEN_HOSTS, metrics
from probes.peer.options import KEY_FILE

SIZES = {
    Effort.QUICK: (1 << 20, 16 << 20),
    Effort.STANDARD: (1 << 20, 16 << 20, 64 << 20),
    Effort.THOROUGH: (1 << 20, 16 << 20, 256 << 20, 1 << 30),
}
_GPU_SIZES = {  # between the GPUs of one node: what is smaller measures launches, not links
    Effort.QUICK: (16 << 20, 256 << 20),
    Effort.STANDARD: (1 << 20, 16 << 20, 256 << 20, 1 << 30),
    Effort.THOROUGH: (1 << 20, 16 << 20, 256 << 20, 1 << 30),
}
ITERATIONS = {Effort.QUICK: 6, Effort.STANDARD: 10, Effort.THOROUGH: 20}
_LIST_SECONDS = 60.0  # a driver without persistence mode starts every card for it
_START_SECONDS = 90.0


def measure(ctx: Context) -> Sequence[Measurement]:
    """Ranks on this node and every peer; without peers, one for each GPU of this node."""
    from probes.collective.parse import measurements, parse, stragglers, transports

    gpus = 0 if ctx.request.accelerator == "cpu" else _gpus(ctx)
    local = 0 if ctx.request.peers else max(0, gpus - 1)
    if not ctx.request.peers and not local:
        remedy = "run `bench peer --bind ADDRESS` on the other nodes and name each with --peer HOST"
        raise Unsupported(Code.NO_RANKS, "an all-reduce needs a peer, or two GPUs on this node", remedy)
    device = "cuda" if gpus else "cpu"
    text = _run(ctx, local, device)
    ranks = parse(text)
    labels = {} if ranks.backend == "nccl" else {"stand_in": "cpu"}
    for _, _, sentence in stragglers(ranks):
        ctx.warn(sentence)
    return [*measurements(ranks, labels), *transports(text, ranks, labels)]


def _gpus(ctx: Context) -> int:
    """How many GPUs CUDA has here, without importing torch for the question."""
    with suppress(TimedOut):
        return len(ctx.tools.python("probes.common.nvml", name="gpus", timeout=_LIST_SECONDS).stdout.split("\n")) - 1
    return 0


def _run(ctx: Context, local: int, device: str) -> str:
    from probes.peer.link import key_words

    effort = ctx.effort
    sizes = (_GPU_SIZES if local else SIZES)[effort]
    words = [
        "--links", "--peers", json.dumps(list(ctx.request.peers)), "--ranks", str(1 + local), "--device", device,
        "--sizes", ",".join(map(str, sizes)), "--iterations", str(ITERATIONS[effort]), *key_words(ctx),
    ]  # fmt: skip
    ctx.progress(f"all-reduce of up to {max(sizes) >> 20} MiB, {ITERATIONS[effort]} times each", 0.0)
    timeout = _START_SECONDS + 2 * ctx.seconds
    try:
        done = ctx.tools.python("probes.collective.load.rank", *words, name="all-reduce", timeout=timeout)
    except TimedOut as late:
        reason = "the all-reduce did not end in time: a rank is missing or its link hangs"
        raise TimedOut(Code.PEER_TIMED_OUT, reason) from late
    if done.returncode and not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if "No module named 'torch'" in last:
            raise Unsupported(Code.TOOL_MISSING, "torch is not installed", "pip install torch")
        raise Failed(Code.COLLECTIVE_FAILED, last[:300])
    return done.stdout


PROBE = Probe(
    name="collective",
    help="All-reduce bus bandwidth between this node and its peers or its GPUs, every link of it, and the straggler.",
    metrics=metrics(
        ("collective_bus_bytes_per_second",
         "all-reduce bus bandwidth by nccl-tests' definition, median of the iterations",
         "backend size_bytes ranks", "higher"),
        ("collective_iteration_seconds",
         "one all-reduce as one rank saw it, from its arrival to the result",
         "backend size_bytes ranks rank host", "lower"),
        ("collective_wait_seconds", "how long a rank waited for the last one to arrive", "rank host", "none"),
        ("collective_link_bytes_per_second",
         "what one rank sent to another while neither talked to a third", "source destination", "higher"),
        ("collective_port_ratio",
         "what a rank's links carry, over what the median link of all ranks does", "rank host direction", "higher"),
        ("collective_straggler_info", "1 for a rank that holds the others up", "rank host cause*", "none"),
        ("collective_transport_info",
         "1 with what carried this node's traffic: nvlink, pcie, shm, rdma, rdma_gpu_direct, sockets, unknown",
         "backend scope transport*", "none"),
        ("collective_fast_transport_ratio",
         "share of NCCL's connections over NVLink (within a node that has any) or RDMA (between nodes)",
         "backend scope transport*", "higher"),
        last="stand_in", over_one="collective_port_ratio", between=BETWEEN_HOSTS,
    ),
    seconds=budget.RANKS,
    peer_seconds=budget.COLLECTIVE,
    measure=measure,
    on_cards=True,
    order=45,
    options=(KEY_FILE,),
    facts=("accelerator", "peers", "gpus", "nvidia_driver", "versions.torch", "versions.python"),
)  # fmt: skip
