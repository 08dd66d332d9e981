"""Claim: telemetry on or off changes tokens a second by less than 1 %.

The load decodes in a process of its own; the watchers (host, and the GPU watcher on the fake NVML library or the real
one) sample in this process as in a run, once a second and at a stage's ends, in every second block of one second.
Neighbouring blocks make a pair, so the host's drift falls out; the ends of a block do not count, because the load
pauses there in a run. ``python -m tests.accuracy.telemetry_overhead [SECONDS]``
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure.watchers import Observers, Watching
from probes import host
from probes.common.nvml import survey
from probes.gpu import probe as gpu
from probes.gpu.sampler import GpuWatch
from tests.probes.gpu.conftest import SOURCE

ROOT = Path(__file__).parents[2]
MOST = 0.01
LOAD = """
import json, sys, time, torch
from probes.inference.load.decoder import Decoder
from probes.inference.shapes import SHAPES
torch.set_num_threads(1)
decoder = Decoder(SHAPES["nano"], "cpu", torch.float32, 1, 128)
end = time.monotonic() + float(sys.argv[1])
print("ready", flush=True)
while (now := time.monotonic()) < end:
    decoder.positions.fill_(64)
    decoder.decode(1, 64)
    print(json.dumps([now, time.monotonic() - now]))
"""
BLOCK, ENDS = 1.0, 0.05


def with_a_library() -> int:
    """The demonstration again, with the fake NVML library in the way; its status."""
    with tempfile.TemporaryDirectory(prefix="fake-nvml-") as folder:
        library = str(Path(folder) / "libnvidia-ml.so.1")
        words = ["cc", "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, str(SOURCE), "-lm"]
        subprocess.run(words, check=True)
        answers = Path(folder, "answers")
        answers.write_text("count 8\n")
        environment = {**os.environ, "LD_LIBRARY_PATH": folder, "BENCH_FAKE_NVML_FILE": str(answers)}
        argv = [sys.executable, "-m", "tests.accuracy.telemetry_overhead", *sys.argv[1:]]
        return subprocess.run(argv, env=environment, check=False).returncode


def watched_blocks(observers: Observers, end: float) -> list[tuple[float, bool]]:
    """Blocks of a second: in every second one, a tick (as once a second) and a stage's two ends; off on off on."""
    starts: list[tuple[float, bool]] = []
    while (now := time.monotonic()) < end:
        on = len(starts) % 2 == 1
        starts.append((now, on))
        if on:
            with observers.staged("inference.decode"):
                time.sleep(BLOCK / 2)
                observers._sample("tick")
                time.sleep(max(0.0, now + BLOCK - time.monotonic()))
        else:
            time.sleep(max(0.0, now + BLOCK - time.monotonic()))
    return starts


def ratios(steps: list[tuple[float, float]], starts: list[tuple[float, bool]]) -> list[float]:
    """Tokens a second with telemetry over without, of neighbouring blocks."""
    rates: list[float] = []
    for index, (begin, _) in enumerate(starts[:-1]):
        inside = [took for at, took in steps if begin + ENDS <= at < starts[index + 1][0] - ENDS]
        rates.append(1 / statistics.fmean(inside) if inside else 0.0)
    pairs = [(rates[i], rates[i + 1], rates[i + 2]) for i in range(0, len(rates) - 2, 2)]
    return [2 * on / (before + after) for before, on, after in pairs if before and after and on]


def main(seconds: float) -> int:
    if survey().driver is None:
        return with_a_library()
    watching = [Watching(host.PROBE, host.HostWatch()), Watching(gpu.PROBE, GpuWatch())]
    observers = Observers(watching)  # not started: the blocks do the sampling
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-c", LOAD, str(seconds)]
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen(argv, stdout=file, env=environment)
        try:
            time.sleep(4.0)
            starts = watched_blocks(observers, time.monotonic() + seconds - 5.0)
            process.wait(60)
        finally:
            process.kill()
        file.seek(0)
        steps = [tuple(json.loads(line)) for line in file.read().splitlines() if line.startswith("[")]
    observers.stop()
    found = ratios(steps, starts)
    middle = statistics.median(found)
    error = 1.2533 * statistics.stdev(found) / len(found) ** 0.5  # of a median, for normal errors
    costs = sum(w.cost_seconds for w in watching) / max(1, sum(len(w.samples) for w in watching) / len(watching))
    print(f"tokens a second with telemetry over without: {middle:.4f} +- {1.96 * error:.4f} over {len(found)} pairs "
          f"(within {MOST:.0%} of 1); one sample of 8 cards and the host takes {costs * 1e3:.1f} ms")  # fmt: skip
    if 1.96 * error >= MOST:
        print("NOT SHOWN: this machine was too busy to tell 1 %")
        return 1
    return int(abs(middle - 1.0) >= MOST)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 45.0))
