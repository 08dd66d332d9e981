"""Over time: what accelerator, storage and network did in a run; a metric night after night."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from statistics import fmean

from bench.model import Run, Series
from bench.show.html.plots import SERIES, Axis, Line, Panel, Panels, Picture, Tick, axis, path, spanned
from bench.show.text import clean
from bench.show.wording import plural, title
from bench.units import human

_MOST_POINTS = 240
_MOST_PANELS = 8
_SECONDS = "elapsed_seconds"
_ASKED = ("endpoint_", "service_")  # metrics of who asked
#: What was seen of the whole run, a panel each, from the accelerator outwards: by the watchers, and by who asked.
_PANELS = {
    "accelerator, utilization": ("accelerator_utilization_ratio",),
    "accelerator, power": ("accelerator_power_watts",),
    "accelerator, memory in use": ("accelerator_memory_used_bytes",),
    "endpoint, tokens a second": ("inference_tokens_per_second",),
    "endpoint, slowest first token": ("inference_first_token_seconds",),
    "endpoint, requests that failed": ("endpoint_failed_requests",),
    "storage": ("host_disk_read_bytes_per_second", "host_disk_write_bytes_per_second"),
    "network": ("host_network_receive_bytes_per_second", "host_network_send_bytes_per_second"),
    "memory available": ("host_memory_available_bytes",),
    "service, slowest answer": ("service_response_seconds",),
    "service, requests that failed": ("service_failed_requests",),
    "data, samples a second": ("data_samples_per_second",),
}
_FED = ("feed_device_bytes_per_second", "feed_consumed_bytes_per_second")
_FED_SHARES = {"feed_utilization_ratio": "accelerator at work", "feed_pressure_ratio": "waits for I/O"}
_ROUND_TRIP = "network_round_trip_seconds"


def one_clock(run: Run) -> Picture | None:
    """Accelerator, storage, network, and what was asked, over the whole run; None without a time line."""
    groups = {name: [s for s in _series(run) if s.metric in metrics] for name, metrics in _PANELS.items()}
    known = [s for found in groups.values() for s in found]
    if not known:
        return None
    across = spanned(0.0, max(1.0, *(s.seconds[-1] for s in known)), _SECONDS, 6)
    turns = tuple(
        (across.at(first), across.at(last), number, f"{number} {name}, {first:.0f} to {last:.0f} s")
        for number, (name, first, last) in enumerate(_turns(known), 1)
    )
    panels = tuple(_panel(name, found, across, _line_name) for name, found in groups.items() if found)
    said = "Accelerator, storage and network on one clock: while one works, which of the others stand still?"
    if any(s.metric.startswith(_ASKED) for s in known):
        said = "On one clock: what accelerator, storage and network did when answers came late, or failed."
    return Picture(said, Panels(panels, across.ticks, "since the run began", turns))


def _series(run: Run) -> list[Series]:
    return [series for result in run.results for series in result.series if series.values]


def _turns(known: Sequence[Series]) -> list[tuple[str, float, float]]:
    """Which probe measured from when to when, by the watchers' lines of each turn."""
    seen = {(s.seconds[0], s.seconds[-1]): s.labels["stage"] for s in known if set(s.labels) == {"stage"}}
    return [(clean(name, 40), first, last) for (first, last), name in sorted(seen.items())]


def fed(run: Run) -> Picture | None:
    """What the device delivered and the accelerator consumed in each turn of the feed; None without one."""
    turns = [s for s in _series(run) if s.metric in _FED]
    if not turns:
        return None
    across = axis((s.seconds[-1] for s in turns), _SECONDS)
    several = len({series.labels.get("path") for series in turns}) > 1
    named = partial(_turn, with_path=several)
    by_turn: dict[str, list[Series]] = {}
    for series in turns:
        by_turn.setdefault(named(series), []).append(series)
    panels = [_panel(name, found, across, _fed_name) for name, found in by_turn.items()]
    for metric, name in _FED_SHARES.items():
        if shares := [s for s in _series(run) if s.metric == metric]:
            panels.append(_panel(name, shares, across, named))
    said = (
        "What the device delivered and the accelerator consumed: a rate that falls after the first seconds was credit."
    )
    body = Panels(tuple(panels[:_MOST_PANELS]), across.ticks, "since the turn began")
    return Picture(said, body)


def round_trip_lines(run: Run) -> Picture | None:
    """Round trips over time, a panel a peer and state; None without a time line."""
    found = [s for s in _series(run) if s.metric == _ROUND_TRIP][:_MOST_PANELS]
    if not found:
        return None
    across = axis((s.seconds[-1] for s in found), _SECONDS)
    panels = tuple(_panel(_line_name(series), [series], across, _line_name) for series in found)
    worst = max(max(series.values) for series in found)
    said = f"The longest took {human(worst, _ROUND_TRIP)}; spikes at even intervals come from a timer, not from chance."
    return Picture(said, Panels(panels, across.ticks, "since the stage began"))


def _panel(name: str, found: Sequence[Series], across: Axis, named: Callable[[Series], str]) -> Panel:
    """A line each; parts of one line are one, with a gap between them. Many are drawn alike."""
    lines = {label: list(same) for label, same in groupby(sorted(found, key=named), named)}
    up = axis((value for series in found for value in series.values), found[0].metric, 3)
    alike = len(lines) > len(SERIES)
    drawn, keys = [], []
    for number, (label, parts) in enumerate(lines.items()):
        css = SERIES[0] if alike else SERIES[number]
        drawn.append(Line(css, "".join(path(*thinned(series), across, up) for series in parts)))
        keys.append((css, label))
    shown = [(SERIES[0], f"{plural(len(lines), 'line')}: {keys[0][1]} to {keys[-1][1]}")] if alike else keys
    return Panel(clean(name, 60), tuple(drawn), _upwards(up), tuple(shown if len(shown) > 1 or alike else ()))


def _upwards(up: Axis) -> tuple[Tick, ...]:
    return tuple((round(100 - at, 2), text) for at, text in up.ticks)


def thinned(series: Series) -> tuple[list[float], list[float]]:
    """At most 240 points: the mean of each piece, so that a short dip still shows as a dip."""
    step = -(-len(series.values) // _MOST_POINTS)
    pieces = [slice(i, i + step) for i in range(0, len(series.values), step)]
    return [fmean(series.seconds[piece]) for piece in pieces], [fmean(series.values[piece]) for piece in pieces]


def _turn(series: Series, with_path: bool) -> str:
    """``turn 2``, of a stage like ``feed.storage.2``."""
    turn = f"turn {series.labels.get('stage', '').rpartition('.')[2]}"
    return clean(f"{turn}, {series.labels.get('path', '')}" if with_path else turn, 60)


def _fed_name(series: Series) -> str:
    return "delivered by the device" if series.metric == _FED[0] else "consumed by the accelerator"


def _line_name(series: Series) -> str:
    words = [f"{key} {value}" if key == "device" else value for key, value in series.labels.items() if key != "stage"]
    kept = [word for word in words if word != series.labels.get("stand_in")]
    return clean(", ".join(kept or [title(series.metric).removeprefix("host ")]), 60)


@dataclass(frozen=True, slots=True)
class MetricHistory:
    """One metric's past on one node, oldest first, in base units.

    ``expected`` and ``edge``: what is normal, and the bound of the one-sided prediction interval beyond which a night
    is suspect. ``visible``: the value at which a lasting drop would be seen with 80 % power. None: not enough nights.
    """

    name: str
    metric: str
    values: tuple[float, ...]
    expected: float | None = None
    edge: float | None = None
    visible: float | None = None
    limit: float | None = None

    @property
    def outside(self) -> bool:
        """Whether the newest night lies beyond the edge of what is expected."""
        if self.expected is None or self.edge is None:
            return False
        return (self.values[-1] < self.edge) if self.edge < self.expected else (self.values[-1] > self.edge)


_NIGHT_KEYS = (
    ("band", "expected"), ("warn", "a drop to there would be seen with 80 % power"), ("bad", "limit"),
    ("ink", "this run"),
)  # fmt: skip


def histories(found: Sequence[MetricHistory]) -> Picture | None:
    """A panel a metric; None where no metric has two values."""
    shown = [history for history in found if len(history.values) > 1]
    if not shown:
        return None
    outside = [clean(history.name, 80) for history in shown if history.outside]
    judged = sum(history.expected is not None for history in shown)
    said = f"This run: {' and '.join(outside)} {'is' if len(outside) == 1 else 'are'} worse than expected."
    if not outside:
        said = f"Where a night is expected: {judged} of {plural(len(shown), 'metric')}."
        said = said if judged else "Too few nights yet to say what is expected."
    return Picture(said, Panels(tuple(map(_nights, shown))))


def _nights(history: MetricHistory) -> Panel:
    values, nights = history.values, range(len(history.values))
    levels = {"warn": history.visible, "bad": history.limit}
    known = [*values, *(v for v in (history.expected, history.edge) if v is not None)]
    near = {css: level for css, level in levels.items() if level is not None and _near(level, known)}
    up = _around([*known, *near.values()], history.metric)
    across = Axis(-0.5, len(values) - 0.5)
    lines = (
        Line("c1", path(nights, values, across, up)),
        Line("c1 dots", path(nights, values, across, up, dots=True)),
        Line("ink dots large", path(nights[-1:], values[-1:], across, up, dots=True)),
    )
    band = None
    if history.expected is not None and history.edge is not None:
        top, bottom = sorted(100 - up.at(value) for value in (history.expected, history.edge))
        band = (top, bottom)
    present = {"band": band is not None, "ink": True, **{css: css in near for css in levels}}
    keys = [(css, text) for css, text in _NIGHT_KEYS if present[css]]
    if history.limit is not None and "bad" not in near:
        keys.append(("none", f"the limit, {human(history.limit, history.metric)}, is far away"))
    drawn = tuple((css, round(100 - up.at(level), 2)) for css, level in near.items())
    return Panel(clean(history.name, 80), lines, _upwards(up), tuple(keys), drawn, band)


def _near(level: float, values: Sequence[float]) -> bool:
    """Whether the values still fill a quarter of the panel when the level is in it."""
    low, high = min(values), max(values)
    return (max(high, level) - min(low, level)) <= 4 * max(high - low, 0.1 * abs(high))


def _around(values: Sequence[float], metric: str) -> Axis:
    """An axis around the values, with some air, not down to 0."""
    low, high = min(values), max(values)
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return spanned(low - air, high + air, metric, 4)
