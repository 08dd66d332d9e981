"""The check of the GPU path on a real card: steps in the order of how much each tells, then the claims that they hold.

Every step is a process of its own with a bound of its own; when one fails or hangs the next goes on. What has been
found is written after each step, so that nothing is lost when the machine is taken away.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.model import Run, Status

ROOT = Path(__file__).resolve().parents[2]
_GRACE_SECONDS = 10.0  # to end in, before it is killed
_LEAST_SECONDS = 5.0
_MOST_LOG_BYTES = 16 << 20
_NETWORK = ("network_", "rdma_", "collective_", "response_")  # there is no second node to measure them with
_MARK = '{"figures": '


@dataclass(frozen=True)
class Step:
    """``seconds`` is its bound; with less than ``least`` left it is not begun. ``run``: words for `bench run`."""

    name: str
    seconds: float
    card: bool = True
    least: float = _LEAST_SECONDS
    run: Sequence[str] = ()

    def command(self, asked: argparse.Namespace) -> list[str]:
        words = [self.name, asked.accelerator, str(asked.storage)]
        if self.name == "contract":
            return [sys.executable, *"-m pytest -o addopts= -m gpu tests/probes/gpu/test_contract.py -q -s".split()]
        if not self.run:
            return [sys.executable, "-m", "tests.gpu.steps", *words]
        where = ["--storage", words[2], "--results", str(asked.out / f"{self.name}.r"), "--accelerator", words[1]]
        return [sys.executable, *"-m bench run --all-gates --exit-zero".split(), *where, *self.run]


STEPS = (
    Step("driver", 90, card=False),
    Step("watcher", 90, card=False),  # with no card it needs a driver that answers all the same
    Step("decoder", 120, card=False),
    Step("direct", 45),
    Step("soak", 60, card=False),
    Step("standard", 360, card=False, least=150, run=("--effort", "standard")),
    Step("copies", 45),
    Step("nccl", 60),
    Step("telemetry", 60, card=False, least=30),
    Step("feed", 120, card=False, least=40, run=("--effort", "quick", "--probe", "feed", "--loader", "torch")),
    Step("contract", 150, least=60),
    Step("quick", 200, card=False, least=60, run=("--effort", "quick")),
)  # fmt: skip


@dataclass
class Result:
    """How a step ended (ok, failed, timed_out, skipped), and what it said."""

    step: str
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """All results by step, and the stored run of each step that made one."""

    results: Mapping[str, Result]
    runs: Mapping[str, Run]

    def figure(self, step: str, name: str) -> Any:
        """Raises KeyError where the step has not said it."""
        return self.results[step].figures[name]

    def run(self) -> Run:
        """The longest full run that there is. Raises KeyError."""
        return self.runs["standard" if "standard" in self.runs else "quick"]


# --- what is claimed

Answer = tuple[str, bool]


def _at_least(value: float, least: float) -> Answer:
    return f"{value:.3g} (at least {least:g})", value >= least


def _best(found: Found, metric: str, **labels: str) -> float:
    """Raises KeyError where the run has none."""
    if not (values := [m.value for m in found.run().find(metric, **labels)]):
        raise KeyError(metric)
    return max(values)


def _watcher(found: Found) -> Answer:
    opened, sample = found.figure("watcher", "open_seconds"), found.figure("watcher", "sample_seconds")
    cards = found.figure("watcher", "cards")
    return f"opened in {opened:.2f} s, a sample {sample * 1e3:.0f} ms, {cards} cards", sample < 0.25 * cards


def _readable(found: Found) -> Answer:
    missing = found.figure("watcher", "unreadable")
    return missing or "everything that its kind has", not missing


def _gpm(found: Found) -> Answer:
    names = found.figure("watcher", "gpm")
    return ", ".join(names) or "none", bool(names)


def _new_length(found: Found) -> Answer:
    first, second = found.figure("decoder", "first_prefill_seconds"), found.figure("decoder", "second_prefill_seconds")
    way = "on" if found.figure("decoder", "cudnn_attention") else "off"
    other = found.figure("decoder", "first_prefill_otherwise_seconds")
    text = f"first {first * 1e3:.1f} ms, then {second * 1e3:.1f} ms with cuDNN attention {way}"
    return f"{text}; otherwise first {other * 1e3:.1f} ms", first < 3 * second


def _decode(found: Found) -> Answer:
    return _at_least(_best(found, "inference_bandwidth_utilization_ratio", batch="1"), 0.75)


def _prefill(found: Found) -> Answer:
    return _at_least(_best(found, "inference_flops_utilization_ratio"), 0.6)


def _direct(found: Found) -> Answer:
    return str(found.figure("direct", "way")), bool(found.figure("direct", "right"))


def _soak(found: Found) -> Answer:
    products, wrong, differing, took = (
        found.figure("soak", name) for name in ("products", "wrong", "mismatches", "took")
    )
    same = found.figure("soak", "digest") == found.figure("soak", "again")
    text = f"{products} of each kind in {took:.1f} s, {wrong} values wrong, {differing} not as the first"
    return f"{text}, {'the same' if same else 'other'} bits from the same seed", wrong == differing == 0 and same


def _kept(found: Found) -> Answer:
    kept = found.figure("soak", "kept")
    return f"{found.figure('soak', 'pace')}: {kept:.3f} (at least 0.9)", kept >= 0.9


def _copies(found: Found) -> Answer:
    return _at_least(min(found.figure("copies", way) for way in ("to_card", "from_card")), 0.6)


def _nccl(found: Found) -> Answer:
    took = found.results["nccl"].figures.items()
    text = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took if isinstance(seconds, float))
    lines = found.figure("nccl", "log_lines")
    return f"{text}; {lines} lines of its log", found.results["nccl"].outcome == "ok" and lines > 0


def _gates(found: Found) -> Answer:
    findings = [f for verdict in found.run().verdicts for f in verdict.findings if f.required]
    lacking = {f"{f.metric} ({f.reason})" for f in findings if f.status is Status.NO_DATA}
    away = {text for text in lacking if text.startswith(_NETWORK)}
    return "without data: " + ("; ".join(sorted(lacking - away)) or f"none of {len(findings)}"), not lacking - away


def _verdicts(found: Found) -> Answer:
    decisions = {verdict.profile: verdict.decision.value for verdict in found.run().verdicts}
    text = ", ".join(f"{name} {decision}" for name, decision in decisions.items())
    return text, decisions["batch-inference"] == "GO" and "NO-GO" not in decisions.values()


def _in_time(found: Found) -> Answer:
    seconds = found.results["standard"].seconds
    found.figure("standard", "run")
    return f"{seconds:.0f} s (at most 300)", seconds <= 300


def _feed(found: Found) -> Answer:
    (result,) = (r for r in found.runs["feed"].results if r.probe == "feed")
    return result.reason or f"{len(result.measurements)} figures", result.outcome.value == "ok"


def _telemetry(found: Found) -> Answer:
    ratio, error = found.figure("telemetry", "ratio"), found.figure("telemetry", "error")
    return f"tokens a second with over without: {ratio:.4f} +- {error:.4f}", abs(ratio - 1) < 0.01 + error


def _contract(found: Found) -> Answer:
    result = found.results["contract"]
    return result.figures["last_line"], result.outcome == "ok"


#: What is claimed, whether only a card can show it, and how it is read.
CLAIMS: tuple[tuple[str, bool, Callable[[Found], Answer]], ...] = (
    ("NVML opens, and a sample of a card takes less than 0.25 s", True, _watcher),
    ("nothing is unreadable that a card of this kind has", True, _readable),
    ("the card's own activity counters (GPM) answer", True, _gpm),
    ("a prompt of a new length takes less than three times what a known one does", True, _new_length),
    ("decode at batch 1: share of the copy ceiling", True, _decode),
    ("prefill: share of the matrix ceiling", True, _prefill),
    ("storage reads straight into pinned memory", True, _direct),
    ("products with a known answer come out right, repeated ones the same", False, _soak),
    ("the card keeps its clock through the soak", True, _kept),
    ("pinned copies: share of what PCIe promises", True, _copies),
    ("NCCL starts and ends with one rank, and its log can be read", True, _nccl),
    ("every required gate has data but those of the network", True, _gates),
    ("batch-inference is GO and nothing NO-GO", True, _verdicts),
    ("a standard run takes less than 300 s", False, _in_time),
    ("torch's DataLoader feeds a process that uses the accelerator", False, _feed),
    ("telemetry changes tokens a second by less than 1 %", True, _telemetry),
    ("the contract tests pass on the card", True, _contract),
)  # fmt: skip


def claims(found: Found, accelerator: str) -> list[dict[str, Any]]:
    made = []
    for text, card, read in CLAIMS:
        if card and accelerator != "cuda":
            figure, holds = "needs a card", None
        else:
            try:
                figure, holds = read(found)
            except (KeyError, ValueError, TypeError) as error:
                figure, holds = f"no figure: {error}", None
        made.append({"claim": text, "figure": figure, "holds": holds})
    return made


# --- running the steps


def run(step: Step, asked: argparse.Namespace, left: float) -> Result:
    """One step to its end or bound, its output in its log."""
    if step.card and asked.accelerator != "cuda":
        return Result(step.name, "skipped", "needs a card")
    if step.name == "contract" and importlib.util.find_spec("pytest") is None:
        return Result(step.name, "skipped", "pytest is not installed")
    if left < step.least + _GRACE_SECONDS:
        return Result(step.name, "skipped", f"{left:.0f} s were left")
    log, began = asked.out / f"{step.name}.log", time.monotonic()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            step.command(asked), cwd=ROOT, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            process.wait(max(1.0, min(step.seconds, left - _GRACE_SECONDS)))
            outcome = "failed" if process.returncode else "ok"
        except subprocess.TimeoutExpired:
            outcome = "timed_out"
        finally:
            _end(process)
    lines = log.read_text(errors="replace").splitlines()
    figures = {
        name: value for line in lines if line.startswith(_MARK) for name, value in json.loads(line)["figures"].items()
    }
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    reason = "" if outcome == "ok" else last[:300]
    return Result(step.name, outcome, reason, round(time.monotonic() - began, 1), {**figures, "last_line": last[:300]})


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole session: asked first, because an interrupted run stores what it has."""
    for sig, seconds in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        if process.poll() is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, sig)
                process.wait(seconds)


def stored(out: Path) -> dict[str, Run]:
    """The document of each step's run, copied beside the summary."""
    runs = {}
    for folder in sorted(out.glob("*.r")):
        for document in sorted(folder.glob("runs/*/*.json")):
            with suppress(ValueError, OSError):
                runs[folder.stem] = Run.model_validate_json(document.read_text())
                shutil.copyfile(document, out / f"run-{folder.stem}.json")
    return runs


def write(results: Mapping[str, Result], asked: argparse.Namespace, seconds: float) -> list[dict[str, Any]]:
    """The summary of what is known by now."""
    runs = {name: run for name, run in stored(asked.out).items() if name in results}  # others are of an earlier check
    found = Found(results, runs)
    for name in found.runs:
        results[name].figures["run"] = found.runs[name].id
    held = claims(found, asked.accelerator)
    steps = [asdict(result) for result in results.values()]
    document = {"accelerator": asked.accelerator, "seconds": round(seconds, 1), "claims": held, "steps": steps}
    (asked.out / "summary.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    words = {True: "yes", False: "NO", None: "not shown"}
    lines = ["| claim | figure | holds |", "|---|---|---|"]
    lines += [f"| {c['claim']} | {_cell(c['figure'])} | {words[c['holds']]} |" for c in held]
    lines += ["", "| step | outcome | seconds | reason or figures |", "|---|---|---|---|"]
    for result in results.values():
        told = result.reason or ", ".join(f"{k}={_short(v)}" for k, v in result.figures.items() if k != "last_line")
        lines.append(f"| {result.step} | {result.outcome} | {result.seconds} | {_cell(told)} |")
    (asked.out / "summary.md").write_text("\n".join(lines) + "\n")
    return held


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:200]


def pack(out: Path) -> None:
    """Logs and raw output into one file, so that little comes back; without the raw output where that is too much."""
    logs, raw = sorted(out.glob("*.log")), sorted(out.glob("*.r"))
    for wanted in ([*logs, *raw], logs):
        with tarfile.open(out / "logs.tar.gz", "w:gz") as archive:
            for path in wanted:
                archive.add(path, arcname=path.name)
        if (out / "logs.tar.gz").stat().st_size <= _MOST_LOG_BYTES:
            break
    for path in logs:
        path.unlink()
    for path in raw:
        shutil.rmtree(path, ignore_errors=True)


def _steps(text: str) -> list[str]:
    names = [step.name for step in STEPS]
    if unknown := set(text.split(",")) - set(names):
        raise argparse.ArgumentTypeError(f"there is no step {', '.join(sorted(unknown))}; there are {','.join(names)}")
    return text.split(",")


def _seconds(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError(text)
    return float(text)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/gpu-acceptance", description=__doc__)
    parser.add_argument("out", type=Path, help="an empty folder for all that is found")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=_seconds, default=720.0, help="the time that all steps have together")
    parser.add_argument("--storage", type=Path, default=ROOT, help="a folder on a disk")
    parser.add_argument("--only", type=_steps, help=",".join(step.name for step in STEPS))
    asked = parser.parse_args(words)
    asked.out = asked.out.resolve()
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    results: dict[str, Result] = {}
    held: list[dict[str, Any]] = []
    try:
        for step in STEPS:
            if asked.only is None or step.name in asked.only:
                results[step.name] = run(step, asked, asked.seconds - (time.monotonic() - began))
                held = write(results, asked, time.monotonic() - began)
                print(f"{step.name}: {results[step.name].outcome} {results[step.name].reason}", flush=True)
    finally:
        pack(asked.out)
    print((asked.out / "summary.md").read_text())
    return int(any(claim["holds"] is False for claim in held))
