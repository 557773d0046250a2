"""``python -m snapbreaker``, and the start of the installed program, of the clone's and of the bundle."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from snapbreaker.exits import Exit


def main() -> NoReturn:
    """Run the command line. What fails before it has begun ends with 70: Python itself would exit 1."""
    gc.set_threshold(20_000)  # nearly nothing of what is loaded is garbage; 5 ms of a start were spent on looking
    try:
        from snapbreaker.cli.main import launch
    except BaseException as error:
        sys.stderr.write(f"snapbreaker: cannot start: {type(error).__name__}: {error}\n")
        sys.exit(Exit.INTERNAL)
    sys.exit(launch())


if __name__ == "__main__":
    main()
