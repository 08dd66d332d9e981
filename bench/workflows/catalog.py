"""What can be measured here, and by what it is judged: the probes with their metrics, and the profiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bench.errors import UserError
from bench.judge.baseline.epoch import Scope
from bench.judge.pooling import LOOKS
from bench.judge.profile import Profile, load
from bench.measure.probe import Option, Probe
from bench.measure.regular_files import read_text
from bench.model import Metric, Request
from bench.workflows.site import config, said_by
from probes import discover


@dataclass(frozen=True)
class Catalog:
    """The probes, light before heavy, and the profiles asked for, in their order.

    ``conditional``: the profiles that are judged too where a request names what they need.
    """

    probes: tuple[Probe, ...]
    profiles: tuple[Profile, ...] = ()
    conditional: tuple[Profile, ...] = ()

    def of(self, request: Request) -> Catalog:
        """The same for a request, with those of the conditional profiles whose input it names."""
        more = tuple(profile for profile in self.conditional if profile.has_its_input(request.options))
        return replace(self, profiles=(*self.profiles, *more), conditional=())

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric that some probe declares, by name."""
        return {metric.name: metric for probe in self.probes for metric in probe.metrics}

    @cached_property
    def owners(self) -> Mapping[str, str]:
        """Metric name -> the name of the probe that measures it."""
        return {metric.name: probe.name for probe in self.probes for metric in probe.metrics}

    def owners_in(self, request: Request) -> Mapping[str, str]:
        """The same for a request: what two probes measure is of that one which was asked for by its own option."""
        asked = [probe for probe in self.probes if probe.also and probe.needs in request.options]
        return {**self.owners, **{name: probe.name for probe in asked for name in probe.also}}

    @cached_property
    def looks(self) -> Mapping[str, int]:
        """Metric name -> how often it may be looked at before the verdict: what watches sees a run once."""
        looks = ((probe, LOOKS if probe.measure and not probe.once else 1) for probe in self.probes)
        return {metric.name: number for probe, number in looks for metric in probe.metrics}

    @cached_property
    def scopes(self) -> Mapping[str, Scope]:
        """Metric name -> what its series depend on."""
        made = ((probe, Scope(probe.name, probe.facts, probe.terms, probe.watch is not None)) for probe in self.probes)
        return {metric.name: scope for probe, scope in made for metric in probe.metrics}

    def options(self) -> Iterator[tuple[str, Option]]:
        """Every declared option with its probe's name before it: ``feed.decode``."""
        return ((f"{probe.name}.{option.name}", option) for probe in self.probes for option in probe.options)


def declared() -> Catalog:
    """Every probe that is found, and no profile."""
    return Catalog(tuple(discover()))


def load_catalog(wanted: Sequence[str] | None = None) -> Catalog:
    """Every probe, and the profiles that were named; else the site's, else the shipped ones. Raises UserError."""
    found = declared()
    site = {} if wanted else config()
    named = wanted or site.get("profile", [])
    profiles = load_profiles(named, found.metrics, said_by(wanted, "profile", site))
    always = tuple(profile for profile in profiles if named or profile.needs is None)
    return Catalog(found.probes, always, tuple(profile for profile in profiles if profile.needs and not named))


def shipped_profiles() -> dict[str, Path]:
    """Name -> file of every profile in the wheel."""
    folder = Path(__file__).resolve().parent.parent / "profiles"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_profiles(wanted: Sequence[str], metrics: Mapping[str, Metric], where: str = "profile") -> tuple[Profile, ...]:
    """Shipped profiles by name, others by file; every shipped one if none is named. Raises UserError."""
    shipped = shipped_profiles()
    found = []
    for word in wanted or list(shipped):
        path = shipped.get(word) or Path(word)
        try:
            found.append(load(read_text(path), str(path), metrics))
        except FileNotFoundError as error:
            raise UserError(f"{where} {word!r}: no such file, and none of {', '.join(shipped)}") from error
    if doubles := sorted(name for name, times in Counter(profile.name for profile in found).items() if times > 1):
        raise UserError(f"profile {doubles[0]!r} is given twice; a verdict is found by its profile's name")
    return tuple(found)
