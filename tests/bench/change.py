"""`python -m tests.bench.change ROOT FILES PATHS`: the change of `tree.change`, for a command to make it."""

import sys
from pathlib import Path

from tests.bench import tree

tree.change(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
