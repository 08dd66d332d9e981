"""Is the data fit to be used? A random sample of a data set as it lies on storage, each sample read cold and decoded.

Two shares, each with an exact binomial bound: *valid* (decodes whole, is as its schema and checksum say, not empty, not
cut off, no duplicate of another) and *documented* (a Croissant file, a data package or a data contract names its file,
and each of its fields with a type). Samples are drawn until the shares are clear of the limit. An SRE who hands over a
data set, or takes one, sees which samples would stop or spoil a training run, and who else can read them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from bench.measure import budget
from bench.measure.probe import Check, Context, Option, Probe, ProbeError, Skipped, Tools
from bench.model import Code, Measurement, Request, Source
from probes.common.metrics import Between, metrics
from probes.data import plan

MODULE = "probes.data.load.survey"
_END_SECONDS = 60.0  # after its time: one sample may take 20 s and its checksum as long, and what was read is parsed
_IDENTIFY_SECONDS = 300.0
_PACKAGES = {"PIL": "pillow", "pyarrow": "pyarrow", "yaml": "PyYAML"}

METRICS = metrics(
    ("data_valid_ratio", "Share of samples that decode whole and are as declared", "", "higher"),
    ("data_documented_ratio", "Share of samples whose file and typed fields a description names", "", "higher"),
    ("data_samples_per_second", "Samples a second that one process read cold and decoded", "", "higher"),
    ("data_bytes_per_second", "Bytes a second that one process read cold and decoded", "", "higher"),
    ("data_decode_bytes_per_second", "Bytes on storage that one core decodes in a second of its time, reading left out",
     "", "higher"),
    ("data_available_cores", "CPU cores that may decode here: affinity, and the quotas of the control groups", "",
     "none"),
    ("data_decode_headroom_ratio",
     "What those cores decode of the data set over what one accelerator demands (as the feed measured it)",
     "stand_in accelerator", "higher"),
    ("data_files", "Files of known formats in the data set", "", "none"),
    ("data_samples", "Samples in the data set, by headers and footers, or estimated from them", "", "none"),
    ("data_faults", "Samples drawn that are not valid, by what is wrong with them", "fault", "lower"),
    ("data_fault_info", "One sample that is not valid: its file, its place and why; at most 100 are named",
     "file at fault", "none"),
    ("data_info", "What the data is known by: digests of its inventory, of the ends of 64 files, of its description",
     "inventory* content* description*", "none"),
    ("data_access_gaps", "1 where the check finds a gap: others read or write, unencrypted, unaudited, devices, setuid",
     "check", "lower"),
    ("data_access_info", "Who owns the data set, and what protects it", "owner* group* mode* access_list* encrypted*",
     "none"),
    first="data", over_one="data_decode_headroom_ratio",
    between=Between("Our choice: as storage, which they stand on, and the decoder's CPU", {
        "samples_per_second": 0.10, "bytes_per_second": 0.10, "data_decode_headroom_ratio": 0.10}),
)  # fmt: skip


def measure(ctx: Context) -> Sequence[Measurement]:
    """Each data set in turn. One that cannot be looked at is told as a warning, if another could."""
    sets = ctx.option("data")
    if sets is None:
        raise Skipped(Code.NOT_ASKED_FOR, "no data set was named (--data DIR)")
    return ctx.each(sets, lambda number, data: _survey(ctx, data, number, ctx.seconds / len(sets)))


def _survey(ctx: Context, data: str, number: int, seconds: float) -> list[Measurement]:
    from probes.data.events import NONE, read
    from probes.data.parse import IDENTITY, audited, doubts, lines, parse

    ctx.progress(f"reading samples of {data}", None)
    words = {
        "seconds": seconds, "limit": ctx.option("limit"), "most": plan.MOST[ctx.effort], "seed": ctx.seed + number,
        "whole-samples": plan.WHOLE_SAMPLES[ctx.effort], "whole-bytes": plan.WHOLE_BYTES[ctx.effort],
        "checksum-bytes": plan.CHECKSUM_BYTES[ctx.effort],
    }  # fmt: skip
    arguments = [word for name, value in words.items() for word in (f"--{name}", f"{value}")]
    timeout = min(max(1.0, ctx.remaining() - 1.0), seconds + _END_SECONDS)
    with ctx.stage("data"):
        done = ctx.tools.python(MODULE, data, *arguments, name=f"survey-{number}", timeout=timeout)
    events = read(done.stdout, cut=done.returncode != 0)
    for text in doubts(events, data):
        ctx.warn(text)
    found = [*parse(events, data), *audited(_audit_rules(ctx), data)]
    if (clock := ctx.clock()) is not None:
        ctx.series += lines(events, data, clock)
    for one in (m.labels for m in found if m.metric == IDENTITY):
        known = ((name, one[name]) for name in ("inventory", "content", "description") if one[name] != NONE)
        ctx.sources += [Source(kind=f"data_{name}", name=data, sha256=digest) for name, digest in known]
    return found


def _audit_rules(ctx: Context) -> str | None:
    """The kernel's audit rules as auditctl lists them, which takes root; None where nobody says."""
    try:
        done = ctx.tools.run([ctx.tools.require("auditctl"), "-l"], name="audit", timeout=10.0)
    except ProbeError:
        return None
    return done.stdout if done.returncode == 0 else None


def changed(tools: Tools, then: Sequence[Measurement], data: str) -> str | None:
    """What of a data set is not as a run measured it; None where all is. Raises ProbeError."""
    from probes.data.events import read
    from probes.data.parse import IDENTITY
    from probes.data.parse import changed as compared

    known = (m.labels["data"] for m in then if m.metric == IDENTITY)
    data = next((one for one in known if os.path.realpath(one) == os.path.realpath(data)), data)
    done = tools.python(MODULE, data, "--identify", name="identify", timeout=_IDENTIFY_SECONDS)
    return compared(then, read(done.stdout, cut=done.returncode != 0), data)


def doctor(tools: Tools, request: Request) -> Sequence[Check]:
    """Which formats can be decoded here."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        return [Check("data", False, f"{', '.join(missing)} not installed: those formats cannot be read", plan.INSTALL)]
    return [Check("data", True, "Parquet, Arrow, tar, JSON lines, CSV, safetensors, NumPy, JPEG, PNG, WAV")]


PROBE = Probe(
    name="data",
    help="A random sample of each --data set: is it valid, is it documented, who can reach it.",
    metrics=METRICS,
    seconds=budget.DATA,
    measure=measure,
    doctor=doctor,
    order=15,
    guards_itself=True,
    options=(
        Option("data", "Data sets, as a JSON list of directories or descriptions", plan.sets, check=plan.there,
               typed=plan.sets),
        Option("limit", "The share at which a survey may stop once it is clear", float, default=0.95,
               affects_comparability=False),
    ),
    needs="data",
    changed=changed,
    once=True,
    facts=("mounts",),
)  # fmt: skip
