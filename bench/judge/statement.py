"""What is signed of a run: an in-toto Statement with the test-result predicate. Pure.

Its subjects are the run document and every file of raw output. GO is PASSED; NO-GO and INCONCLUSIVE are FAILED, because
WARNED means passed and there is no word for undecided: the exact verdicts stand beside it, in an extension that has a
URI for its name, as the specification wants it.

Sources: https://github.com/in-toto/attestation, spec/v1/statement.md, spec/v1/resource_descriptor.md and
spec/predicates/test-result.md (v0.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from bench.judge.fleet.model import Fleet, FleetVerdict
from bench.judge.gate import decide, decision_of, judge
from bench.judge.profile import Profile
from bench.judge.sessions import Spread, SpreadOf
from bench.model import (
    Code,
    Decision,
    Finding,
    Frozen,
    Label,
    Measurement,
    Name,
    Outcome,
    Run,
    Status,
    Text,
    Verdict,
    code_of,
)
from bench.units import human, series_name

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
#: The name of our own part of the predicate.
OURS = "urn:aiready-bench:evidence:1"


class Judged(Frozen):
    """A profile, by its digest, and its exact answer."""

    profile: Text
    digest: Text
    decision: Decision


class SeriesSpread(Frozen):
    """How far sessions of a series were taken to lie apart when the run was judged (`bench.judge.sessions`)."""

    metric: Name
    labels: dict[Name, Label] = Field(default_factory=dict)
    deviation: FiniteFloat
    df: FiniteFloat
    logarithmic: bool
    whole: bool
    looks: int


class Told(Frozen):
    """What whoever signs says beside the evidence itself. Times are RFC 3339, UTC.

    ``nonce`` is a verifier's own word; ``max_age_seconds`` how long after its start the run may answer for the node.
    """

    signed_at: Text
    nonce: Text | None = None
    max_age_seconds: FiniteFloat | None = None
    spreads: tuple[SeriesSpread, ...] = ()


class Evidence(Told):
    """Our part of the predicate. ``node`` is the digest of its machine-id and GPUs; ``unmeasured`` are the required
    gates that have no figure that counts.
    """

    kind: Literal["run", "fleet"]
    id: Text
    hostname: Text | None = None
    node: Text | None = None
    measured_at: Text | None = None
    decision: Decision
    verdicts: tuple[Judged, ...]
    unmeasured: tuple[Text, ...] = ()


class Subject(Frozen):
    name: Text
    digest: dict[str, Text]


class Statement(Frozen):
    """The form that a file must have to be looked into; what the predicate says is compared as a whole."""

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[Subject, ...]
    predicate_type: Annotated[Literal["https://in-toto.io/attestation/test-result/v0.1"], Field(alias="predicateType")]
    predicate: dict[str, Any]

    @property
    def evidence(self) -> Evidence:
        """Our part. Raises ValueError where it has none."""
        return Evidence.model_validate_json(json.dumps(self.predicate.get(OURS)), strict=True)


def of_run(run: Run, subjects: Mapping[str, str], told: Told) -> dict[str, Any]:
    """The statement on a judged run. ``subjects``: name -> sha256."""
    findings = [(f"{verdict.profile}: {_test(f)}", f) for verdict in run.verdicts for f in verdict.findings]
    decision, node = decide(run.verdicts), run.node.facts.get("identity")
    evidence = Evidence(
        **{name: getattr(told, name) for name in Told.model_fields},
        kind="run",
        id=run.id,
        hostname=run.node.hostname,
        node=node if isinstance(node, str) else None,
        measured_at=run.started_at,
        decision=decision,
        verdicts=tuple(Judged(profile=v.profile, digest=v.digest, decision=v.decision) for v in run.verdicts),
        unmeasured=tuple(test for test, f in findings if f.required and _is_hole(f)),
    )
    tests = {
        "passedTests": [test for test, f in findings if f.status is Status.PASS],
        "failedTests": [test for test, f in findings if f.required and f.status is not Status.PASS],
    }
    return _statement(subjects, evidence, [*_profiles(run.verdicts), *_of_product(run), *_versions(run)], tests)


def of_fleet(fleet: Fleet, subjects: Mapping[str, str], told: Told) -> dict[str, Any]:
    """The statement on a fleet: its tests are its hosts, by their state."""
    evidence = Evidence(
        **{name: getattr(told, name) for name in Told.model_fields},
        kind="fleet",
        id=fleet.id,
        measured_at=fleet.measured_at,
        decision=fleet.decision,
        verdicts=tuple(Judged(profile=v.profile, digest=v.digest, decision=v.decision) for v in fleet.verdicts),
    )
    tests = {
        "passedTests": [node.host for node in fleet.nodes if node.state == "pass"],
        "failedTests": [f"{node.host}: {node.state}" for node in fleet.nodes if node.state != "pass"],
    }
    configuration = [*_profiles(fleet.verdicts), *_package("pypi", "aiready-bench", fleet.bench_version)]
    return _statement(subjects, evidence, configuration, tests)


def _statement(
    subjects: Mapping[str, str], evidence: Evidence, configuration: list[dict[str, Any]], tests: Mapping[str, list[str]]
) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": "PASSED" if evidence.decision is Decision.GO else "FAILED",
            "configuration": configuration,
            **tests,
            OURS: evidence.model_dump(mode="json"),
        },
    }


def _is_hole(finding: Finding) -> bool:
    return finding.status is Status.NO_DATA or code_of(finding.reason) is Code.INVALID


def _test(finding: Finding) -> str:
    """``storage_read_latency_seconds{statistic=p99} <= 10 ms``; why, where it did not simply pass or fail."""
    bound, limit = ("<=", finding.limit.max) if finding.limit.min is None else (">=", finding.limit.min)
    text = f"{series_name(finding.metric, finding.labels)} {bound} {human(limit or 0.0, finding.metric)}"
    text += f" [stand-in: {finding.stand_in}]" if finding.stand_in else ""
    code = code_of(finding.reason)
    return f"{text} ({code})" if code and finding.status is not Status.PASS else text


def _profiles(verdicts: tuple[Verdict, ...] | tuple[FleetVerdict, ...]) -> Iterator[dict[str, Any]]:
    for verdict in verdicts:
        yield {"name": f"profile {verdict.profile}", "digest": {"sha256": verdict.digest}}


def _of_product(run: Run) -> Iterator[dict[str, Any]]:
    """The product and what else the run was made by (declared checks): all that it names a digest of."""
    for source in (*run.sources, *(source for result in run.results for source in result.sources)):
        yield {"name": f"{source.kind} {source.name}", "digest": {"sha256": source.sha256}}


_OF_PYPI = ("bench", "torch", "nvidia-ml-py")


def _versions(run: Run) -> Iterator[dict[str, Any]]:
    """Tools and packages as package URLs (https://github.com/package-url/purl-spec)."""
    versions = run.node.facts.get("versions")
    for name, version in sorted(versions.items()) if isinstance(versions, dict) else ():
        kind, package = "pypi" if name in _OF_PYPI else "generic", "aiready-bench" if name == "bench" else name
        yield from _package(kind, package, version)


def _package(kind: str, name: str, version: object) -> Iterator[dict[str, Any]]:
    if isinstance(version, str) and version:
        plain = "".join(c if c.isalnum() or c in ".+-_~" else "%20" if c == " " else f"%{ord(c):02X}" for c in version)
        yield {"name": name, "uri": f"pkg:{kind}/{name}@{plain}", "annotations": {"version": version}}


# --- judging again

#: What only the node's nights can say: it makes a verdict worse than the figures alone do, never better.
_OF_NIGHTS = (Code.SUSPECT, Code.REGRESSED, Code.MISSING, Code.UNDETECTABLE)


class Spreads:
    """Notes the spread of each series that is judged, for whoever judges again without the nights."""

    def __init__(self, spread_of: SpreadOf) -> None:
        self._spread_of = spread_of
        self._used: dict[tuple[str, tuple[tuple[str, str], ...]], Spread] = {}

    def __call__(self, measurement: Measurement) -> Spread:
        found = self._used[_series(measurement)] = self._spread_of(measurement)
        return found

    def told(self) -> tuple[SeriesSpread, ...]:
        """Those that are not the default."""
        return tuple(
            SeriesSpread(metric=metric, labels=dict(labels), **spread._asdict())
            for (metric, labels), spread in self._used.items()
            if spread != Spread()
        )


def as_told(spreads: tuple[SeriesSpread, ...]) -> SpreadOf:
    """The spreads by which a run was judged, as its statement tells them."""
    known = {
        (one.metric, tuple(sorted(one.labels.items()))): Spread(**one.model_dump(include=set(Spread._fields)))
        for one in spreads
    }
    return lambda measurement: known.get(_series(measurement), Spread())


def _series(measurement: Measurement) -> tuple[str, tuple[tuple[str, str], ...]]:
    return measurement.metric, tuple(sorted(measurement.labels.items()))


def judged_otherwise(
    run: Run, stored: Verdict, profile: Profile, probes: Mapping[str, str], spread_of: SpreadOf
) -> str | None:
    """What a stored verdict says that the run's own figures do not; None where they agree.

    What the nights made worse stays as bad as it is: they are no part of the evidence.
    """
    again = judge(run, profile, probes, spread_of)
    if len(again.findings) != len(stored.findings):
        return f"the profile has {len(again.findings)} gates for this run, the verdict {len(stored.findings)}"
    for was, now in zip(stored.findings, again.findings, strict=True):
        if _figures(was) != _figures(now) and not _by_nights(was):
            return f"{_test(now)}: {_outcome(now)} by the run's figures, {_outcome(was)} in the verdict"
    lowered = any(map(_by_nights, stored.findings))
    decision, score = decision_of(stored.findings), min(stored.score, again.score) if lowered else again.score
    if (stored.decision, stored.score) != (decision, score):
        told, own = f"{stored.decision} (score {stored.score:.6g})", f"{decision} (score {score:.6g})"
        return f"{own} by its gates, {told} in the verdict"
    return None


def _by_nights(finding: Finding) -> bool:
    return code_of(finding.reason) in _OF_NIGHTS and finding.status is not Status.PASS


def _figures(finding: Finding) -> dict[str, object]:
    """All that decides: not the words."""
    return finding.model_dump(exclude={"source", "remedy", "reason"})


def _outcome(finding: Finding) -> str:
    shown = "nothing" if finding.observed is None else human(finding.observed, finding.metric)
    return f"{finding.status} with {shown}"


def measured_otherwise(stored: Run, again: Run) -> Iterator[str]:
    """What a run says that its raw output, read anew, does not: one line a probe.

    A figure that was void because the node was busy may be sound by the output alone: it decides nothing either way.
    """
    read = {result.probe: result for result in again.results}
    for result in (one for one in stored.results if one.outcome is Outcome.OK):
        now = read.get(result.probe)
        if now is None or now.outcome is not Outcome.OK:
            yield f"{result.probe}: {now.outcome if now else 'nothing'} by the raw output, {result.outcome} in the run"
        elif len(result.measurements) != len(now.measurements):
            counts = len(now.measurements), len(result.measurements)
            yield f"{result.probe}: {counts[0]} figures by the raw output, {counts[1]} in the run"
        else:
            pairs = zip(result.measurements, now.measurements, strict=True)
            if (wrong := next((pair for pair in pairs if not _same(*pair)), None)) is not None:
                was, own = (human(m.value, m.metric, 6) for m in wrong)
                name = series_name(wrong[0].metric, wrong[0].labels)
                yield f"{result.probe}: {name} is {own} by the raw output, {was} in the run"


def _same(stored: Measurement, again: Measurement) -> bool:
    same = _series(stored) == _series(again) and stored.samples == again.samples
    sound = stored.invalid is not None or again.invalid is None
    return same and sound and (stored.value, stored.interval) == (again.value, again.interval)
