"""Writes what others read: whole or not at all, whoever kills the writer."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put this content in the place of ``path``: a temporary file beside it, fsync, rename. Raises OSError.

    The temporary name begins with a dot and does not end like the real one, so that node_exporter's textfile
    collector (``*.prom``) never reads half a file. Readable by all: an exporter runs as another user. A device or a
    pipe (``/dev/null``) is written to and stays what it is; behind a link the file that it points to is replaced.
    """
    path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    done = False
    try:
        descriptor = os.open(temporary, flags, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        done = True
    finally:
        if not done:
            temporary.unlink(missing_ok=True)
