"""Helpers of the tests of the process side: who has come of whom, and a command watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Watcher:
    """One ``tests.lab.watch`` process; standard streams as given to Popen."""

    def __init__(self, directory: Path, options: dict[str, Any], **popen: Any) -> None:
        self.result = directory / f"result-{time.monotonic_ns()}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.watch", str(self.result), json.dumps(options)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            **popen,
        )

    def finish(self, timeout: float = 30) -> dict[str, Any]:
        self.process.wait(timeout)
        found: dict[str, Any] = json.loads(self.result.read_text())
        return found

    def tree(self) -> dict[str, Any]:
        """What ``ProcessTree.describe`` said, as soon as the command was started."""
        path = Path(f"{self.result}.tree")
        wait_for(lambda: path.exists() and path.stat().st_size > 0)
        time.sleep(0.05)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def watch(directory: Path, *argv: str, **options: Any) -> dict[str, Any]:
    """Watch a command to its end; ``stdout`` and ``stderr`` of the result are what was passed on."""
    watcher = Watcher(
        directory,
        {"argv": argv, **options},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    out, err = watcher.process.communicate(timeout=60)
    return {**watcher.finish(), "stdout": out, "stderr": err}


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Those of whom every ancestor up to ``pid`` still lives."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL each, ourselves last."""
    for pid in sorted(pids, key=lambda pid: pid == os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
