"""How the samples lie in files: many in one, or each in its own, which is then opened for every read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from probes.feed.load import dataset
from probes.feed.load.dataset import plan_blocks, unwritten_bytes
from probes.feed.load.reader import Buffer, FileSource, first_that_fits, make_buffers
from tests.probes.feed.conftest import ROOT, SHORT, specification

JPEG = 322_957


@pytest.mark.parametrize(("size", "deviation"), [(JPEG, 0), (2_828_486, 71_311)])
def test_a_small_sample_has_a_file_of_its_own(tmp_path: Path, size: int, deviation: int) -> None:
    blocks = plan_blocks(size, deviation, 1, 24 << 20, 4, 1)
    data = dataset.write(str(tmp_path), blocks, 1, time.monotonic() + 60.0, apart=True)
    assert data.apart and len(data.paths) == len(data.blocks) == (24 << 20) // size
    for block in data.blocks:
        assert block.offset == 0 and os.path.getsize(data.paths[block.file]) == block.read_bytes
    assert sum(block.samples for block in data.blocks) == pytest.approx(len(data.blocks))
    assert sum(map(unwritten_bytes, data.paths)) == 0


def test_memory_that_the_file_system_does_not_read_into_gives_way_to_other_memory(tmp_path: Path) -> None:
    data = dataset.write(str(tmp_path), plan_blocks(131_072, 0, 1000, 8 << 20, 2, 1), 1, time.monotonic() + 30.0)
    source, block = FileSource(data), data.blocks[0]
    assert data.direct, "this file system has no O_DIRECT"

    def fits(buffer: Buffer) -> bool:
        try:
            return source.read(block, buffer) == block.read_bytes
        except OSError:
            return False

    def askew(size: int, count: int) -> list[Buffer]:
        return [buffer[1:] for buffer in make_buffers(size + 1, count)]

    def refused(_size: int, _count: int) -> list[Buffer]:
        raise RuntimeError("cudaHostRegister answers 801")

    def chosen(**ways: Callable[[int, int], Sequence[Buffer]]) -> str:
        return first_that_fits(ways, block.read_bytes, 2, fits)[0]

    assert chosen(pinned=make_buffers, registered=refused) == "pinned"
    assert chosen(pinned=askew, registered=make_buffers, pageable=make_buffers) == "registered"
    assert chosen(pinned=askew, registered=refused, pageable=make_buffers) == "pageable"
    with pytest.raises(RuntimeError, match="801"):
        chosen(pinned=refused)
    source.close()


def test_what_there_was_no_time_to_write_is_not_read(tmp_path: Path) -> None:
    blocks = plan_blocks(JPEG, 0, 1, 32 << 20, 4, 1)
    data = dataset.write(str(tmp_path), blocks, 1, deadline=0.0, apart=True)
    assert len(blocks) > len(data.blocks) == len(data.paths) == len(os.listdir(tmp_path))
    assert (32 << 20) / 8 <= data.bytes < 32 << 20
    assert {block.file for block in data.blocks} == set(range(len(data.paths)))


def test_each_read_of_a_file_of_its_own_opens_it(tmp_path: Path) -> None:
    """Counted by strace: what the opening costs a file server is part of the figure."""
    spec = json.dumps(specification(tmp_path, sample_bytes=JPEG, data_bytes=8 << 20, schedule=[SHORT[2]]))
    log = tmp_path / "opens"
    argv = ["strace", "-f", "-e", "trace=openat", "-o", str(log), sys.executable, "-m", "probes.feed.load.main", spec]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    (arm,) = [r for r in map(json.loads, done.stdout.splitlines()) if r.get("kind") == "arm"]
    opened = sum("/data." in line and "O_RDONLY|O_DIRECT" in line for line in log.read_text().splitlines())
    assert arm["read_bytes"] > 0 and arm["own_device_bytes"] >= 0.98 * arm["read_bytes"]
    assert opened >= arm["read_bytes"] // (-(-JPEG // 4096) * 4096)


def test_pieces_of_large_samples_add_up_to_whole_ones() -> None:
    blocks = plan_blocks(14_660_062, 6_834_180, 1, 512 << 20, 4, 1)
    assert sum(block.samples for block in blocks) == pytest.approx((512 << 20) // 14_660_062, rel=1e-6)
    assert sum(block.read_bytes for block in blocks) / sum(b.samples for b in blocks) == pytest.approx(
        14_660_062, rel=0.01
    )
