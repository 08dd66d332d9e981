"""``bench`` and ``python -m bench``. A fault of the program itself exits 2, never 1: that would read as NO-GO."""

from __future__ import annotations

import gc
import os
import signal
import sys


def _terminated(signum: int, _frame: object) -> None:
    sys.exit(128 + signum)  # the contract's 143, where dying of the signal would be -15 to a parent


def _open_streams() -> None:
    """A stream that the caller closed (``>&-``) is the null device; else the next file that is opened would be it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def main() -> None:
    """Run the command line and exit with the contract's status."""
    signal.signal(signal.SIGTERM, _terminated)
    _open_streams()
    gc.set_threshold(200_000)  # what starting makes stays; looking through it again took a tenth of `bench gate`
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it asks every installed distribution for some
    try:
        from bench.cli.app import run

        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 2
    except Exception as error:  # the last line of defence: one line, status 2
        if os.environ.get("BENCH_DEBUG"):
            raise
        where = "(BENCH_DEBUG=1 shows where)"
        sys.stderr.write(f"bench: a fault of bench itself: {type(error).__name__}: {error} {where}\n")
        status = 2
    gc.freeze()  # else the interpreter looks through all of it once more before it ends, an eighth of `bench gate`
    sys.exit(status)


if __name__ == "__main__":
    main()
