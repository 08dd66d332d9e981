"""torch's compiler for the small parts of a step, where the node has one and it wins. Never needed."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.inference.load.decoder import Decoder, compiled
from probes.inference.load.device import brief

_PREFIX = "aiready-compiler-"


def faster(decoder: Decoder, step_seconds: Callable[[], float]) -> dict[str, Any]:
    """Compile the decoder's parts and keep them if a step is then faster, as ``step_seconds`` measures it.

    Returns the fields of `events.Compiled`. Whatever the compiler raises costs the gain and nothing else.
    """
    if (why := _lacking()) is not None:
        return {"used": False, "why": why}
    plain, began, before = step_seconds(), time.monotonic(), decoder.parts
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TRITON_CACHE_DIR"] = str(_folder())
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a few kernels: no processes of its own
    quick, why = plain, ""
    try:
        decoder.parts = compiled()
        decoder.forget()
        quick = step_seconds()
    except Exception as error:  # noqa: BLE001 - dozens of kinds, of torch, triton and the C compiler
        why = brief(error)
    if quick >= plain:
        decoder.parts = before
        decoder.forget()
    return {"used": quick < plain, "why": why, "plain_seconds": plain, "compiled_seconds": quick,
            "compiler_seconds": time.monotonic() - began}  # fmt: skip


def _lacking() -> str | None:
    """What the compiler needs and this node has not."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "there is no C compiler"
    return None


def _folder() -> Path:
    """For what the compiler writes. Removed when this process ends; those of processes that were killed, now."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_PREFIX}[0-9]*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
