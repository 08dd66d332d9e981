"""What is there, in plain text: the probes with their metrics, the profiles with their gates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.judge.profile import Gate, Profile
from bench.measure.probe import Probe
from bench.show.text import clean, fold
from bench.show.wording import needed

_WIDTH = 100


def probes_table(found: Iterable[Probe], width: int = _WIDTH) -> str:
    """For each probe its help, then a line for each metric: name, unit, labels, help. Ends with a newline."""
    return "\n".join(line for probe in found for line in _probe(probe, width)).strip("\n") + "\n"


def profiles_table(found: Iterable[Profile], width: int = _WIDTH) -> str:
    """For each profile its description and its gates: limit, whether required, source. Ends with a newline."""
    return "\n".join(line for profile in found for line in _profile(profile, width)).strip("\n") + "\n"


def _probe(probe: Probe, width: int) -> Iterator[str]:
    yield from ("", *_hang(f"{probe.name}: {clean(probe.help)}", 0, width))
    for option in probe.options:
        yield from _hang(f"--option {probe.name}.{option.name}: {clean(option.summary)}", 2, width)
    for metric in probe.metrics:
        labels = f"  {{{', '.join(metric.labels)}}}" if metric.labels else ""
        yield from _hang(f"{metric.name}{labels}", 2, width)
        better = "" if metric.better == "none" else f"; {metric.better} is better"
        yield from _hang(f"{metric.unit or 'a count'}{better}: {clean(metric.help)}", 6, width)


def _profile(profile: Profile, width: int) -> Iterator[str]:
    yield from ("", *_hang(f"{clean(profile.name)}: {clean(profile.description)}", 0, width))
    for gate in profile.gates:
        yield from _hang(_gate(gate), 2, width)
        yield from _hang(clean(gate.source), 6, width)


def _gate(gate: Gate) -> str:
    labels = ", ".join(f"{key}={clean(value)}" for key, value in gate.labels.items())
    notes = ("" if gate.required else "  optional") + ("  a stand-in will do" if gate.accept_stand_in else "")
    return f"{gate.metric}{f' {{{labels}}}' if labels else ''}  {needed(gate.limit, gate.metric)}{notes}"


def _hang(text: str, indent: int, width: int) -> list[str]:
    first, *rest = fold(text, max(20, width - indent - 2))
    return [" " * indent + first, *(" " * (indent + 2) + line for line in rest)]
