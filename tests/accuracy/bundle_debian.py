"""Claim: the bundle measures, judges and reports in a fresh Debian 12 that has Python and torch, and no network.

The Debian is made by debootstrap (root; some minutes, 260 MB below /var/tmp, removed afterwards) from the mirror that
apt has here, for this Python's version. It sees torch and what torch requires by read-only mounts, and of fio and
iperf3 only those in the bundle. The start of ``--help`` is timed beside the same product as pip installs it, in turn.
A bundle for the other processor must hold that one's binaries only.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

from tests.test_bundle import built, torch_alone

RELEASE, PYTHON = "bookworm", (3, 11)
MIRROR = "http://deb.debian.org/debian"
MACHINES = {62: "x86_64", 183: "aarch64"}  # elf.h: EM_X86_64, EM_AARCH64
ROUNDS = 11
#: What a node without peer or GPU is told: it cannot be decided, or a limit is broken.
NO_GO_OR_UNDECIDED = (1, 3)
#: In namespaces of their own: mounts, no network but the loopback, and processes that end with it.
ENTER = """
root=$1 torch=$2; shift 2
ip link set lo up
for top in "$torch"/*; do
    at=$root/usr/local/lib/python3.11/dist-packages/${top##*/}
    if [ -d "$top" ]; then mkdir -p "$at"; else touch "$at"; fi
    mount --bind -o ro "$(readlink -f "$top")" "$at"
done
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""


def main() -> int:
    if os.geteuid() != 0 or sys.version_info[:2] != PYTHON or shutil.which("debootstrap") is None:
        print("needs root, debootstrap, and Python 3.11, which is Debian 12's")
        return 1
    with tempfile.TemporaryDirectory(prefix="aiready-debian-", dir="/var/tmp") as name:
        place = Path(name)
        (place / "torch").mkdir()
        torch_alone(place / "torch")
        root = debian(place / "root")
        bundle = Path(shutil.copy(built(place / "out"), root / "root" / "bench.pyz"))
        wrong = report(root, place / "torch", bundle.stat().st_size)
        other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
        found = machines(built(place / "other", "3.12", other))
        print(f"for {other}, Python 3.12: binaries of {found}")
        return wrong + (set(found) != {other})


def machines(bundle: Path) -> Counter[str]:
    """How many binaries it has, by their ELF header's machine."""
    with ZipFile(bundle) as archive:
        heads = [archive.read(name)[:20] for name in archive.namelist()]
    found = (int.from_bytes(head[18:20], "little") for head in heads if head.startswith(b"\x7fELF"))
    return Counter(MACHINES.get(number, f"machine {number}") for number in found)


def debian(root: Path) -> Path:
    argv = ["debootstrap", "--variant=minbase", "--include=python3", RELEASE, str(root), mirror()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return root


def mirror() -> str:
    """Where apt has this release from."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {RELEASE}", "Component: main"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return found[0] if found else MIRROR


def inside(root: Path, torch: Path, words: Sequence[str]) -> tuple[subprocess.CompletedProcess[str], float]:
    argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh", root, torch]
    began = time.perf_counter()
    done = subprocess.run([*map(str, argv), *words], capture_output=True, text=True, timeout=400, check=False)
    return done, time.perf_counter() - began


def report(root: Path, torch: Path, size: int) -> int:
    """The table: what was typed, how it ended, how long it took."""
    file, wrong = ["python3", "/root/bench.pyz"], 0
    print(f"bundle: {size / 1e6:.0f} MB\n{'command':58} {'status':>6} {'s':>6}")
    for words, statuses, holds in COMMANDS:
        done, seconds = inside(root, torch, [*file, *words])
        held = done.returncode in statuses and holds(done.stdout)
        wrong += not held
        print(f"{' '.join(words):58} {done.returncode:6} {seconds:6.1f}{'' if held else '   not as it should'}")
        if not held:
            print((done.stdout[-1500:] + done.stderr[-1500:]).strip())
    packed, installed = [*file, "--help"], ["python3", "-m", "bench", "--help"]
    (site,) = (root / "root/.shiv").glob("*/site-packages")
    installed = ["env", f"PYTHONPATH=/{site.relative_to(root)}", *installed]
    pairs = [(inside(root, torch, packed)[1], inside(root, torch, installed)[1]) for _ in range(ROUNDS)]
    ratio = statistics.median(one / other for one, other in pairs)
    one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"--help: {one:.2f} s, {other:.2f} s as installed, {ratio:.2f} times (medians of {ROUNDS} in turn)")
    return int(wrong > 0)


def measured(text: str) -> bool:
    """Everything that such a node can measure, by the bundle's own fio and iperf3."""
    ended = {result["probe"]: result["outcome"] for result in json.loads(text)["results"]}
    return {ended[probe] for probe in ("storage", "inference", "network", "feed", "host")} == {"ok"}


def ready(text: str) -> bool:
    found = {check["name"]: check["ok"] for check in json.loads(text)["checks"]}
    return all(found[name] for name in ("fio", "iperf3", "inference", "endpoint"))


COMMANDS = (
    (("doctor", "--json"), (0, 3), ready),
    (("run", "--effort", "quick", "--storage", "/root", "--no-quiet-check", "--json"), NO_GO_OR_UNDECIDED, measured),
    (("gate", "--json"), NO_GO_OR_UNDECIDED, lambda text: len(json.loads(text)["verdicts"]) == 3),
    (("report", "-o", "/root/page.html"), (0,), lambda text: True),
    (("export", "-f", "openmetrics"), (0,), lambda text: text.endswith("# EOF\n")),
)


if __name__ == "__main__":
    sys.exit(main())
