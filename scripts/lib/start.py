"""What scripts/snapbreaker executes: ``python3 -I start.py DEPENDENCIES NAME ARGUMENT…``."""

import sys
from pathlib import Path


def start() -> None:
    root = Path(__file__).resolve().parents[2]
    dependencies = sys.argv[1]
    del sys.argv[:2]  # the rest is what was typed
    sys.path[:0] = [str(root), str(root / "backends"), str(Path(dependencies).resolve())]
    try:
        from snapbreaker.__main__ import main
    except BaseException as error:
        # Python would exit 1, which is snapbreaker's word for "rolled back and verified".
        sys.stderr.write(f"snapbreaker: cannot start: {type(error).__name__}: {error}\n")
        sys.exit(70)
    main()


start()
