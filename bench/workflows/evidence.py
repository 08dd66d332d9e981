"""``bench sign`` and ``bench verify``: evidence that others can check without trusting us.

What is signed names every file by its digest; what is checked is the signature, the signer, every digest, and that the
figures follow from the raw output, and the verdicts from the figures.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import UserError
from bench.fleet.join.folder import join_folder
from bench.judge.composition import composed
from bench.judge.gate import worst_of
from bench.judge.statement import (
    OURS,
    Evidence,
    Spreads,
    Statement,
    Told,
    as_told,
    judged_otherwise,
    measured_otherwise,
    of_fleet,
    of_run,
)
from bench.measure import ssh_signature
from bench.measure.node import identity
from bench.measure.probe import Failed
from bench.measure.recording import Recording
from bench.measure.regular_files import NotReadable
from bench.measure.runner import RunPlan, execute, now
from bench.measure.tools import Signals
from bench.model import Decision, Run
from bench.store import evidence as files
from bench.store.documents import first_error, load
from bench.store.errors import UnusableRun, one_line
from bench.store.runs import Store
from bench.workflows.catalog import Catalog, declared, load_profiles
from bench.workflows.fleet import judgement
from bench.workflows.judging import too_old
from bench.workflows.sessions import by_nights
from bench.workflows.site import find_run


@dataclass(frozen=True, slots=True)
class Wanted:
    """What whoever verifies asks for. ``profile``: names or files; each of them must have been judged.

    ``signer``: only this one; ``nonce``: the word that was to be signed; ``max_age``: seconds; ``go``: nothing but GO;
    ``here``: measured on this machine; ``revoked``: keys that no longer count.
    """

    allowed: Path
    profile: Sequence[str] = ()
    signer: str | None = None
    nonce: str | None = None
    max_age: float | None = None
    go: bool = False
    here: bool = False
    revoked: Path | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """Why the evidence does not hold, one line each, none where it does; who signed it, and what it says."""

    problems: list[str]
    signer: str | None = None
    says: Evidence | None = None


def place(store: Store, reference: str | None) -> Path:
    """The run's file, or the fleet's folder, that is meant. Raises UserError."""
    if reference and Path(reference).is_dir():
        return Path(reference)
    path = store.locate(reference) if reference else store.path_for(find_run(store, None))
    named = path.name.endswith(files.STATEMENT)  # the statement stands for its run
    return path.with_name(path.name.removesuffix(files.STATEMENT) + ".json") if named else path


def own_key() -> Path:
    """The SSH key that the user has, by its usual name (ssh(1), IdentityFile). Raises UserError for none."""
    usual = (f"~/.ssh/id_{kind}" for kind in ("ed25519", "ed25519_sk", "ecdsa", "ecdsa_sk", "rsa"))
    found = next((Path(key) for key in map(os.path.expanduser, usual) if os.path.isfile(key)), None)
    if found is None:
        raise UserError("no key of yours lies in ~/.ssh; name one with --key KEY, or make one: ssh-keygen -t ed25519")
    return found


def check_key(key: Path, signals: Signals | None = None) -> None:
    """Raises UserError, before minutes of measuring, for a key that cannot sign."""
    ssh_signature.sign(key, "aiready-bench: can this key sign?\n", signals)


def sign_run(path: Path, key: Path, catalog: Catalog, store: Store, told: Told, signals: Signals | None = None) -> Path:
    """Sign the run in that file, as it lies there; the statement's path. Raises UserError, one line.

    What does not follow from its own raw output and figures is not signed.
    """
    run = load(path)
    if run.replay_of:
        raise UserError(f"run {run.id} is a replay of {run.replay_of}: sign that one")
    if not run.verdicts:
        raise UserError(f"run {run.id} was never judged, so there is nothing to sign; measure again with: bench run")
    spreads = Spreads(by_nights(composed(run), catalog, store))
    if problems := [*_verdicts(run, catalog, spreads), *_figures(run, path, catalog)]:
        raise UserError(one_line(f"run {run.id} is not signed: {problems[0]}"))
    told = told.model_copy(update={"spreads": spreads.told()})
    return _signed(path, of_run(run, files.digests(path), told), key, signals)


def sign_fleet(folder: Path, key: Path, profile: Sequence[str], told: Told, signals: Signals | None = None) -> Path:
    """Sign what lies in a fleet's folder; the statement's path. Raises UserError, one line."""
    fleet = join_folder(folder, None, judgement(profile))
    return _signed(folder, of_fleet(fleet, files.digests(folder), told), key, signals)


def told_now(nonce: str | None, max_age: float | None) -> Told:
    """What is said beside the evidence. Raises UserError."""
    try:
        return Told(signed_at=now(), nonce=nonce, max_age_seconds=max_age)
    except ValidationError as error:
        raise UserError(one_line(f"--nonce: {first_error(error)}")) from error


def _signed(path: Path, statement: Mapping[str, Any], key: Path, signals: Signals | None) -> Path:
    text = json.dumps(statement, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    return files.publish(path, text.encode(), ssh_signature.sign(key, text, signals))


def verify(path: Path, wanted: Wanted) -> Checked:
    """Check the signed run, or fleet, of that path. Raises UserError for wrong usage only.

    Nothing is read out of a file that is not the one that was signed.
    """
    catalog = catalog_with(wanted.profile)
    try:
        data, signature = files.read(path)
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return Checked(["statement: is not one of a run of ours: it is not ASCII"])
    except NotReadable as error:
        mend = "; sign it with: bench sign" if "not there" in str(error) else ""
        return Checked([f"statement: {error}{mend}"])
    signer, why = ssh_signature.signer(text, signature, wanted.allowed, wanted.signer, wanted.revoked)
    problems = [f"signature: {why}"] if signer is None else []
    try:
        statement = Statement.model_validate_json(text, strict=True)
        says = statement.evidence
    except ValueError as error:
        why = first_error(error) if isinstance(error, ValidationError) else str(error)
        return Checked([*problems, f"statement: is not one of a run of ours: {why}"], signer)
    subjects = {subject.name: subject.digest.get("sha256", "") for subject in statement.subject}
    problems += files.changed(path, subjects)
    if problems:
        return Checked(problems, signer)
    of_kind = _of_fleet if path.is_dir() else _of_run
    problems = [*of_kind(path, statement, subjects, catalog, wanted), *_asked(says, wanted)]
    return Checked(problems, signer, says)


def catalog_with(wanted: Sequence[str]) -> Catalog:
    """Every probe, and the shipped profiles with those named beside them or in their place. Raises UserError."""
    found = declared()
    named = load_profiles(wanted, found.metrics) if wanted else ()
    profiles = {profile.name: profile for profile in (*load_profiles([], found.metrics), *named)}
    return Catalog(found.probes, tuple(profiles.values()))


def _of_run(
    path: Path, statement: Statement, subjects: Mapping[str, str], catalog: Catalog, wanted: Wanted
) -> Iterator[str]:
    try:
        run = load(path, follow=False)
    except UnusableRun as error:
        yield f"run: {error}"
        return
    says = statement.evidence
    yield from _differing(statement, of_run(run, subjects, says))
    if wanted.here and (says.node is None or says.node != identity()):
        yield f"node: was measured on another machine, or its cards were changed ({run.node.hostname})"
    yield from _verdicts(run, catalog, as_told(says.spreads))
    yield from _figures(run, path, catalog)


def _of_fleet(
    path: Path, statement: Statement, subjects: Mapping[str, str], catalog: Catalog, wanted: Wanted
) -> Iterator[str]:
    says = statement.evidence
    if wanted.here:
        yield "node: a fleet is of no single machine"
    judged = [verdict.profile for verdict in says.verdicts]
    known = {profile.name for profile in catalog.profiles}
    if unknown := [name for name in judged if name not in known]:
        yield f"profile {unknown[0]}: is not known here; give it with --profile FILE"
        return
    words = {load_profiles([word], declared().metrics)[0].name: word for word in wanted.profile}
    try:
        fleet = join_folder(path, None, judgement([words.get(name, name) for name in judged]))
    except UserError as error:
        yield f"fleet: {error}"
        return
    yield from _differing(statement, of_fleet(fleet, subjects, says))


def _differing(statement: Statement, made: Mapping[str, Any]) -> Iterator[str]:
    """What the statement says otherwise than what it is about: it was not made by us, or changed and signed again."""
    said, own = statement.predicate, made["predicate"]
    ours, theirs = own[OURS], said[OURS]
    for name in ("result", "configuration"):
        if said.get(name) != own[name]:
            shown = f": it says {said.get(name)}, the evidence {own[name]}" if name == "result" else ""
            yield one_line(f"statement: {name} is not that of the evidence{shown}")
    for name in ("kind", "id", "hostname", "node", "measured_at", "decision", "verdicts"):
        if theirs.get(name) != ours[name]:
            yield one_line(f"statement: {name} is not that of the evidence")


def _verdicts(run: Run, catalog: Catalog, spread_of: Any) -> Iterator[str]:
    """What the run's figures do not say of its verdicts, by the profiles that are known here."""
    known, whole = {profile.name: profile for profile in catalog.profiles}, composed(run)
    for verdict in run.verdicts:
        profile = known.get(verdict.profile)
        if profile is None:
            yield f"profile {verdict.profile}: is not known here; give it with --profile FILE"
        elif profile.digest != verdict.digest:
            digests = f"{verdict.digest[:12]} judged, this one is {profile.digest[:12]}"
            yield f"profile {verdict.profile}: is another one: {digests}; give the one that judged with --profile FILE"
        elif why := judged_otherwise(whole, verdict, profile, catalog.owners, spread_of):
            yield f"verdict {verdict.profile}: {why}"


def _figures(run: Run, path: Path, catalog: Catalog) -> Iterator[str]:
    """What its raw output does not say of the run's figures."""
    probes = [probe for probe in catalog.probes if probe.name in run.request.probes]
    with tempfile.TemporaryDirectory(prefix="aiready-bench-") as folder:
        try:
            recording = Recording(path.with_suffix(".raw"))
        except Failed as error:
            yield f"raw output: {error.reason}"
            return
        plan = RunPlan(
            id=run.id,
            request=run.request,
            probes=probes,
            node=run.node,
            evidence=Path(folder) / "raw",
            replay=recording,
            again=lambda _: [probe.name for probe in probes],
        )
        again = execute(plan)
    yield from measured_otherwise(run, again)


def _asked(says: Evidence, wanted: Wanted) -> Iterator[str]:
    """What whoever verifies asked for, and does not get."""
    if wanted.nonce is not None and says.nonce != wanted.nonce:
        yield "nonce: is not the one that was asked for" if says.nonce else "nonce: none was signed"
    for limit, whose in ((wanted.max_age, "--max-age"), (says.max_age_seconds, "the signer")):
        if reason := too_old(says.measured_at or "", f"{says.kind} {says.id}", limit):
            yield f"age: {reason.partition(': ')[2]} by {whose}"
    asked = [load_profiles([word], declared().metrics)[0].name for word in wanted.profile]
    judged = {verdict.profile: verdict.decision for verdict in says.verdicts}
    yield from (f"profile {name}: was not judged" for name in asked if name not in judged)
    counted = [decision for name, decision in judged.items() if name in asked or not asked]
    if wanted.go and says.kind == "fleet":
        counted.append(says.decision)
    if wanted.go and (decision := worst_of(counted)) is not Decision.GO:
        yield f"verdict: is {decision}, not GO"
