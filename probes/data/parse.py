"""What a survey printed, as measurements: shares with exact binomial bounds, rates, faults by kind, access. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TypeVar

from bench.judge.statistics import median_interval
from bench.measure.probe import Failed, Unsupported
from bench.model import Code, Measurement, Series, code_of
from bench.units import human
from probes.common.looks import Looks
from probes.common.metrics import figure, of_repeats
from probes.common.time_lines import rate_of
from probes.data.events import Access, Described, Drawn, Ended, Event, Found, Identity, Look, Refused
from probes.data.plan import INSTALL

IDENTITY = "data_info"
_WORDS = {"inventory": "its files or their sizes", "content": "what is in its files", "description": "its description"}
_PARTS = 10
_NAMED = 100  # faults that a run names, each with its place
E = TypeVar("E", bound=Event)


def parse(events: Sequence[Event], data: str) -> list[Measurement]:
    """The measurements of one data set. Raises Unsupported, Failed."""
    labels = {"data": data[:500]}
    if refused := _of(events, Refused):
        code = Code.EMPTY if refused[0].word == "empty" else Code.UNUSABLE
        raise Unsupported(code, f"{data}: {refused[0].text}", "--data DIR: a directory with the data set")
    samples, ended = _of(events, Drawn), _of(events, Ended)
    if not samples or not ended:
        raise Failed(Code.TOOL_OUTPUT, f"{data}: the survey did not come to its end")
    if (why := _unread(samples)) and not (samples := _read(samples)):
        raise Unsupported(Code.PACKAGE_MISSING, f"{data}: {why}", INSTALL)
    found = [*_shares(samples, ended[0], events, labels), *_rates(_of(events, Look), labels)]
    found += [*_decoding(samples, ended[0], labels), *_faults(samples, labels)]
    found += [figure(IDENTITY, 1.0, {**labels, **asdict(one)}) for one in _of(events, Identity)]
    for one in _of(events, Found):
        found.append(figure("data_files", one.files, labels))
        found.append(figure("data_samples", one.samples, labels))
    return found + [m for one in _of(events, Access) for m in _access(one, labels)]


def lines(events: Sequence[Event], data: str, clock: float) -> list[Series]:
    """Samples a second of a survey, on the clock that began at ``clock``."""
    began = [ended.began for ended in _of(events, Ended) if ended.began > 0]
    looked = [(at - clock + one.seconds, 1.0) for at in began for one in _of(events, Drawn)]
    return rate_of("data_samples_per_second", looked, data=data[:500])


def _of(events: Sequence[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def _read(samples: Sequence[Drawn]) -> list[Drawn]:
    """The samples that were looked at: no package was missing for them."""
    return [sample for sample in samples if code_of(sample.fault) is not Code.PACKAGE_MISSING]


def _unread(samples: Sequence[Drawn]) -> str | None:
    """Which packages are missing, and how many samples were not read for that; None for none."""
    why = {(s.fault or "").partition(": ")[2] for s in samples if code_of(s.fault) is Code.PACKAGE_MISSING}
    return f"{', '.join(sorted(why))}, so {len(samples) - len(_read(samples))} samples were not read" if why else None


def _unseen(events: Sequence[Event]) -> str | None:
    """Why the shares are not those of the set: a package is missing, or most of its bytes are of other formats."""
    if why := _unread(_of(events, Drawn)):
        return f"{why}: {INSTALL}"
    most = any(found.unseen > found.bytes for found in _of(events, Found))
    return "most of its bytes are in files that no decoder is known for" if most else None


def _shares(
    samples: Sequence[Drawn], ended: Ended, events: Sequence[Event], labels: dict[str, str]
) -> Iterator[Measurement]:
    """With the interval at which the drawing stopped; a set that was looked at as a whole has no doubt."""
    n, looks, unseen = len(samples), Looks(ended.most), _unseen(events)
    described = any(one.standard for one in _of(events, Described))
    unread = next((one.wrong for one in _of(events, Described) if code_of(one.wrong) is Code.PACKAGE_MISSING), None)

    def share(metric: str, k: int, invalid: str | None) -> Measurement:
        interval = None if ended.why == "whole" else looks.interval(k, n)
        return figure(metric, k / n, labels, interval, n, invalid)

    yield share("data_valid_ratio", sum(sample.fault is None for sample in samples), unseen)
    documented = sum(sample.undocumented is None for sample in samples)
    yield share("data_documented_ratio", documented, unseen if described else unread)


def _rates(looks: Sequence[Look], labels: dict[str, str]) -> Iterator[Measurement]:
    if looks:
        yield of_repeats("data_samples_per_second", [look.samples_per_second for look in looks], labels)
        yield of_repeats("data_bytes_per_second", [look.bytes_per_second for look in looks], labels)


def _decoding(samples: Sequence[Drawn], ended: Ended, labels: dict[str, str]) -> Iterator[Measurement]:
    """What a core decodes: bytes over CPU seconds of ten parts of the sound samples, the median.

    In one of them a decoder was loaded first, which is no part of its rate.
    """
    sound = [one for one in samples if one.fault is None and one.decoded_bytes > 0 and one.decode_seconds > 0]
    if sound:
        parts = [_rate(sound[n::_PARTS]) for n in range(min(_PARTS, len(sound)))]
        value, interval = median_interval(parts)
        yield figure("data_decode_bytes_per_second", value, labels, interval, len(sound))
    if ended.cores > 0:
        yield figure("data_available_cores", ended.cores, labels)


def _rate(samples: Sequence[Drawn]) -> float:
    return sum(one.decoded_bytes for one in samples) / sum(one.decode_seconds for one in samples)


def _faults(samples: Sequence[Drawn], labels: dict[str, str]) -> Iterator[Measurement]:
    """How many of each kind, and the first hundred by name."""
    faulty = [(sample, sample.fault) for sample in samples if sample.fault is not None]
    for word, times in sorted(Counter(fault.partition(": ")[0] for _, fault in faulty).items()):
        yield figure("data_faults", times, {**labels, "fault": word[:100]}, n=len(samples))
    for sample, fault in faulty[:_NAMED]:
        where = {"file": sample.file[:500] or "?", "at": sample.at[:500], "fault": fault[:500]}
        yield figure("data_fault_info", 1.0, {**labels, **where})


def _access(one: Access, labels: dict[str, str]) -> Iterator[Measurement]:
    """A gap is 1, its absence 0; what the kernel does not say is neither."""
    gaps = {
        "others_read": one.others_read,
        "others_write": one.others_write,
        "unencrypted": None if one.encrypted is None else one.encrypted == "no",
        "devices_allowed": "nodev" not in one.options,
        "setuid_allowed": "nosuid" not in one.options,
    }
    for check, gap in gaps.items():
        if gap is not None:
            yield figure("data_access_gaps", float(gap), {**labels, "check": check})
    told = {"owner": one.owner, "group": one.group, "mode": one.mode, "access_list": one.access_list}
    yield figure("data_access_info", 1.0, {**labels, **told, "encrypted": one.encrypted or "unknown"})


_WATCHED = re.compile(r"(?:^|\s)(?:-w\s+|-F\s+(?:dir|path)=)(\S+)")
_RIGHTS = re.compile(r"(?:^|\s)(?:-p\s+|-F\s+perm=)([rwxa]+)")


def audited(rules: str | None, data: str) -> Iterator[Measurement]:
    """Whether a rule of auditctl(8) has reads of the set recorded; nothing where the rules are not known."""
    if rules is None:
        return
    covering = [line for line in rules.splitlines() for path in _WATCHED.findall(line) if _inside(data, path)]
    reads = any("r" in (_RIGHTS.findall(line) or ["rwxa"])[0] for line in covering)
    yield figure("data_access_gaps", float(not reads), {"data": data[:500], "check": "unaudited"})


def _inside(data: str, path: str) -> bool:
    return data == path or data.startswith(path.rstrip("/") + "/")


def doubts(events: Sequence[Event], data: str) -> Iterator[str]:
    """What a reader of the shares should know, one sentence each."""
    drawn = _of(events, Drawn)
    samples = _read(drawn)
    yield from _of_description(_of(events, Described), data)
    if why := _unread(drawn):
        yield f"{data}: {why}: {INSTALL}"
    for found in _of(events, Found):
        if found.other:
            kinds = ", ".join(f"{times} of {suffix}" for suffix, times in list(found.other.items())[:5])
            yield f"{data}: files that no decoder is known for were not looked at: {kinds}"
        if found.unlisted:
            yield f"{data}: {found.unlisted} folders cannot be listed by this user: what is in them was not looked at"
        if found.linked:
            yield f"{data}: {found.linked} links to folders are not followed: name what they lead to with --data too"
    for ended in _of(events, Ended):
        if ended.why != "whole":
            yield f"{data}: duplicates were looked for among the {len(samples)} samples drawn, not in the whole set"
        if ended.unchecked:
            yield f"{data}: {ended.unchecked} files are too large for their checksums to be held against them here"
    if faulty := [sample for sample in samples if sample.fault]:
        share = human(len(faulty) / len(samples), "data_valid_ratio")
        where = f"in {len({sample.file for sample in faulty})} files"
        first = f"{faulty[0].file} {faulty[0].at}: {faulty[0].fault}"
        yield f"{data}: {len(faulty)} of {len(samples)} samples ({share}), {where}, are not valid: {first}"


def changed(then: Sequence[Measurement], now: Sequence[Event], data: str) -> str | None:
    """What of the data is not as the run measured it, in one sentence; None where all is. Raises Failed."""
    known = [m.labels for m in then if m.metric == IDENTITY and m.labels["data"] == data[:500]]
    if not known:
        there = ", ".join(m.labels["data"] for m in then if m.metric == IDENTITY) or "none"
        raise Failed(Code.NOT_MEASURED, f"the run did not measure {data}; it measured {there}")
    if refused := _of(now, Refused):
        return f"{data}: {refused[0].text}"
    found = ((name, digest) for one in _of(now, Identity) for name, digest in asdict(one).items())
    words = [_WORDS[name] for name, digest in found if known[0][name] != digest]
    return f"{data} has changed since it was measured: {', '.join(words)}" if words else None


def _of_description(descriptions: Sequence[Described], data: str) -> Iterator[str]:
    for one in descriptions:
        if one.wrong:
            yield f"{data}: its description {one.file} cannot be used: {one.wrong}"
        elif one.lacking:
            yield f"{data}: {one.file} lacks {', '.join(one.lacking)}, which {one.standard} asks for"
    if not any(one.standard for one in descriptions):
        yield f"{data}: no description of it was found (Croissant, a data package or a data contract)"
