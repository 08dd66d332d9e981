"""A server of somebody else's over HTTP: its address, the key to it, and what each way to fail is called.

A key comes from a file or from the environment, never from the command line or in an address. It is in no record: what
a server says of itself is quoted only after `Secrets.clean`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from bench.model import Code

#: What a query may name. Anything else may be a secret: one look cannot tell.
_OPEN_QUERY = {"api-version"}
_SHARED_BYTES = 6  # of a secret in a row: a text that has them is not quoted
_MOST_QUOTED = 300
_LARGEST_KEY_BYTES = 16 << 10
INSTALL = "pip install 'aiready-bench[endpoint]'"  # of the packages that a load on a server needs

REMEDIES: Mapping[Code, str] = {
    Code.HOST_UNKNOWN: "check the host's name and this node's resolver (getent hosts NAME)",
    Code.CONNECTION_REFUSED: "start the server, or name the port that it listens on",
    Code.CONNECT_TIMED_OUT: "a firewall drops it, or the address is another machine's: try nc -vz HOST PORT",
    Code.UNREACHABLE: "check this node's routes to the server (ip route get ADDRESS)",
    Code.CONNECTION_RESET: "look into the server's log for the process that died, and at what stands in front of it",
    Code.TLS_EXPIRED: "renew the server's certificate",
    Code.TLS_WRONG_HOST: "name the server as its certificate does, or have one issued for this name",
    Code.TLS_FAILED: "name https only where TLS is spoken; for a private CA set SSL_CERT_FILE to its certificate",
    Code.UNAUTHORIZED: "give a key that is valid there, by the key file or the environment",
    Code.NOT_FOUND: "name the address under which the server answers, http://HOST:8000/v1 say",
    Code.MODEL_UNKNOWN: "name one of the server's models with --endpoint-model",
    Code.THROTTLED: "lower the rate, or have the limit for this key raised",
    Code.SERVER_ERROR: "look into the server's log",
    Code.BAD_REQUEST: "the server does not take such a request: see what it says, and its log",
    Code.REDIRECTED: "name the address that it points to, if you trust it: no redirect is followed",
    Code.WRONG_CONTENT: "what answers is no such server: a proxy's page, or another service on that port",
    Code.GARBLED: "what answers does not speak the protocol: check the port, and what stands in front of it",
    Code.TOO_LARGE: "an answer of this size is a fault of the server or of a proxy in front of it",
    Code.ENDLESS: "the server does not keep max_tokens: see its settings",
    Code.TORN: "look into the server's log, and for a proxy's time limit in front of it",
    Code.NO_CONTENT: "the server answered without a word: see its log, and its chat template",
    Code.TOO_SLOW: "the server is overloaded or hangs: see its queue and its log",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: the URL that is asked, and the one that may be shown (no user, no password, no query)."""

    url: str
    shown: str

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)


def address(text: str) -> Address:
    """The address in a text of the user's. Raises ValueError, which quotes nothing that may be a secret."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is no URL; name http://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise ValueError("is no URL of http or https; name http://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or a password; put the key in a file (--endpoint-key-file)")
    if parts.fragment or not {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} <= _OPEN_QUERY:
        raise ValueError("has a query that may hold a secret; put the key in a file (--endpoint-key-file)")
    if port == 0:
        raise ValueError("names port 0")
    shown = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return Address(urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query, "")), shown)


def key_in(file: Path) -> str:
    """The key in a file, one line. Raises ValueError, which names the file and quotes nothing of it."""
    try:
        with file.open("rb") as opened:
            return _key(str(file), opened.read(_LARGEST_KEY_BYTES + 1))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error


def _key(where: str, text: bytes) -> str:
    """A key is one line of ASCII. Raises ValueError."""
    key = text.decode("ascii", "replace").strip()
    if not key or len(text) > _LARGEST_KEY_BYTES or not (key.isascii() and key.isprintable()):
        raise ValueError(f"{where}: holds no key: a key is one line of ASCII")
    return key


def key_of(file: str | None, variable: str) -> str | None:
    """The key in the file, else in the environment's variable, else None. Raises ValueError."""
    if file:
        return key_in(Path(file))
    text = os.environ.get(variable, "").strip()
    return _key(f"${variable}", os.fsencode(text)) if text else None


def environment(*names: str) -> dict[str, str]:
    """The variables that a load may see: those named, and whom TLS may trust."""
    seen = ("SSL_CERT_FILE", "SSL_CERT_DIR", *names)
    return {name: os.environ[name] for name in seen if name in os.environ}


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must be in no text that leaves the program."""

    words: tuple[str, ...] = ()

    def clean(self, text: str, most: int = _MOST_QUOTED) -> str:
        """The text on one printable line, cut; nothing of it where it holds a piece of a secret."""
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        for word in self.words:
            pieces = {word[at : at + _SHARED_BYTES] for at in range(max(1, len(word) - _SHARED_BYTES + 1))}
            if any(piece in line for piece in pieces):
                return "(not quoted: it repeats the key)"
        return line[:most]


class Broken(Exception):
    """The answer is not what was asked for: a code, and words of ours."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


def of_status(status: int) -> Code | None:
    """The code for an HTTP status; None for success."""
    if 200 <= status < 300:
        return None
    known = {401: Code.UNAUTHORIZED, 403: Code.UNAUTHORIZED, 404: Code.NOT_FOUND, 405: Code.NOT_FOUND,
             408: Code.TOO_SLOW, 429: Code.THROTTLED, 504: Code.TOO_SLOW}  # fmt: skip
    if status in known:
        return known[status]
    if 300 <= status < 400:
        return Code.REDIRECTED
    return Code.SERVER_ERROR if status >= 500 else Code.BAD_REQUEST


_ERRNO = {
    errno.ECONNREFUSED: Code.CONNECTION_REFUSED,
    errno.ETIMEDOUT: Code.CONNECT_TIMED_OUT,
    errno.EHOSTUNREACH: Code.UNREACHABLE,
    errno.ENETUNREACH: Code.UNREACHABLE,
    errno.EADDRNOTAVAIL: Code.UNREACHABLE,
    errno.ECONNRESET: Code.CONNECTION_RESET,
    errno.EPIPE: Code.CONNECTION_RESET,
}
_CERTIFICATE_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_HOST_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def of_error(error: BaseException) -> Code:
    """The code for an exception of aiohttp, ssl or a socket."""
    import ssl

    import aiohttp  # the extra `endpoint`; only who uses it gets here

    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code == _CERTIFICATE_EXPIRED:
            return Code.TLS_EXPIRED
        return Code.TLS_WRONG_HOST if cause.verify_code in _HOST_MISMATCH else Code.TLS_FAILED
    kinds: Sequence[tuple[type[BaseException] | tuple[type[BaseException], ...], Code]] = (
        (aiohttp.ClientConnectorDNSError, Code.HOST_UNKNOWN),
        ((aiohttp.ConnectionTimeoutError, aiohttp.ServerTimeoutError), Code.CONNECT_TIMED_OUT),
        ((ssl.SSLError, aiohttp.ClientSSLError), Code.TLS_FAILED),
        (aiohttp.ClientPayloadError, Code.TORN),
        (aiohttp.ServerDisconnectedError, Code.CONNECTION_RESET),
        ((aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError), Code.GARBLED),
        (TimeoutError, Code.TOO_SLOW),
    )
    if isinstance(cause, ssl.SSLError):
        return Code.TLS_FAILED
    found = next((code for kind, code in kinds if isinstance(error, kind)), None)
    return found or _ERRNO.get(_errno(cause), Code.CONNECTION_RESET)


def _errno(error: BaseException) -> int:
    """The errno of an OSError; where several addresses were tried in turn, the last one that its text names."""
    if (number := getattr(error, "errno", None)) is not None:
        return int(number)
    named = re.findall(r"Errno (\d+)", str(error))
    return int(named[-1]) if named else 0
