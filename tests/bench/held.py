"""A run of snapbreaker that stands still when its command has done its work, until it is let go."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.back import seconds_until_back

LAUNCHER = Path(__file__).resolve().parents[2] / "scripts/snapbreaker"
# $1: where the command's output goes, $2: the exit status in the end. It goes on when standard input is closed.
SHELL = 'log=$1 end=$2; shift 2; "$@" >"$log" 2>&1 || exit 9; echo held; read -r _; exit "$end"'


class HeldRun:
    """`snapbreaker run --scope SCOPE -- COMMAND`, told by its own events (docs/events.md).

    ``status`` is what the command exits with in the end: not 0, and the run is halted and rolled back. ``entry``
    starts another snapbreaker than that of the clone. Anything unexpected is a SystemExit.
    """

    def __init__(
        self,
        store: Path,
        scope: Path,
        *command: str | Path,
        status: int = 0,
        entry: Sequence[str | Path] = (LAUNCHER,),
        options: Sequence[str] = (),
    ) -> None:
        self._log = store.with_name(store.name + ".log")
        held: list[str | Path] = ["sh", "-c", SHELL, "sh", self._log, str(status), *command]
        own: list[str | Path] = [
            "--store",
            store,
            "run",
            "--json",
            "--idle",
            "0",
            "--scope",
            scope,
            *options,
            "--",
        ]
        self.back = 0.0  # seconds until everything was back, once it was let go
        self._process = subprocess.Popen([*entry, *own, *held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.id = ""

    def until(self, kind: str) -> dict[str, Any]:
        """The next event of this kind, when it comes."""
        assert self._process.stdout
        for line in self._process.stdout:
            event: dict[str, Any] = json.loads(line)
            self.id = event["id"]
            if event["event"] == kind:
                return event
            if event["event"] in ("error", "finished"):
                said = self._log.read_text()[-2000:] if self._log.exists() else ""
                raise SystemExit(f"the run ended before the event {kind}: {event}\n{said}")
        raise SystemExit(f"the run ended with {self._process.wait()} before the event {kind}")

    def until_done(self) -> None:
        """Until the command has done its work and stands still."""
        self.until("output")

    def let_go(self) -> int:
        """Let the command exit; snapbreaker's own exit code, when it comes."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self.back = seconds_until_back(self._process.stdout, time.time())
        return self._process.wait()

    def end(self, expected: int) -> None:
        """``let_go``, and the exit code has to be ``expected``."""
        if (code := self.let_go()) != expected:
            raise SystemExit(f"snapbreaker ended with {code}, not with {expected}")
