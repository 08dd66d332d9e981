"""``bench`` and ``python -m bench``. A fault of the program itself exits 2, never 1: that would read as NO-GO."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with the contract's status."""
    from bench.cli.app import run

    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 2
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, status 2
        if os.environ.get("BENCH_DEBUG"):
            raise
        print(f"bench: a fault of bench itself: {type(error).__name__}: {error} (BENCH_DEBUG=1 shows where)", file=sys.stderr)  # noqa: T201, E501
        status = 2
    sys.exit(status)


if __name__ == "__main__":
    main()
