"""Signatures by ``ssh-keygen -Y``: with the key that an SRE has, without a network.

The key may lie in an agent or on a hardware token (its public half is named then), and may be a certificate of an SSH
CA. Signing reads standard input and writes standard output, because the form with files asks questions.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from bench.errors import UserError, printable
from bench.measure import tools
from bench.measure.probe import Completed, Interrupted, ProbeError
from bench.measure.tools import Signals

#: What a signature is for: one that was made for another purpose (git, a file) is none of ours.
NAMESPACE = "aiready-bench"
#: A token waits for a touch.
_SIGN_SECONDS, _VERIFY_SECONDS = 60.0, 20.0
#: An agent is asked by its socket, a token by its library.
_ENV = ("SSH_AUTH_SOCK", "SSH_SK_PROVIDER")
_SAYS_NOTHING = ("Signing data on standard input", "No principal matched.", "@")


def sign(key: Path, text: str, signals: Signals | None = None) -> bytes:
    """The signature of the text. Raises UserError, one line."""
    done = _ssh_keygen(["sign", "-f", str(key), "-n", NAMESPACE], text, _SIGN_SECONDS, signals)
    if done.returncode != 0 or "END SSH SIGNATURE" not in done.stdout:
        hint = "; a key with a passphrase signs from an agent: ssh-add it, and name KEY.pub"
        raise UserError(f"{key}: cannot sign: {_why(done) or 'ssh-keygen failed'}{hint}")
    return done.stdout.encode()


def signer(
    text: str, signature: bytes, allowed: Path, wanted: str | None = None, revoked: Path | None = None
) -> tuple[str | None, str]:
    """Who of the allowed signers signed the text, or None and why nobody did. ``wanted``: only this one counts.

    ``revoked``: keys and certificates that do not count, whoever allows them.

    Raises UserError where that cannot be found out.
    """
    with tempfile.NamedTemporaryFile(suffix=".sig") as file:
        file.write(signature)
        file.flush()
        found = _ssh_keygen(["find-principals", "-s", file.name, "-f", str(allowed)], "", _VERIFY_SECONDS)
        names = [wanted] if wanted else found.stdout.splitlines()
        why = _why(found) or f"its signer is not in {allowed}"
        for name in names if found.returncode == 0 else ():
            words = ["verify", "-f", str(allowed), "-I", name, "-n", NAMESPACE, "-s", file.name]
            words += ["-r", str(revoked)] if revoked else []
            done = _ssh_keygen(words, text, _VERIFY_SECONDS)
            if done.returncode == 0:
                return name, ""
            why = _why(done) or f"it is not signed by {name}" + (f", or {revoked} revokes its key" if revoked else "")
    return None, why


def _ssh_keygen(words: list[str], text: str, seconds: float, signals: Signals | None = None) -> Completed:
    env = {name: os.environ[name] for name in _ENV if name in os.environ}
    try:
        return tools.run(["ssh-keygen", "-Y", *words], timeout=seconds, stdin=text, env=env, signals=signals)
    except Interrupted as error:
        raise UserError("interrupted while ssh-keygen ran", status=128 + error.signum) from error
    except ProbeError as error:
        raise UserError(f"ssh-keygen: {error.reason}" + (f"; {error.remedy}" if error.remedy else "")) from error


def _why(done: Completed) -> str:
    """What ssh-keygen says of it, as one line."""
    lines = [line.removeprefix("Enter passphrase: ").strip() for line in done.stderr.splitlines()]
    told = "; ".join(line for line in lines if line and not line.startswith(_SAYS_NOTHING))
    return printable(told)[:300]
