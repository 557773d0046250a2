"""The bundle of the working tree, as a machine gets it; made once for each state of the sources."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache as once
from pathlib import Path

from tests.lab import cache
from tests.lab.errors import LabError

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("snapbreaker", "backends", "scripts")


@once
def path() -> Path:
    """The file that ``scripts/bundle`` writes. It stays the same for a test session, whoever edits meanwhile."""
    return cache.made_once("bundle", _contents(), lambda _work, result: _make(result))


def _contents() -> dict[str, str]:
    files = (file for name in SOURCES for file in (REPOSITORY / name).rglob("*"))
    return {
        str(file.relative_to(REPOSITORY)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and file.suffix != ".pyc"
    }


def _make(result: Path) -> None:
    argv = [REPOSITORY / "scripts/bundle", result]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LabError(f"scripts/bundle ended with {done.returncode}: {done.stderr.strip()}")
