"""A file system over the network, without a block device: its cold reads are witnessed by the bytes that came in.

A real one: sshfs over a veth pair, to an sshd in a network namespace, whose port is shaped to a known rate.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.model import Measurement
from probes.feed.parse import Parsed, parse
from tests.fleet.testbed import Testbed, standing
from tests.probes.feed.conftest import BATCH, DEMAND, FAST, ROOT, SAMPLE, SHORT, specification

#: A quarter of what the other tests demand: slow enough that ssh has time for its ciphers on a busy machine.
_BATCH, _DEMAND = BATCH // 4, DEMAND / 4
_MBIT = 8.0 * 0.5 * _DEMAND * SAMPLE / 1e6
_MOUNTED = """
trap 'kill $held 2>/dev/null; fusermount3 -u -z "$1"' EXIT
sshfs -o "$2" "$3" "$1" || exit
[ -z "$6" ] || { "$4" -m tests.probes.feed.held_in_memory "$6" & held=$!; sleep 2; }
"$4" -m probes.feed.load.main "$5"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Testbed]:
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse: this kernel has no FUSE")
    with standing(1) as testbed:
        yield testbed


def fed(server: Testbed, held: Path | None = None, **changes: Any) -> str:
    """What the load program says of that mount; ``held`` is a file on it that the page cache must keep."""
    mount, exported = (server.folder / name for name in ("mount", "exported"))
    if not held:  # what an attempt that was ended has left
        shutil.rmtree(exported, ignore_errors=True)
    for place in (mount, exported):
        place.mkdir(exist_ok=True)
    options = [
        f"IdentityFile={server.folder}/id", f"UserKnownHostsFile={server.folder}/known_hosts", "BatchMode=yes",
        "sftp_server=/usr/lib/openssh/sftp-server", "kernel_cache" if held else "direct_io",
    ]  # fmt: skip
    spec = json.dumps(specification(mount, data_bytes=32 << 20, **changes))
    words = [
        str(mount),
        ",".join(options),
        f"root@{server.address(1)}:{exported}",
        sys.executable,
        spec,
        str(held or ""),
    ]
    done = server.controller(["sh", "-c", _MOUNTED, "_", *words], PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    return done.stdout


def total(parsed: Parsed) -> Measurement:
    (found,) = [m for m in parsed.measurements if m.metric == "starvation_ratio" and m.labels["component"] == "total"]
    return found


def test_a_shaped_network_starves_by_what_it_withholds(server: Testbed) -> None:
    server.shape(1, _MBIT)
    rounds = (
        total(parse(fed(server, schedule=FAST[:4], batch=_BATCH, demand=_DEMAND), "/mnt", "test")) for _ in range(3)
    )
    found = next((one for one in rounds if one.invalid is None), None)  # as the product does where a host was busy
    assert found is not None
    assert found.value == pytest.approx(0.5, abs=0.05)  # ssh and TCP take their part of the port's rate
    assert not os.listdir(server.folder / "mount")


def test_what_the_clients_cache_answers_is_not_cold(server: Testbed) -> None:
    """Pages locked into memory are read again and again, and the network carries nothing."""
    server.shape(1, 10_000.0)
    exported = server.folder / "exported"
    exported.mkdir(exist_ok=True)
    (exported / "data").write_bytes(os.urandom(32 << 20))
    file = server.folder / "mount" / "data"
    found = total(parse(fed(server, held=file, files=[str(file)], buffered=True, schedule=SHORT), "/mnt", "test"))
    assert found.invalid is not None and "not_cold: only 0%" in found.invalid
