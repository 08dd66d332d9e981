"""``bench sign`` and ``bench verify``: a run, or a fleet, as evidence that others can check without trusting us."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.cli.options import File, Json, Profiles, Results, Word, age
from bench.cli.output import emit, emit_json, emit_lines
from bench.errors import UserError

Evidence = Annotated[
    Word, Argument(metavar="[RUN]", help="A run, or the folder of a fleet run; default: this node's newest run.")
]
Key = Annotated[
    File,
    Option(
        "--key",
        envvar="BENCH_SIGN_KEY",
        help="SSH key; its public half or certificate where an agent holds it. Default: your own, of ~/.ssh.",
    ),
]
Nonce = Annotated[Word, Option(help="A verifier's own word, signed with it: the evidence is not of before.")]
MaxAge = Annotated[Word, Option(help="How long after its start the run may answer, 26h say.")]


def sign(
    run: Evidence = None,
    key: Key = None,
    nonce: Nonce = None,
    max_age: MaxAge = None,
    profile: Profiles = None,
    results: Results = None,
) -> None:
    """Sign a run, or a fleet: an in-toto statement beside it, signed by ssh-keygen with your SSH key.

    --profile names the files of profiles that are not shipped. No network is needed.

    Examples:  bench sign    bench sign 3f9a --key ~/.ssh/id_ed25519.pub --nonce 8c1d
    """
    from bench.measure.tools import Signals
    from bench.workflows import evidence
    from bench.workflows.site import open_store

    store, key = open_store(results), key or evidence.own_key()
    path, told = evidence.place(store, run), evidence.told_now(nonce, age(max_age))
    with Signals() as signals:
        if path.is_dir():
            made = evidence.sign_fleet(path, key, profile or [], told, signals)
        else:
            made = evidence.sign_run(path, key, evidence.catalog_with(profile or []), store, told, signals)
    emit(f"signed: {made} and {made.name}.sig")


def verify(
    allowed_signers: Annotated[
        Path, Option("--allowed-signers", metavar="FILE", help="Who may sign: ssh-keygen's ALLOWED SIGNERS format.")
    ],
    run: Evidence = None,
    revoked: Annotated[
        File, Option(metavar="FILE", help="Keys that no longer count: public keys, or a list of ssh-keygen -k.")
    ] = None,
    signer: Annotated[Word, Option(help="Only this one of them may have signed.")] = None,
    nonce: Annotated[Word, Option(help="The word that had to be signed.")] = None,
    max_age: Annotated[Word, Option(help="Evidence older than this, 26h say, does not hold.")] = None,
    profile: Profiles = None,
    only_go: Annotated[
        bool, Option("--only-go", help="Hold only if the verdict is GO, of --profile or of all.")
    ] = False,
    this_node: Annotated[bool, Option("--this-node", help="Hold only if it was measured on this machine.")] = False,
    results: Results = None,
    json: Json = False,
) -> int:
    """Check the signature of a run, or a fleet, its signer and every digest, and judge it again from the raw output.

    Exit status: 0 all of it holds, 1 not, with a line for each reason, 2 it cannot be looked at. GO or not is
    --only-go's question.

    Examples:  bench verify 3f9a --allowed-signers signers
               bench verify --allowed-signers signers --only-go --this-node --max-age 26h
    """
    from bench.workflows import evidence
    from bench.workflows.site import open_store

    if not allowed_signers.is_file():
        raise UserError(f"--allowed-signers {allowed_signers}: no such file; docs/evidence.md shows how to write it")
    if revoked and not revoked.is_file():
        raise UserError(f"--revoked {revoked}: no such file; leave it out if no key was revoked")
    wanted = evidence.Wanted(
        allowed_signers, profile or [], signer, nonce, age(max_age), go=only_go, here=this_node, revoked=revoked
    )
    found = evidence.verify(evidence.place(open_store(results), run), wanted)
    says, problems = found.says, found.problems
    if json:
        told = says.model_dump(mode="json", exclude={"spreads"}) if says else None
        emit_json({"holds": not problems, "signer": found.signer, "failures": problems, "evidence": told})
    elif problems or says is None:
        emit_lines(problems)
    else:
        whose = f"{says.kind} {says.id}" + (f" of {says.hostname}" if says.hostname else "")
        verdicts = ", ".join(f"{verdict.decision} {verdict.profile}" for verdict in says.verdicts)
        emit_lines([f"holds: {whose}, measured {says.measured_at}, signed by {found.signer}: {verdicts}"])
    return 1 if problems else 0
