"""The store's nights reach the judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.judge.profile import load
from bench.model import Decision, Run, Verdict
from bench.store.runs import Store
from bench.workflows.catalog import Catalog, declared
from bench.workflows.judging import concluded, to_repeat
from tests.judge.baseline.make import READ, SEQUENTIAL, Nights, document, measurement, store


def catalog(least: float) -> Catalog:
    text = f'name = "p"\ndescription = "d"\n[[gate]]\nmetric = "{READ}"\nmin = {least}\nsource = "s"\n'
    return Catalog(declared().probes, (load(text, "p.toml", declared().metrics),))


def judged(root: Path, run: Run, least: float, *, nights: bool = True) -> Verdict:
    return concluded(run, catalog(least), Store(root) if nights else None).verdicts[0]


def tonight(root: Path, value: float = 1e9) -> Run:
    found = document(50, [measurement(READ, value, SEQUENTIAL)])
    store(root, found)
    return Run.model_validate(found)


def test_a_node_whose_nights_agree_is_decided_where_the_prior_alone_cannot(tmp_path: Path) -> None:
    Nights(tmp_path, spread=0.01).add_many(14)
    run = tonight(tmp_path)
    assert judged(tmp_path, run, 0.95e9).decision is Decision.GO
    assert judged(tmp_path, run, 0.95e9, nights=False).decision is Decision.INCONCLUSIVE


def test_what_the_nights_decide_is_not_measured_again(tmp_path: Path) -> None:
    Nights(tmp_path, spread=0.01).add_many(14)
    run = tonight(tmp_path)
    assert to_repeat(run, catalog(0.95e9), Store(tmp_path)) == []
    assert to_repeat(run, catalog(0.95e9)) == ["storage"]


def test_a_node_whose_nights_differ_was_go_by_one_good_session(tmp_path: Path) -> None:
    """25 % from night to night, and a limit 30 % away: this session says no more than that it was a good one."""
    Nights(tmp_path, spread=0.25).add_many(14)
    run = tonight(tmp_path)
    assert judged(tmp_path, run, 0.7e9).decision is Decision.INCONCLUSIVE
    assert judged(tmp_path, run, 0.7e9, nights=False).decision is Decision.GO


def test_the_run_itself_and_later_ones_are_no_nights_of_it(tmp_path: Path) -> None:
    """A bad session must not excuse itself: judged again after it was stored it says the same."""
    nights = Nights(tmp_path, spread=0.01)
    nights.add_many(3)
    run = tonight(tmp_path, 0.8e9)
    before = judged(tmp_path, run, 1e9)
    store(tmp_path, document(51, [measurement(READ, 2e9, SEQUENTIAL)]))
    assert judged(tmp_path, run, 1e9) == before
    assert before.decision is Decision.NO_GO


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_store_that_holds_garbage_leaves_the_prior(tmp_path: Path, text: str) -> None:
    run = tonight(tmp_path)
    (tmp_path / "runs" / "node01" / "20260101T000000Z-x.json").write_text(text)
    assert judged(tmp_path, run, 0.5e9) == judged(tmp_path, run, 0.5e9, nights=False)
