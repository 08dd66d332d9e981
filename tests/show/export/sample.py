"""Runs for the exports: one that is GO, one NO-GO, one INCONCLUSIVE, one whose every foreign text is hostile."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from bench.model import Decision, Finding, Limit, Measurement, Node, Outcome, ProbeResult, Run, Status
from bench.store.runs import Store
from tests.show.terminal.sample import LATENCY, RANDOM, cpu_run, finding, verdict

#: An escape sequence, markup for HTML, XML, Markdown and rich, a bidi override, a NUL-like control, a line of its own.
HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07<script>alert(1)</script>&amp;\"'[x](http://e.vil)|`@root`\u202e\x9b2J\n::error::no"
)

PASSES = (finding(LATENCY.metric, Status.PASS, LATENCY, labels=RANDOM, max=0.01),)
UNKNOWN = (
    finding(
        LATENCY.metric, Status.NO_DATA, labels=RANDOM, max=0.01,
        reason="probe_unsupported: tool_missing: fio is not installed", remedy="apt-get install fio",
    ),
)  # fmt: skip


def here(**changes: Any) -> Run:
    """The sample run, measured on this machine's host name."""
    run = cpu_run(**changes)
    node = run.node.model_copy(update={"hostname": socket.gethostname()})
    return run if "node" in changes else run.model_copy(update={"node": node})


def starved() -> Run:
    return here()


def good() -> Run:
    return here(verdicts=(verdict("batch-inference", Decision.GO, 100.0, PASSES),))


def inconclusive() -> Run:
    return here(verdicts=(verdict("batch-inference", Decision.INCONCLUSIVE, 0.0, UNKNOWN),))


def hostile() -> Run:
    bad = Measurement(metric="storage_read_latency_seconds", value=0.5, interval=(0.5, 0.5), samples=1,
                      labels={"path": HOSTILE}, invalid=HOSTILE)  # fmt: skip
    gate = Finding(
        metric=bad.metric, labels={"path": HOSTILE}, observed=0.5, interval=(0.5, 0.5), limit=Limit(max=0.1),
        status=Status.FAIL, required=True, source=HOSTILE, remedy=HOSTILE, reason=f"x: {HOSTILE}", stand_in=HOSTILE,
    )  # fmt: skip
    run = here(
        node=Node(hostname=HOSTILE, fingerprint=HOSTILE, facts={"kernel": HOSTILE, "gpus": [HOSTILE]}),
        bench_version=HOSTILE,
        results=(
            ProbeResult(probe="storage", outcome=Outcome.OK, measurements=(bad, bad), warnings=(HOSTILE,)),
            ProbeResult(probe="gpu", outcome=Outcome.FAILED, reason=f"x: {HOSTILE}", remedy=HOSTILE),
        ),
        verdicts=(verdict(HOSTILE, Decision.NO_GO, 20.0, (gate,)),),
    )
    attribution = run.attribution
    assert attribution is not None
    told = attribution.model_copy(update={"explanation": HOSTILE, "path": HOSTILE, "stand_in": HOSTILE})
    request = run.request.model_copy(update={"accelerator": HOSTILE, "storage": (HOSTILE,)})
    return run.model_copy(update={"attribution": told, "request": request})


def stored(root: Path, run: Run) -> Path:
    """As `bench run` stores it: measured first, concluded then."""
    store = Store(root)
    store.save(run.model_copy(update={"attribution": None, "verdicts": ()}))
    return store.complete(run)
