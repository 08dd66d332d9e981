"""A fleet run over a real Ray: `tests.fleet.transport_cases`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.testbed import Testbed
from tests.fleet.transport_cases import check_command, check_faults, check_kills, check_whole, whole_run
from tests.fleet.ways import Way, way_over


@pytest.fixture(scope="module")
def ray(hosts: Testbed) -> Iterator[Way]:
    with way_over("ray", hosts) as way:
        yield way


@pytest.mark.timeout(400)
def test_the_whole_suite_comes_to_one_verdict(ray: Way, tmp_path: Path) -> None:
    check_whole(ray, whole_run(ray, tmp_path))


@pytest.mark.timeout(400)
def test_a_controller_that_is_killed_or_interrupted_loses_nothing_and_nothing_runs_twice(
    ray: Way, tmp_path: Path
) -> None:
    check_kills(ray, tmp_path)


@pytest.mark.timeout(300)
def test_the_command_itself_brings_the_product_measures_and_stores(ray: Way, tmp_path: Path) -> None:
    check_command(ray, tmp_path)


@pytest.mark.timeout(400)
def test_every_named_host_has_its_one_true_outcome_and_resume_completes(ray: Way, tmp_path: Path) -> None:
    check_faults(ray, tmp_path)
