"""The shipped table of accelerators, and the slips that it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.inference.datasheet import FILE, LEAST_SHARE, MOST_SHARE, TableError, find, table

GOOD = """
[[card]]
names = ["X1"]
matmul_flops_per_second = 100e12
memory_bytes_per_second = 4.8e12
pcie_bytes_per_second = 63e9
power_watts = 700
source = "a data sheet of X1"
date = 2026-01-01
[card.limits.memory_bytes_per_second]
min = 3.6e12
source = "measured on ten of them"
date = 2026-01-01
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "cards.toml"
    file.write_text(text)
    return file


def test_every_shipped_limit_lies_within_its_data_sheet() -> None:
    cards = table()
    assert len(cards) >= 10
    for card in cards:
        assert card.source and card.date
        for quantity, limit in card.limits.items():
            assert LEAST_SHARE <= limit.min / card.promises[quantity] <= MOST_SHARE
            assert limit.source and limit.date


def test_a_card_is_found_by_its_whole_name() -> None:
    h200 = find("NVIDIA H200")
    assert h200 is not None and h200.promises["memory_bytes_per_second"] == 4.8e12
    nvl = find("NVIDIA H200 NVL")
    assert nvl is not None and nvl is not h200
    assert find("NVIDIA H2") is None and find("x86_64") is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("min = 3.6e12", "min = 2333e6", "0.000486 of its data sheet"),  # the unit slip that DCGM 4.6.0 ships
        ("min = 3.6e12", "min = 4.9e12", "1.02 of its data sheet"),
        ("card.limits.memory_", "card.limits.mem_", "limit of mem_bytes_per_second"),
        ("source = \"measured", "sauce = \"measured", "source: Field required"),
        ("min = 3.6e12", "min = nan", "min: Input should be a finite number"),
        ("min = 3.6e12", "min = true", "min: Input should be a valid number"),
        ("date = 2026-01-01\n[card.limits", "date = \"soon\"\n[card.limits", "date: Input should be a valid date"),
        ("names = [\"X1\"]", "names = [\"X1\", \"X1\"]", "is there twice"),
        ("[[card]]", "[[card", "Expected"),
    ],
)  # fmt: skip
def test_a_slip_is_refused_in_one_line_with_its_place(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert table(written(tmp_path, GOOD))
    broken = tmp_path / "broken"
    broken.mkdir()
    assert old in GOOD
    with pytest.raises(TableError) as caught:
        table(written(broken, GOOD.replace(old, new)))
    assert words in str(caught.value) and "cards.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_the_table_ships_beside_the_code() -> None:
    assert FILE.is_file() and FILE.parent.name == "inference"
