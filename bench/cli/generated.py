"""What `bench export` makes without a run: the dashboard and the rules, from the declarations."""

from __future__ import annotations

from bench.workflows import site as settings

#: Name on the command line -> what is made.
GENERATED = ("grafana", "rules")


def generated(name: str) -> str:
    """The dashboard (``grafana``) or the rules (``rules``) of this version. Raises KeyError for another name."""
    return {"grafana": _dashboard, "rules": _rules}[name]()


def _dashboard() -> str:
    from bench.show.export.grafana import dashboard
    from probes import discover

    return dashboard(discover())


def _rules() -> str:
    from bench.show.export.grafana import rules

    metrics = settings.declared_metrics()
    profiles = settings.load_profiles(list(settings.shipped_profiles()), metrics)
    return rules((gate.metric for profile in profiles for gate in profile.gates), metrics)
