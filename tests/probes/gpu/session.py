"""A whole run with the GPU watcher and a load that only waits: ``python -m tests.probes.gpu.session '{"power": 1}'
FILE``.

The first argument holds the answers of the fake library from the middle of the load on; the second is its file; a
third shortens how long a card may take; with a fourth there is a soak of so many seconds in place of the second
stage. On a real card the file is ``-`` and nothing is changed. Prints the watcher's
result as the run document would have it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure.probe import Context, Probe
from bench.measure.runner import RunPlan, execute
from bench.model import Effort, Measurement, Metric, Node, Request
from probes.gpu import probe as gpu
from probes.gpu import sampler

SECONDS = 0.15  # of each stage


def load(answers: dict[str, float], file: str, soak: float = 0.0) -> Probe:
    """Two stages, with the answers changed within the second one; of a soak in the middle of it."""

    def measure(ctx: Context) -> Sequence[Measurement]:
        with ctx.stage("inference.prefill"):
            time.sleep(SECONDS)
        with ctx.stage("inference.check" if soak else "inference.decode"):
            time.sleep(soak / 2)
            if file != "-" and answers:
                before = Path(file).read_text()
                Path(file).write_text(before + "".join(f"{key} {value}\n" for key, value in answers.items()))
            time.sleep(soak / 2 or SECONDS)
        return [Measurement(metric="load_steps", value=1, interval=(1, 1), samples=1)]

    return Probe(
        name="load",
        help="waits",
        metrics=(Metric(name="load_steps", help="none"),),
        seconds=dict.fromkeys(Effort, 5.0),
        measure=measure,
    )


def main() -> int:
    answers, file = json.loads(sys.argv[1]), sys.argv[2]
    if len(sys.argv) > 3:
        for limit in ("SAMPLE_SECONDS", "CARD_SECONDS"):
            setattr(sampler, limit, float(sys.argv[3]))
    soak = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    probes = [load(answers, file, soak), gpu.PROBE]
    request = Request(effort=Effort.QUICK, probes=tuple(p.name for p in probes))
    with tempfile.TemporaryDirectory() as folder:
        node = Node(hostname="node1", fingerprint="f")
        plan = RunPlan(id="r1", request=request, probes=probes, node=node, evidence=Path(folder) / "r1.raw")
        print(execute(plan).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
