"""What runs on a node: a POSIX shell script that needs no more than coreutils, gzip, and the command it is given.

Each job takes a claim, a folder that only one can make, so that no job runs twice on a machine whatever the controller
does; it is bounded by ``timeout(1)`` there; its output goes into a file first, so that a lost connection loses
nothing; and it is printed in a frame with its length and digest, so that a banner or a torn line is not a result.
Nothing secret is in a script: it can be read in the node's process list.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from bench.store.documents import MAX_BYTES

CLAIMED = 75  # EX_TEMPFAIL of sysexits.h
TIMED_OUT = frozenset({124, 137})  # timeout(1), and what its KILL leaves
KILL_AFTER_SECONDS = 10
_CLAIM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_KEEP_DAYS = 7
#: A run of 32 MiB of text packs to a few; what does not is no run, and would fill the controller's memory.
MOST_PACKED_BYTES = 4 << 20

#: Our folder on a node, ``$b``. The first line ends what the login may have printed without an end.
BASE = """\
echo
umask 077
b=/var/tmp/aiready-bench-$(id -u)
[ -e "$b" ] || mkdir -m 700 "$b" || [ -d "$b" ] || exit 74
if [ -L "$b" ] || [ ! -d "$b" ] || [ ! -O "$b" ]; then echo "$b is not a folder of ours" >&2; exit 74; fi
"""
_HEAD = """\
d="$b/@CLAIM@"
born() { cut -d' ' -f22 "/proc/$1/stat" 2>/dev/null; }
frame() {
  sum=$(sha256sum <"$d/out" | cut -d' ' -f1)
  printf 'AIREADY %s %s %s %s\\n' '@CLAIM@' "$(cat "$d/rc")" "$sum" "$(wc -c <"$d/out")"
  head -c @MOST@ "$d/out" | gzip -c >"$d/gz"
  if [ "$(wc -c <"$d/gz")" -gt @PACKED@ ]; then echo 'AIREADY-TOO-LARGE'; else base64 "$d/gz"; fi
  printf 'AIREADY-STDERR %s\\n' "$(tail -c 600 "$d/err" | base64 | tr -d '\\n')"
  echo 'AIREADY-END @CLAIM@'
}
"""
_CLAIM_IT = """\
find "$b" -mindepth 1 -maxdepth 1 -type d -mtime +@DAYS@ -exec rm -rf {} + 2>/dev/null
mkdir "$d" 2>/dev/null || { [ -d "$d" ] && exit 75; mkdir "$d"; exit 74; }
cd "$d" || exit 74
"""
_RUN = """\
echo "$$ $(born $$)" >pid || { echo "nothing can be written to $d" >&2; exit 74; }
@ENV@sleep @DELAY@
timeout -k @KILL@ @LIMIT@ sh -c @COMMAND@ >out 2>err </dev/null
echo $? >rc.part && mv rc.part rc
frame
"""
_COLLECT = """\
[ -d "$d" ] || { echo 'AIREADY-NONE @CLAIM@'; exit 0; }
alive() { [ ! -f "$d/rc" ] && read -r p s <"$d/pid" 2>/dev/null && [ "$(born "$p")" = "$s" ]; }
n=0; while alive && [ $n -lt @WAIT@ ]; do sleep 1; n=$((n+1)); done
if [ -f "$d/rc" ]; then frame; elif alive; then echo 'AIREADY-RUNNING @CLAIM@'; else echo 'AIREADY-DIED @CLAIM@'; fi
"""
_END_OLD = """\
for old in "$b/@FAMILY@."*/pid; do
  read -r p s <"$old" && [ "$(born "$p")" = "$s" ] && kill "$p" && sleep 0.5
done 2>/dev/null
"""
_SERVE = """\
@ENV@setsid timeout -k @KILL@ @LIMIT@ sh -c @COMMAND@ >out 2>&1 </dev/null &
echo "$! $(born $!)" >"$d/pid"
n=0; while [ $n -lt @WAIT@ ]; do
  grep -q @READY@ out && { echo 'AIREADY-SERVING @CLAIM@'; exit 0; }
  kill -0 $! 2>/dev/null || break
  sleep 0.2; n=$((n+1))
done
kill $! 2>/dev/null
tail -c 600 out >&2; exit 1
"""
CONTACT = """\
echo
printf 'AIREADY-NODE %s %s %s\\n' "$(uname -n)" "$(cat /etc/machine-id 2>/dev/null | sha256sum | cut -c1-16)" \
"$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -)"
@PYTHON@ -c 'import sys, os; print("AIREADY-PYTHON", "%d.%d" % sys.version_info[:2], os.uname()[4])' 2>/dev/null
@PYTHON@ -c 'import bench; print("AIREADY-BENCH", bench.__version__)' 2>/dev/null
exit 0
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """A job's own end on the node: its status, what it printed, the end of its standard error."""

    rc: int
    out: bytes
    stderr: str


class BadResult(Exception):
    """What the node printed is not the one result that was expected; ``twice`` when there are several."""

    def __init__(self, reason: str, twice: bool = False) -> None:
        super().__init__(reason)
        self.twice = twice


def run(claim: str, command: str, limit: float, env: Mapping[str, str], delay: float = 0.0) -> str:
    """Take the claim, run ``command`` (a line for sh; ``$PWD`` is the job's folder) for at most ``limit`` seconds."""
    return _script(BASE + _HEAD + _CLAIM_IT + _RUN, claim, LIMIT=f"{limit:g}", COMMAND=shlex.quote(command),
                   ENV=_exports(env), DELAY=f"{delay:.0f}")  # fmt: skip


def collect(claim: str, wait: float = 0.0) -> str:
    """The frame of a job that has ended; waits on the node for one that has not, at most ``wait`` seconds."""
    return _script(BASE + _HEAD + _COLLECT, claim, WAIT=f"{wait:.0f}")


def serve(claim: str, command: str, ready: str, limit: float, env: Mapping[str, str], wait: float = 20.0) -> str:
    """Leave a server running, at most ``limit`` seconds, that has printed ``ready``. One that a killed controller
    left, whose claim differs only behind the last dot, is ended first.
    """
    text, family = BASE + _HEAD + _END_OLD + _CLAIM_IT + _SERVE, claim.rpartition(".")[0]
    return _script(text, claim, LIMIT=f"{limit:g}", COMMAND=shlex.quote(command), ENV=_exports(env),
                   READY=shlex.quote(ready), FAMILY=family, WAIT=f"{wait * 5:.0f}")  # fmt: skip


def stop(family: str) -> str:
    """End every server whose claim begins so, if it is still the process that was started."""
    return _script(BASE + _HEAD + _END_OLD + "exit 0\n", family, FAMILY=family)


def contact(python: str) -> str:
    """What the node calls itself, which machine it is, and which version of the product is installed there."""
    return CONTACT.replace("@PYTHON@", shlex.quote(python))


def _script(text: str, claim: str, **words: str) -> str:
    if not _CLAIM.fullmatch(claim):
        raise ValueError(f"not a claim: {claim!r}")
    words |= {"CLAIM": claim, "MOST": str(MAX_BYTES + 1), "PACKED": str(MOST_PACKED_BYTES),
              "KILL": str(KILL_AFTER_SECONDS), "DAYS": str(_KEEP_DAYS)}  # fmt: skip
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)


def _exports(env: Mapping[str, str]) -> str:
    """``export`` lines. Names that could hold a secret never come here: see `bench.fleet.plan.checked_env`."""
    for name in env:
        if not VARIABLE.fullmatch(name):
            raise ValueError(f"not a variable's name: {name!r}")
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())


def parse(stdout: str, claim: str) -> Frame:
    """The one frame of that claim. Raises BadResult with what is wrong."""
    lines = stdout.replace("\r", "").split("\n")
    heads = [i for i, line in enumerate(lines) if line.startswith(f"AIREADY {claim} ")]
    if not heads:
        shown = " ".join(stdout.split())[:120]
        raise BadResult(f"no result among what it printed: {shown!r}" if shown else "it printed nothing")
    if len(heads) > 1:
        raise BadResult(f"it answered {len(heads)} times", twice=True)
    words = lines[heads[0]].split(" ")
    body = lines[heads[0] + 1 :]
    if f"AIREADY-END {claim}" not in body or len(words) != 5 or not words[2].isdigit() or not words[4].isdigit():
        raise BadResult("its answer is torn")
    body = body[: body.index(f"AIREADY-END {claim}")]
    if "AIREADY-TOO-LARGE" in body:
        raise BadResult("it printed more than any run is")
    errors = [line for line in body if line.startswith("AIREADY-STDERR ")]
    out = _unpacked("".join(line for line in body if not line.startswith("AIREADY-")))
    if int(words[4]) != len(out) or hashlib.sha256(out).hexdigest() != words[3]:
        raise BadResult("its answer is not what it measured: length or digest differ")
    complaint = decoded(errors[0].partition(" ")[2]) if errors else ""
    return Frame(int(words[2]) if len(words[2]) < 4 else 255, out, complaint)


def _unpacked(packed: str) -> bytes:
    """gunzip with a bound: a few kB may claim to be gigabytes."""
    try:
        unzip = zlib.decompressobj(wbits=31)
        out = unzip.decompress(base64.b64decode(packed, validate=True), MAX_BYTES + 1)
    except (ValueError, zlib.error) as error:
        raise BadResult("its answer is damaged") from error
    if len(out) > MAX_BYTES:
        raise BadResult(f"its answer is larger than {MAX_BYTES >> 20} MiB")
    return out


def decoded(packed: str) -> str:
    """The text that stands in base64; empty for what is none, so that whoever reads it says so."""
    try:
        return base64.b64decode(packed, validate=True).decode("utf-8", "replace")
    except ValueError:
        return ""


def marker(stdout: str, claim: str) -> str | None:
    """``NONE``, ``RUNNING``, ``DIED`` or ``SERVING`` if the node said that of the claim."""
    found = re.findall(rf"^AIREADY-(NONE|RUNNING|DIED|SERVING) {re.escape(claim)}\r?$", stdout, re.M)
    return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Contacted:
    """What a node says of itself before anything is measured."""

    hostname: str
    machine: str
    version: str | None
    python: str | None = None


def contacted(stdout: str) -> Contacted | None:
    """None when it is not the answer of `contact`."""
    node = re.search(r"^AIREADY-NODE (\S{1,255}) ([0-9a-f]{16}) (\S{1,64})\r?$", stdout, re.M)
    version = re.search(r"^AIREADY-BENCH (\S{1,64})\r?$", stdout, re.M)
    python = re.search(r"^AIREADY-PYTHON (\d+\.\d+ \S{1,40})\r?$", stdout, re.M)
    words = (found[1] if found else None for found in (version, python))
    return Contacted(node[1], f"{node[2]}/{node[3]}", *words) if node else None
