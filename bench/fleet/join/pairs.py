"""What lies beside the sweep in a run's folder: pairs and shared storage. Read with the same suspicion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.fleet.files import read_object, same_host
from bench.judge.fleet.model import PairOutcome, SharedStorage, State
from bench.judge.statistics import median
from bench.model import Code, Measurement, Outcome, ProbeResult, Run
from bench.store import documents
from bench.store.errors import UnusableRun, one_line

PAIRS, PAIR_FOLDER, SHARED = "pairs.json", "pairs", "shared"
_RATE, _RDMA = "network_throughput_bytes_per_second", "rdma_write_bytes_per_second"
#: The probes that a pair runs; RDMA where both ends have it.
PROBES = ("network", "rdma")
_READ = "storage_read_bytes_per_second"
_FAILED = (Outcome.FAILED, Outcome.TIMED_OUT)
_TURNED = {"send": "receive", "receive": "send"}
_NO_FILE = State.NOT_RUN, "no_result: no file of this pair came"


def pair_file(client: str, server: str) -> str:
    return f"{client}--{server}.json"


def rounds_in(folder: Path) -> list[tuple[tuple[str, str], ...]]:
    """The schedule, empty where there is none. Raises UserError for one that cannot be used."""
    try:
        rounds = read_object(folder / PAIRS).get("rounds")
        return [tuple((str(a), str(b)) for a, b in one) for one in rounds or ()]
    except (TypeError, ValueError) as error:
        message = f'{folder / PAIRS}: is no schedule; it must be {{"rounds": [[["a", "b"], ...], ...]}}'
        raise UserError(one_line(message)) from error


def first_rounds_in(folder: Path, otherwise: int) -> int:
    """How many of the schedule's rounds are the first pass; behind them come the suspects'."""
    number = read_object(folder / PAIRS).get("first")
    return number if isinstance(number, int) and 0 <= number <= otherwise else otherwise


def pairs_in(
    folder: Path, hostnames: Mapping[str, str], told: Mapping[tuple[str, str], tuple[State, str]]
) -> tuple[list[PairOutcome], dict[str, list[ProbeResult]]]:
    """One outcome for every pair of the schedule, and by host what its pairs say of it, by probe. ``told``: what the
    controller says of pairs without a file. Raises UserError for a schedule that is none.
    """
    outcomes: list[PairOutcome] = []
    of_host: dict[str, list[ProbeResult]] = defaultdict(list)
    for number, one in enumerate(rounds_in(folder)):
        for client, server in one:
            path = folder / PAIR_FOLDER / pair_file(client, server)
            if path.exists():
                run, found = _measured(path, hostnames.get(client, client))
            else:
                state, reason = told.get((client, server), _NO_FILE)
                run, found = None, {"state": state, "reason": reason or None}
            outcomes.append(PairOutcome(round=number, client=client, server=server, **found))
            for result in run.results if run is not None else ():
                if result.probe in PROBES:
                    of_host[client].append(result)
                    of_host[server] += _mirrored(result, client)
    return outcomes, {host: [*_by_probe(results)] for host, results in of_host.items()}


def _measured(path: Path, hostname: str) -> tuple[Run | None, dict[str, Any]]:
    """The run of a pair that passed, else None; and the fields of its outcome."""
    try:
        run = documents.load(path, follow=False)
    except UnusableRun as error:
        return None, {"state": State.BAD_RESULT, "reason": f"bad_result: {error}"}
    rates = {way: [m for m in run.find(_RATE, direction=way) if m.invalid is None] for way in _TURNED}
    values = {f"{way}_bytes_per_second": median([m.value for m in found]) for way, found in rates.items() if found}
    stand_in = next((m.stand_in for found in rates.values() for m in found if m.stand_in), None)
    reason = trouble_of_pair(run, hostname) or (f"{Code.STAND_IN}: {stand_in} is no pair" if stand_in else None)
    if reason:
        return None, {"state": State.BAD_RESULT, "reason": reason, "stand_in": stand_in}
    if not values:
        doubts = [m.invalid for m in run.find(_RATE) if m.invalid]
        reason = f"{Code.INVALID}: {doubts[0] if doubts else 'neither direction was measured'}"
        return None, {"state": State.INCONCLUSIVE, "reason": reason}
    return run, {"state": State.PASS, **values, **_by_rdma(run)}


def _by_rdma(run: Run) -> dict[str, Any]:
    """What a pair wrote by RDMA, or why it could not although the client has the hardware."""
    if rates := [m.value for m in run.find(_RDMA) if m.invalid is None]:
        return {"rdma_bytes_per_second": median(rates)}
    failed = (r for r in run.results if r.probe == "rdma" and r.outcome in _FAILED)
    return {"reason": reason} if (reason := next((r.reason for r in failed), None)) else {}


def _mirrored(result: ProbeResult, client: str) -> Iterator[ProbeResult]:
    """The server's side: what the client sent it has received. A client's lack of hardware says nothing of it."""
    found = []
    for m in (m for m in result.measurements if m.metric == _RATE or m.metric.startswith("rdma_")):
        way = {"direction": _TURNED.get(m.labels["direction"], "receive")} if "direction" in m.labels else {}
        found.append(m.model_copy(update={"labels": {**m.labels, **way, "peer": client}}))
    if found:
        yield ProbeResult(probe=result.probe, outcome=Outcome.OK, measurements=tuple(found))
    elif result.outcome in _FAILED:
        yield result


def _by_probe(results: Sequence[ProbeResult]) -> Iterator[ProbeResult]:
    """A host's figures by each probe over all its pairs; of a probe without any, why, the failures first."""
    for probe in PROBES:
        of_it = [result for result in results if result.probe == probe]
        if measured := [m for result in of_it for m in result.measurements]:
            yield ProbeResult(probe=probe, outcome=Outcome.OK, measurements=tuple(pooled(measured)))
        elif of_it:
            yield min(of_it, key=lambda result: result.outcome not in _FAILED)


def pooled(found: Sequence[Measurement]) -> list[Measurement]:
    """A host's figures over all its pairs: the median, because the worst of them may be the other one's fault."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Measurement]] = defaultdict(list)
    for m in found:
        groups[m.metric, tuple(sorted((k, v) for k, v in m.labels.items() if k != "peer"))].append(m)
    return [_pool(metric, dict(labels), same) for (metric, labels), same in groups.items()]


def _pool(metric: str, labels: dict[str, str], same: Sequence[Measurement]) -> Measurement:
    valid = [m for m in same if m.invalid is None] or list(same)
    value, low, high = (median(column) for column in zip(*((m.value, *m.interval) for m in valid), strict=True))
    return Measurement(
        metric=metric,
        value=value,
        interval=(min(low, value), max(high, value)),
        samples=sum(m.samples for m in valid),
        labels={**labels, "peer": f"median of {len(valid)} pairs"},
        invalid=valid[0].invalid,
    )


def trouble_of_pair(run: Run, hostname: str) -> str | None:
    """Why the run is no measurement of a pair, None if it is one."""
    if not same_host(hostname, run.node.hostname):
        return one_line(f"bad_result: says it is of {run.node.hostname!r}, not of {hostname!r}")
    if run.find(_RATE):
        return None
    found = next((r for r in run.results if r.outcome is not Outcome.OK and r.probe == "network"), None)
    return one_line(f"bad_result: {found.reason if found else 'it measured no throughput'}")


def shared_in(folder: Path, hosts: Sequence[str]) -> list[SharedStorage]:
    """What one node alone, and each of all at once, read from the shared storage."""
    asked = read_object(folder / SHARED / "asked.json")
    if not isinstance(named := asked.get("hosts"), list):
        return []
    alone, together = (_read_rates(folder / SHARED / kind, hosts) for kind in ("alone", "together"))
    missing = tuple(host for host in named if host in hosts and host not in together)
    path = str(asked.get("path") or "?")[:4000]
    return [SharedStorage(path=path, alone=alone, together=together, missing=missing)]


def _read_rates(folder: Path, hosts: Sequence[str]) -> dict[str, float]:
    found = {}
    for host in hosts:
        try:
            rates = [m.value for m in documents.load(folder / f"{host}.json", follow=False).find(_READ)]
        except UnusableRun:  # none came, or it is none
            continue
        if rates:
            found[host] = max(rates)
    return found
