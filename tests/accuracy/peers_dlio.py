"""Ours and DLIO on the same demand: ``python -m tests.accuracy.peers_dlio [DIR]`` (``make accuracy PEERS=1``).

A 3D U-Net on an H100 with samples a tenth of the published size (14.66 MB, 7 a step of 0.323 s: 319.5 MB/s), reads
limited to a half of that or not at all, with and without a busy loop on every core. The truth is ``rate / demand``.
DLIO (the program behind MLPerf Storage) gets an environment of its own below the user's cache folder; it is made on
the first call, and needs some gigabytes and minutes. Claim: our error is within 2 points in every case, or we say
INCONCLUSIVE; what DLIO says is printed beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from tests.accuracy._feed import bench, hogs, read_limit, starvation

SAMPLE, DEVIATION, BATCH, STEP, FILES = 14_660_062, 6_834_180, 7, 0.323, 133
DEMAND = SAMPLE * BATCH / STEP
CASES = ((None, False), (0.5, False), (None, True), (0.5, True))
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aiready-bench" / "peers-dlio"
#: Its own dependencies refuse to install without an NVIDIA driver, and import tensorflow for torch workloads too.
PACKAGES = (
    "Pillow", "PyYAML", "h5py", "mpi4py", "numpy", "omegaconf", "pandas", "psutil", "hydra-core==1.3.2",
    "pydftracer==1.0.2", "torch==2.13.0", "tensorflow-cpu",
)  # fmt: skip
CONFIG = f"""
model: {{name: unet3d}}
framework: pytorch
workflow: {{generate_data: False, train: True, checkpoint: False}}
dataset:
  data_folder: DATA
  format: npz
  num_files_train: {FILES}
  num_samples_per_file: 1
  record_length: {SAMPLE}
  record_length_stdev: {DEVIATION}
reader: {{data_loader: pytorch, batch_size: {BATCH}, read_threads: 4, file_shuffle: seed, sample_shuffle: seed}}
train: {{epochs: 1, computation_time: {STEP}}}
"""


def environment() -> Path:
    """DLIO's command, installed where it is not there yet."""
    command = HOME / "bin" / "dlio_benchmark"
    if not command.exists():
        print(f"making {HOME} (needs libopenmpi-dev and some minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        pip = [str(HOME / "bin" / "pip"), "install", "-q"]
        subprocess.run([*pip, "--no-deps", "dlio-benchmark==2.0.0"], check=True)
        subprocess.run([*pip, *PACKAGES], check=True)
    return command


def forget(folder: Path) -> None:
    for file in folder.rglob("*.npz"):
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def dlio(command: Path, work: Path, *changes: str, prefix: Any = ()) -> dict[str, Any]:
    """One run; its summary."""
    argv = [
        *prefix,
        str(command),
        f"--config-dir={work}/conf",
        "workload=u3d10",
        f"++hydra.run.dir={work}/out",
        *changes,
    ]
    done = subprocess.run(argv, cwd=work, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise SystemExit(f"DLIO ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    summary = work / "out" / "summary.json"
    return json.loads(summary.read_text()) if summary.exists() else {}


def prepare(work: Path) -> Path:
    command = environment()
    (work / "conf" / "workload").mkdir(parents=True)
    (work / "conf" / "workload" / "u3d10.yaml").write_text(CONFIG.replace("DATA", str(work / "data")))
    (work / "own.toml").write_text(
        f"[u3d10]\nsample_bytes = {SAMPLE}\nsample_sd_bytes = {DEVIATION}\nsamples_per_file = 1\nbatch = {BATCH}\n"
        f"[u3d10.cards.h100]\nstep_seconds = {STEP}\n"
    )
    dlio(command, work, "++workload.workflow.generate_data=True", "++workload.workflow.train=False")
    return command


def case(command: Path, work: Path, share: float | None, busy: bool) -> bool:
    rate = None if share is None else share * DEMAND
    forget(work)
    with read_limit(work, rate) as prefix, hogs() if busy else nullcontext():
        summary = dlio(command, work, prefix=prefix)
        document = bench(
            work, "--effort", "quick", "--workload", str(work / "own.toml"), "--accelerator", "emulated:u3d10-h100",
            prefix=prefix,
        )  # fmt: skip
    theirs = float(summary["metric"]["train_au_mean_percentage"])
    value, doubt = starvation(document)
    storage, _ = starvation(document, "storage")
    truth = 100.0 * (share if share is not None else 1.0)
    ours = None if value is None else 100.0 * (1.0 - value)
    held = bool(doubt) or (ours is not None and abs(ours - truth) <= 2.0)
    cells = (
        "none" if rate is None else f"{rate / 1e6:.0f} MB/s", "busy" if busy else "quiet",
        f"{truth:.0f}", f"{theirs:.1f}",
        "-" if ours is None else f"{ours:.1f}", "-" if storage is None else f"{100 * storage:.1f}",
        document["attribution"]["bottleneck"], doubt[:60],
    )  # fmt: skip
    print("| " + " | ".join(cells) + " |" + ("" if held else " FAILS"), flush=True)
    return held


def main() -> int:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        work = Path(name)
        command = prepare(work)
        print("| limit | CPU | truth % | DLIO AU % | ours % | storage's part | bottleneck | doubt |")
        print("|---|---|---|---|---|---|---|---|")
        held = [case(command, work, share, busy) for share, busy in CASES]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
