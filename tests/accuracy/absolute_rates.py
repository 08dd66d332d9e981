"""Wrong decisions of absolute gates: the real judge over synthetic and recorded sessions of known truth.

``make error-rates`` or ``python -m tests.accuracy.absolute_rates [--trials 1000]``. Seeded; prints one table, ours
beside what others do with the same sessions, and ends with status 1 when a claim fails.

One gate of sequential reads. Repeats vary by 3 to 8 % (uniform, drawn once a node), as those of a machine of one's own
do; a session is five of them, and a straddled limit is measured again, up to four rounds in all, as `bench run` does.
The node's true rate lies 10 and 3 % under its limit, at it, and over it. The worlds:

- independent: repeats are. memory 0.5, 0.7: each repeat remembers the one before, through all rounds. sessions: 40 % of
  the variance is the session's, which all its repeats and rounds share. steady: repeats vary by 1 % alone, and sessions
  by the 3 % that the metric declares.
- recorded: 22 sessions of five fio repeats, eight series, on a busy virtual machine (their nights differ by 11 to
  94 %). The truth of a series is the mean of its sessions; own nights are the other 21.

*95 %*: how often the interval that decided at the first look holds the truth. Then, for each true distance from the
limit, GO / NO-GO / undecided in per cent of sessions. Under the limit a GO is wrong, over it a NO-GO.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from bench.judge.baseline.between import spread_of
from bench.judge.gate import judge, keeps
from bench.judge.pooling import LOOKS
from bench.judge.profile import Gate, Profile
from bench.judge.statistics import median
from bench.model import Effort, Finding, Limit, Measurement, Metric, Node, Outcome, ProbeResult, Request, Run, Status
from bench.workflows.catalog import declared
from probes.common.metrics import of_repeats
from tests.accuracy._worlds import Array

READ = "storage_read_bytes_per_second"
LATENCY = "storage_read_latency_seconds"
WORLDS = ("independent", "memory 0.5", "memory 0.7", "sessions", "steady")
#: How far the truth lies over its limit.
DISTANCES = (-0.10, -0.03, 0.0, 0.03, 0.10)
REPEATS, NIGHTS, SESSION_SHARE = 5, 14, 0.4
#: How far a steady node's sessions lie apart, and its repeats.
STEADY = 0.03, 0.01
PATHS = (1, 8, 16)
RECORDED = Path(__file__).parents[1] / "judge/baseline/data/fio-sessions.jsonl"
CHUNK = 100
SEED = 20260102
#: Promised of ours, in per cent: wrong decisions away from the limit and NO-GO at it (beside the simulation's own
#: error), how often the interval holds the truth, and decisions 10 % from the limit.
MOST_WRONG, LEAST_HELD, LEAST_DECIDED = 2.5, 93.0, 50.0
#: What is counted: ``pass`` and ``fail`` at each distance, ``held`` (the interval has the truth in it), and ``n``.
Counts = dict[str, float]
HELD, _LIMIT = "held", DISTANCES.index(0.0)


def draw(rng: np.random.Generator, world: str, sessions: int, repeats: int) -> Array:
    """Logarithms of one node's repeats around a true 0: sessions x repeats."""
    spread, noise = rng.uniform(0.03, 0.08), rng.standard_normal((sessions, repeats))
    if world in ("sessions", "steady"):
        shared = rng.standard_normal((sessions, 1))
        if world == "steady":
            return STEADY[0] * shared + STEADY[1] * noise
        noise = math.sqrt(SESSION_SHARE) * shared + math.sqrt(1.0 - SESSION_SHARE) * noise
    elif world != "independent":
        memory = float(world.split()[1])
        for at in range(1, repeats):
            noise[:, at] = memory * noise[:, at - 1] + math.sqrt(1.0 - memory**2) * noise[:, at]
    found: Array = spread * noise
    return found


@cache
def metric(name: str) -> Metric:
    return declared().metrics[name]


@cache
def profile(name: str, truth: float, more: bool, distances: tuple[float, ...] = DISTANCES) -> Profile:
    """One gate a distance. ``more``: more is better, so the limit is a least."""
    limits = (Limit(min=truth / (1.0 + d)) if more else Limit(max=truth * (1.0 + d)) for d in distances)
    return Profile(name="p", gate=tuple(Gate(metric=name, source="s", min=at.min, max=at.max) for at in limits))


def findings(measured: Sequence[Measurement], by: Profile, nights: Sequence[float] | None) -> tuple[Finding, ...]:
    """What the judge makes of a session, given the node's nights."""
    result = ProbeResult(probe="storage", outcome=Outcome.OK, measurements=tuple(measured))
    request = Request(effort=Effort.STANDARD, probes=("storage",))
    node = Node(hostname="node", fingerprint="f")
    run = Run(id="r", started_at="2030-01-01T00:00:00Z", node=node, request=request, results=(result,))
    if nights is None:
        return judge(run, by).findings
    return judge(run, by, {}, lambda m: spread_of(metric(m.metric), m, nights, looks=LOOKS)).findings


def of_session(repeats: Sequence[float], name: str, path: str = "/data") -> Measurement:
    return of_repeats(name, list(repeats), {"path": path})


def ours(rounds: Sequence[float], nights: Sequence[float] | None, by: Profile, looks: int, truth: float) -> Counts:
    """Look, and look again with one more round as long as a gate is undecided; each gate by itself. ``nights``: None
    for the session's own interval, as if nothing else were known."""
    found: Counts = defaultdict(float)
    left = dict(enumerate(DISTANCES))
    for look in range(1, looks + 1):
        told = findings([of_session(rounds[: REPEATS * look], by.gates[0].metric)], by, nights)
        if look == 1:
            low, high = told[_LIMIT].interval or (math.inf, -math.inf)
            found[HELD] += low <= truth <= high
        for at, over in list(left.items()):
            if told[at].status in (Status.PASS, Status.FAIL):
                found[f"{told[at].status} {over}"] += 1
                del left[at]
    return found


def fixed(value: float, by: Profile) -> Counts:
    """One number against the limit: it always decides."""
    found: Counts = defaultdict(float)
    for gate, over in zip(by.gates, DISTANCES, strict=True):
        found[f"{Status.PASS if keeps(value, gate.limit) else Status.FAIL} {over}"] += 1
    return found


def _rules(rounds: Sequence[float], nights: Sequence[float], by: Profile, truth: float) -> Iterator[tuple[str, Counts]]:
    """Every rule on the same session: ``rounds`` as far as they go, ``nights`` one value each."""
    yield "ours, prior, one look", ours(rounds, (), by, 1, truth)
    yield "ours, nights, one look", ours(rounds, nights, by, 1, truth)
    if len(rounds) > REPEATS:
        yield "ours, prior", ours(rounds, (), by, LOOKS, truth)
        yield "ours, nights", ours(rounds, nights, by, LOOKS, truth)
    yield "its own interval", ours(rounds, None, by, len(rounds) // REPEATS, truth)
    yield "one fio run", fixed(rounds[0], by)
    yield "mean of three", fixed(fmean(rounds[:3]), by)


def _added(rows: Iterable[tuple[str, Counts]], into: dict[str, Counts]) -> None:
    for rule, counts in rows:
        into[rule]["n"] += 1
        for name, value in counts.items():
            into[rule][name] += value


def _rows() -> dict[str, Counts]:
    return defaultdict(lambda: defaultdict(float))


def _chunk(job: tuple[str, int]) -> dict[str, Counts]:
    """Sessions of as many nodes, in one world."""
    world, number = job
    rng = np.random.default_rng([SEED, WORLDS.index(world), number])
    by, total = profile(READ, 1e9, True), _rows()
    for _ in range(CHUNK):
        sessions = 1e9 * np.exp(draw(rng, world, 1 + NIGHTS, REPEATS * LOOKS))
        _added(_rules(sessions[0].tolist(), np.median(sessions[1:, :REPEATS], 1).tolist(), by, 1e9), total)
    return {rule: dict(counts) for rule, counts in total.items()}


def recorded() -> dict[str, Counts]:
    """Every recorded session against the mean of its series, with the other sessions as the node's nights."""
    series: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in RECORDED.read_text().splitlines():
        row = json.loads(line)
        for name in ("bw", "p99"):
            series[row["job"], name][row["session"]].append(float(row[name]))
    total = _rows()
    for (_, name), by_session in series.items():
        sessions = [repeats[:REPEATS] for repeats in by_session.values() if len(repeats) >= REPEATS]
        medians = [median(repeats) for repeats in sessions]
        truth = math.exp(fmean(map(math.log, medians)))
        by = profile(READ if name == "bw" else LATENCY, truth, name == "bw")
        for at, repeats in enumerate(sessions):
            _added(_rules(repeats, [*medians[:at], *medians[at + 1 :]], by, truth), total)
    return total


def _worst(job: tuple[str, int, int]) -> tuple[float, float]:
    """How often a gate over so many paths, every one of them at the limit, is NO-GO: ours, and as if each path were
    alone. The priors know the sessions, and a straddled limit is measured again."""
    world, paths, number = job
    rng = np.random.default_rng([SEED, WORLDS.index(world), paths, number])
    by, corrected, alone = profile(READ, 1e9, True, (0.0,)), 0, 0
    for _ in range(CHUNK):
        rounds = [1e9 * np.exp(draw(rng, world, 1, REPEATS * LOOKS)[0]) for _ in range(paths)]
        together = each = False
        for look in range(1, LOOKS + 1):
            found = [of_session(one[: REPEATS * look].tolist(), READ, f"/{at}") for at, one in enumerate(rounds)]
            together = together or findings(found, by, ())[0].status is Status.FAIL
            each = each or any(findings([m], by, ())[0].status is Status.FAIL for m in found)
        corrected, alone = corrected + together, alone + each
    return corrected, alone


# --- what is printed, and what is promised


def _share(row: Counts, name: str) -> float:
    return 100.0 * row.get(name, 0.0) / row["n"]


def _line(rule: str, row: Counts) -> str:
    held = f"{_share(row, HELD):.1f}" if HELD in row else "-"
    pairs = [(_share(row, f"{Status.PASS} {d}"), _share(row, f"{Status.FAIL} {d}")) for d in DISTANCES]
    cells = (f"{go:.1f}/{no:.1f}/{abs(100.0 - go - no):.1f}" for go, no in pairs)
    return f"  {rule:<24}{held:>6}" + "".join(f"{cell:>17}" for cell in cells)


def _claims(world: str, rule: str, row: Counts) -> list[str]:
    """What the docs promise, for ours: each that does not hold, as a line."""
    wrong = {d: _share(row, f"{Status.PASS if d < 0.0 else Status.FAIL} {d}") for d in DISTANCES if d}
    found = [f"wrong at {100 * d:+.0f} % is {share:.1f} %" for d, share in wrong.items() if share > MOST_WRONG]
    if _share(row, HELD) < LEAST_HELD:
        found.append(f"the interval holds the truth in {_share(row, HELD):.1f} %")
    decided = (_share(row, f"{Status.FAIL} -0.1") + _share(row, f"{Status.PASS} 0.1")) / 2.0
    if world in WORLDS and "one look" not in rule and decided < LEAST_DECIDED:
        found.append(f"10 % from the limit only {decided:.1f} % are decided")
    return [f"{world}, {rule}: {text}" for text in found]


def _told(world: str, rows: Mapping[str, Counts]) -> list[str]:
    print(world, flush=True)
    for rule, row in rows.items():
        print(_line(rule, row), flush=True)
    return [line for rule, row in rows.items() if rule.startswith("ours") for line in _claims(world, rule, row)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000, help="sessions a world")
    asked = parser.parse_args()
    chunks, started, failed = range(math.ceil(asked.trials / CHUNK)), time.monotonic(), list[str]()
    n = CHUNK * len(chunks)
    print(
        f"{n} sessions a world, {NIGHTS} own nights; GO/NO-GO/undecided in per cent by where the truth is to the limit"
    )
    print(f"  {'':<24}{'95 %':>6}" + "".join(f"{f'{100 * d:+.0f} %':>17}" for d in DISTANCES))
    with multiprocessing.Pool(2) as pool:
        for world in WORLDS:
            total = _rows()
            for found in pool.imap_unordered(_chunk, [(world, number) for number in chunks]):
                for rule, counts in found.items():
                    for name, value in counts.items():
                        total[rule][name] += value
            failed += _told(world, total)
        failed += _told("recorded (each once)", recorded())
        print("the worst of several paths, all of them at the limit: NO-GO in per cent, and if each were alone")
        for world, paths in product(("independent", "sessions", "steady"), PATHS):
            both = list(pool.imap_unordered(_worst, [(world, paths, number) for number in chunks]))
            ours_, alone = (100.0 * sum(counts) / n for counts in zip(*both, strict=True))
            print(f"  {f'{world}, {paths} paths':<24}{ours_:>6.1f}{alone:>8.1f}", flush=True)
            if ours_ > MOST_WRONG + 300.0 * math.sqrt(0.025 * 0.975 / n):
                failed.append(f"{world}: {paths} paths at the limit are NO-GO in {ours_:.1f} %")
    for line in failed:
        print(f"FAIL {line}")
    print(f"{'FAIL' if failed else 'ok  '} error rates of absolute gates ({time.monotonic() - started:.0f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
