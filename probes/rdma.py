"""RDMA between this node and each peer: what InfiniBand or RoCE really carries, by perftest.

Needs an RDMA device and perftest (``ib_write_bw``, ``ib_write_lat``) on both ends, and `bench peer` on the other one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress

from bench.measure import budget
from bench.measure.probe import Context, Failed, Probe, Unsupported
from bench.model import Code, Effort, Measurement
from probes.common.metrics import BETWEEN_HOSTS, metrics, of_repeats
from probes.peer.options import KEY_FILE

_DEVICES = "/sys/class/infiniband"
SECONDS = {Effort.QUICK: 1, Effort.STANDARD: 1, Effort.THOROUGH: 20}
ROUNDS = {Effort.QUICK: 2, Effort.STANDARD: 3, Effort.THOROUGH: 6}
_TABLE = re.compile(r"^\s*#bytes\b.*$", re.MULTILINE)
_NOT_THERE = "ouldn't connect to"  # perftest_communication.c: nothing listens at that port
_MOST_GBITS = 1e9  # no device is nearly as fast
_PAUSE, _ATTEMPTS = 0.1, 50  # until the server at the other end listens


def measure(ctx: Context) -> Sequence[Measurement]:
    """Bandwidth and latency of RDMA writes to every peer; one that fails is a warning if another one answered."""
    if not ctx.request.peers:
        raise Unsupported(Code.NO_PEER, "RDMA is measured against a peer", "name one with --peer HOST")
    done = ctx.tools.run(["find", _DEVICES, "-mindepth", "1", "-maxdepth", "1"], name="devices", timeout=5)
    if done.returncode or not done.stdout.strip():
        raise Unsupported(Code.NO_DEVICE, "this node has no InfiniBand or RoCE device")
    for tool in ("ib_write_bw", "ib_write_lat"):
        ctx.tools.require(tool)
    return ctx.each(ctx.request.peers, lambda _, peer: _one(ctx, peer))


def _one(ctx: Context, peer: str) -> list[Measurement]:
    seconds, rounds = SECONDS[ctx.effort], ROUNDS[ctx.effort]
    rates, latencies = [], []
    for number in range(rounds):
        ctx.progress(f"{peer}: RDMA writes for {seconds} s", number / rounds)
        rates.append(bandwidth(_run(ctx, peer, "ib_write_bw", ["-D", str(seconds), "--report_gbits"], seconds)))
        latencies.append(latency(_run(ctx, peer, "ib_write_lat", ["-n", "5000"], seconds)))
    found = [of_repeats("rdma_write_bytes_per_second", rates, {"peer": peer})]
    for statistic in latencies[0]:
        values = [one[statistic] for one in latencies if statistic in one]
        found.append(of_repeats("rdma_write_latency_seconds", values, {"peer": peer, "statistic": statistic}))
    return found


def _run(ctx: Context, peer: str, tool: str, words: list[str], seconds: float) -> str:
    from probes.peer.link import lease
    from probes.peer.protocol import address

    more = ("--tool", tool, "--words", json.dumps(words))
    with lease(ctx, peer, "rdma", seconds + 30, *more, name=f"lease-{tool}") as line:
        if line.hello.port is None:
            text = f"{peer} starts no perftest server"
            raise Failed(Code.PEER_WITHOUT_RDMA, text, "start this version's `bench peer` there")
        argv = [tool, address(peer)[0], "-p", str(line.hello.port), *words]
        for _ in range(_ATTEMPTS):  # its server says nothing when it is ready
            done = ctx.tools.run(argv, name=tool, timeout=seconds + 20)
            if not done.returncode or _NOT_THERE not in done.stderr + done.stdout:
                break
            ctx.tools.sleep(_PAUSE)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise Failed(Code.RDMA_FAILED, f"{tool} against {peer}: {last.strip()[:200]}")
    return done.stdout


# --- reading perftest's tables


def bandwidth(text: str) -> float:
    """Bytes per second: the average of ``--report_gbits``' table. Raises Failed."""
    for name, value in _row(text).items():
        if name.startswith("BW average[Gb") and 0 < value < _MOST_GBITS:
            return value * 1e9 / 8
    raise Failed(Code.TOOL_OUTPUT, "ib_write_bw printed no average in Gb/sec")


def latency(text: str) -> dict[str, float]:
    """Seconds by statistic: perftest's own half round trip. Raises Failed."""
    wanted = {"t_typical[usec]": "p50", "99% percentile[usec]": "p99", "99.9% percentile[usec]": "p99.9",
              "t_max[usec]": "max"}  # fmt: skip
    row = _row(text)
    found = {statistic: row[name] / 1e6 for name, statistic in wanted.items() if row.get(name, 0.0) > 0}
    if not found:
        raise Failed(Code.TOOL_OUTPUT, "ib_write_lat printed no latencies")
    return found


def _row(text: str) -> dict[str, float]:
    """The first row of the last table, by the names of its columns."""
    if not (heads := list(_TABLE.finditer(text))):
        raise Failed(Code.TOOL_OUTPUT, "perftest printed no table")
    names = re.split(r"\s{2,}|\t+", heads[-1][0].strip().replace("#iterations", "  #iterations  "))
    for line in text[heads[-1].end() :].splitlines():
        with suppress(ValueError):
            values = [float(word) for word in line.split()]
            if len(values) >= 3 and all(map(math.isfinite, values)):
                return dict(zip((name.strip() for name in names if name.strip()), values, strict=False))
    raise Failed(Code.TOOL_OUTPUT, "perftest's table has no row")


PROBE = Probe(
    name="rdma",
    help="RDMA write bandwidth and latency to each --peer over InfiniBand or RoCE (perftest).",
    metrics=metrics(
        ("rdma_write_bytes_per_second", "RDMA writes of 64 KiB, average of a test (ib_write_bw).", "", "higher"),
        ("rdma_write_latency_seconds", "RDMA writes of 2 bytes, half of the round trip (ib_write_lat).",
         "statistic", "lower"),
        first="peer",
        between=BETWEEN_HOSTS,
    ),
    seconds=budget.NONE,
    peer_seconds=budget.RDMA,
    measure=measure,
    order=42,
    options=(KEY_FILE,),
)  # fmt: skip
