"""The second and third look, precision and what `bench run` was asked, without a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.cli.options import duration
from bench.errors import UserError
from bench.judge.gate import judge
from bench.judge.profile import Profile, load
from bench.measure import tools
from bench.measure.probe import Completed, Failed
from bench.measure.tools import Signals
from bench.model import Code, Measurement, Run
from bench.store.runs import Store
from bench.workflows import nightly
from bench.workflows.catalog import Catalog, declared
from tests.judge.baseline.make import (
    LATENCY,
    P99,
    PROFILE,
    READ,
    SEQUENTIAL,
    START,
    Nights,
    document,
    measurement,
    store,
)


def _profile() -> Profile:
    return load(PROFILE, "nightly.toml", declared().metrics)


def _catalog(profile: Profile) -> Catalog:
    return Catalog(declared().probes, (profile,))


def _judged(found: dict[str, Any], profile: Profile) -> Run:
    run = Run.model_validate(found)
    return run.model_copy(update={"verdicts": (judge(run, profile),)})


class FurtherLooks:
    """A store of good nights, a first run, and further measurements that read as told, or fail (None)."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, first: float, *further: float | None) -> None:
        self.root, self.further = root, list(further)
        patch.setattr(tools, "pause", self.pause)
        patch.setattr(tools, "run", self.run)
        self.profile = _profile()
        nights = Nights(root)
        nights.add_many(14)
        self.first = _judged(nights.add(read=first), self.profile)
        self.measured: list[Sequence[str]] = []
        self.pauses = 0

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        self.measured.append([value for option, value in pairwise(argv) if option == "--probe"])
        assert ("--confirms", self.first.id) in list(pairwise(argv))
        assert ("--results", str(self.root)) in list(pairwise(argv))
        assert self.pauses == len(self.measured)  # the node rests before it is measured again
        if (value := self.further[len(self.measured) - 1]) is None:
            raise Failed(Code.TOOL_OUTPUT, "it ended before there was a figure")
        request = {**document(0, [])["request"], "options": {"confirms": self.first.id}}
        found = [measurement(READ, 1e9 * value, SEQUENTIAL)]
        at = START.replace(day=15, hour=3, minute=len(self.measured))
        store(self.root, document(99 + len(self.measured), found, request=request, at=at))
        return Completed(tuple(argv), 0, "", "", 1.0)

    def pause(self, seconds: float, _: Signals) -> None:
        assert seconds > 0
        self.pauses += 1

    def confirm(self) -> nightly.Compared:
        return nightly.compared_with_nights(self.first, _catalog(self.profile), Store(self.root), Signals())


@pytest.mark.parametrize(
    ("values", "decision", "state"),
    [
        ((0.75, 0.75), "NO-GO", "regressed"),
        ((0.75, 1.0), "GO", "ok"),
        ((0.75, None), "INCONCLUSIVE", "suspect"),  # the second measurement failed: nothing is confirmed or cleared
        ((0.945, 0.945, 0.90), "NO-GO", "regressed"),  # two that are bad by little: was INCONCLUSIVE, whatever came
        ((0.945, 0.945, 1.0), "GO", "ok"),
        ((0.945, 0.945, None), "INCONCLUSIVE", "suspect"),
    ],
)
def test_what_is_worse_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: Sequence[float | None], decision: str, state: str
) -> None:
    first, *further = values
    assert first is not None
    look = FurtherLooks(tmp_path, monkeypatch, first, *further)
    compared = look.confirm()
    assert look.measured == [["storage"]] * len(further)
    assert compared.run.verdicts[0].decision == decision
    assert next(entry for entry in compared.regressions if entry.metric == READ).status == state


def test_what_is_well_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = FurtherLooks(tmp_path, monkeypatch, 1.0, 1.0)
    assert look.confirm().run.verdicts[0].decision == "GO"
    assert (look.measured, look.pauses) == ([], 0)


def test_a_regression_lowers_the_score_and_names_its_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = FurtherLooks(tmp_path, monkeypatch, 0.75, 0.75).confirm().run.verdicts[0]
    assert verdict.score == pytest.approx(75.0, abs=4.0)
    assert [finding.status for finding in verdict.findings] == ["fail", "pass"]
    assert (verdict.findings[0].reason or "").startswith("regressed: ")


def test_precision_repeats_the_probes_that_are_too_wide_and_says_what_converged() -> None:
    wide = measurement(READ, 1e9, SEQUENTIAL, repeats=[0.9e9, 1e9, 1.1e9]) | {"interval": [0.9e9, 1.1e9]}
    narrow = measurement(LATENCY, 1e-3, P99, repeats=[1e-3] * 6)
    run = Run.model_validate(document(0, [wide, narrow]))
    assert nightly.to_converge(run, _catalog(_profile()), 0.03) == ["storage"]
    assert nightly.convergence(run, _catalog(_profile()), 0.03)[0] == "precision 3 %: 1 of 2 medians converged"
    assert READ in nightly.convergence(run, _catalog(_profile()), 0.03)[1]
    assert nightly.to_converge(run, _catalog(_profile()), 0.2) == []
    assert nightly.convergence(run, _catalog(_profile()), 0.2) == ["precision 20 %: 2 of 2 medians converged"]


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("10m", 600.0), ("26h", 93600.0), ("1.5 d", 129600.0)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text, "--x") == seconds


@pytest.mark.parametrize("text", ["", "h", "-3h", "1y", "nan", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--x"):
        duration(text, "--x")


def test_a_measurement_without_repeats_cannot_be_made_more_precise() -> None:
    made = Measurement(metric=READ, value=1.0, interval=(0.5, 1.5), samples=1, labels=SEQUENTIAL)
    assert made.repeats == ()
    run = Run.model_validate(document(0, [made.model_dump(mode="json")]))
    assert nightly.to_converge(run, _catalog(_profile()), 0.03) == []


def test_a_lower_bound_is_not_repeated_for_precision() -> None:
    """Its interval stays open upwards, so ``--precision`` would have gone on until the time was up."""
    held = measurement(READ, 1e9, {**SEQUENTIAL, "limited_by": "cpu"}, repeats=[1e9] * 3) | {"interval": [1e9, 2e11]}
    run = Run.model_validate(document(0, [held]))
    assert nightly.to_converge(run, _catalog(_profile()), 0.03) == []
