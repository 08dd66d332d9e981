"""Ours and AIPerf on the same servers: ``python -m tests.accuracy.peers_aiperf`` (``make accuracy PEERS=1``).

By turns, at one rate: on llama.cpp's server with random weights, which nobody here wrote, and on the simulated one,
whose own log is the truth. AIPerf gets an environment of its own below the user's cache folder; it is made on the first
call, and needs half a gigabyte and minutes. Claim: on the simulated server our median is within 2 ms of the truth, or
we say that the client was the limit; what AIPerf says is printed beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.judge.statistics import quantile
from probes.common.pipe import of
from probes.endpoint.parse import doubt
from probes.endpoint.records import Answer, SelfCheck
from tests.forks import serving
from tests.probes.endpoint.harness import loaded, simulated

HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aiready-bench" / "peers-aiperf"
PACKAGE = "aiperf==0.13.0"
RATE, REQUESTS, TOKENS, ROUNDS, MEDIAN = 10.0, 100, 16, 2, 0.002
#: A tokenizer of words, so that none is fetched from a hub.
TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = {"<unk>": 0, **{f"w{n}": n + 1 for n in range(2000)}}
made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<unk>").save_pretrained(sys.argv[1])
"""
Figures = tuple[float, float, float]  # seconds: first token p50 and p99, between tokens p50


def environment() -> Path:
    """Its folder of commands, installed where it is not there yet."""
    commands = HOME / "bin"
    if not (commands / "aiperf").exists():
        print(f"making {HOME} (needs some minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        subprocess.run([str(commands / "pip"), "install", "-q", PACKAGE], check=True)
    return commands


def theirs(commands: Path, url: str, model: str, folder: Path) -> Figures:
    tokenizer, out = folder / "tokenizer", folder / "aiperf"
    if not tokenizer.exists():
        subprocess.run([str(commands / "python"), "-c", TOKENIZER, str(tokenizer)], check=True, capture_output=True)
    argv = [
        str(commands / "aiperf"), "profile", "--model", model, "--url", url, "--endpoint-type", "chat", "--streaming",
        "--request-rate", f"{RATE:g}", "--arrival-pattern", "poisson", "--request-count", str(REQUESTS),
        "--tokenizer", str(tokenizer), "--use-server-token-count", "--isl", "16", "--osl", str(TOKENS),
        "--extra-inputs", "ignore_eos:true", "--warmup-request-count", "10", "--artifact-dir", str(out),
        "--ui", "none", "--random-seed", "7",
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    found = sorted(out.rglob("profile_export_aiperf.json"))
    if not found:
        raise SystemExit(f"AIPerf ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    told: dict[str, Any] = json.loads(found[-1].read_text())
    first, gap = told["time_to_first_token"], told["inter_token_latency"]
    found[-1].unlink()
    return first["p50"] / 1e3, first["p99"] / 1e3, gap["p50"] / 1e3


def ours(url: str) -> tuple[Figures, str | None, list[Answer], float]:
    load = loaded(url, rate=RATE, max_rate=RATE, enough=REQUESTS, seconds=20.0, output_tokens=TOKENS, self_check=4.0)
    firsts = [a.first_token for a in load.held if a.first_token is not None]
    means = [a.token_seconds for a in load.held if a.token_seconds is not None]
    said = doubt(load.window, load.held, next(iter(of(load.records, SelfCheck)), None))
    return (quantile(firsts, 0.5), quantile(firsts, 0.99), quantile(means, 0.5)), said, load.held, load.window.began


def row(server: str, who: str, figures: Figures, said: str = "") -> None:
    print("| " + " | ".join([server, who, *(f"{1e3 * value:.2f}" for value in figures), said]) + " |", flush=True)


def main() -> int:
    commands, good = environment(), True
    print(
        "| server | figures of | first token p50, ms | p99 | a token p50, ms | |\n| --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(ROUNDS):
            with simulated(folder, first=0.05, gap=0.008) as server:
                row("simulated", "AIPerf", theirs(commands, server.url, "sim", folder))
                before = len(server.truth())
                figures, said, held, began = ours(server.url)
                served = server.truth()[before:][-len(held) :]
            row("simulated", "ours", figures, said or "")
            firsts = [t["chunks"][0] - began - a.scheduled for a, t in zip(held, served, strict=True)]
            gaps = [(t["chunks"][-1] - t["chunks"][0]) / (len(t["chunks"]) - 1) for t in served]
            truth = (quantile(firsts, 0.5), quantile(firsts, 0.99), quantile(gaps, 0.5))
            row("simulated", "the server's log", truth)
            good &= said is not None or all(abs(a - b) <= MEDIAN for a, b in pairwise((figures[0], truth[0])))
            with serving("tests.probes.endpoint.tiny_llama", str(folder / "tiny.gguf"), quiet=True) as port:
                url = f"http://127.0.0.1:{port}"
                row("llama.cpp", "AIPerf", theirs(commands, url, "tiny.gguf", folder))
                figures, said, _, _ = ours(url)
            row("llama.cpp", "ours", figures, said or "")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
