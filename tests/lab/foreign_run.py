"""The other side of ``tests.lab.foreign``: starts such a worker and gives it orders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snapbreaker.foreign.log import ForeignWrites, read

ROOT = Path(__file__).parents[2]


class Run:
    """A worker with its watcher; what the test's own process does is foreign."""

    def __init__(self, record: Path, *mountpoints: Path, before: Sequence[str] = (), **environment: str) -> None:
        record.mkdir(exist_ok=True)
        self.record = record
        self.worker = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.lab.foreign", record, *mountpoints],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        )
        self.start = self._answer()
        self.pid: int = self.start["pid"]

    def _answer(self) -> dict[str, Any]:
        assert self.worker.stdout
        found: dict[str, Any] = json.loads(self.worker.stdout.readline())
        return found

    def __call__(self, *argv: str | Path) -> dict[str, Any]:
        """Run a command in the tree."""
        return self._order([str(part) for part in argv])

    def shell(self, script: str, *arguments: str | Path) -> dict[str, Any]:
        answer = self("sh", "-c", script, "sh", *arguments)
        assert answer["status"] == 0
        return answer

    def stop(self) -> ForeignWrites:
        self.stopped = self._order("stop")
        return read(self.record)

    def _order(self, order: list[str] | str) -> dict[str, Any]:
        assert self.worker.stdin
        self.worker.stdin.write(json.dumps(order).encode() + b"\n")
        self.worker.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.worker.stdin
        assert self.worker.stdout
        self.worker.stdin.close()
        self.worker.wait(10)
        self.worker.stdout.close()
        end = time.monotonic() + 10
        while self.pid and os.path.exists(f"/proc/{self.pid}"):
            assert time.monotonic() < end, "the watcher does not end"
            time.sleep(0.01)
