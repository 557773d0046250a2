"""snapbreaker as its users call it: a process, arguments, an exit code, JSON."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapbreaker.report import schema

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Result:
    """How one call ended. ``status`` is negative when a signal ended snapbreaker itself."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """What ``--json`` printed. Events follow their schema, in whatever test; other objects have none."""
        found = [json.loads(line) for line in self.stdout.splitlines()]
        wrong = [(event, why) for event in found if "event" in event and (why := schema.problems(event))]
        assert not wrong
        return found


@dataclass(slots=True)
class Tool:
    """A snapbreaker with a store and a lock of its own.

    The lock is one per machine outside of tests, so ids are unique there. Here many run at once: each store's
    sequence begins somewhere else.
    """

    home: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store.mkdir(mode=0o700, parents=True)
        (self.store / "sequence").write_text(f"{random.randrange(1, 10**9)}\n")

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'backends'}",
            "SNAPBREAKER_STORE": str(self.store),
            "SNAPBREAKER_RUNTIME": str(self.home / "run"),
            "NO_COLOR": "1",
        }

    def __call__(
        self,
        *arguments: str | Path,
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        entry: Sequence[str] = ("-m", "snapbreaker"),
    ) -> Result:
        """Call it with ``arguments`` and wait."""
        began = time.monotonic()
        process = self.start(*arguments, env=env, cwd=cwd, entry=entry)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()
            stdout, stderr = process.communicate()
            raise AssertionError(f"still running after {timeout} s:\n{stderr.decode(errors='replace')}") from None
        return Result(process.returncode, stdout, stderr, time.monotonic() - began)

    def run(self, scope: Path, *command: str | Path, options: Sequence[str | Path] = (), **more: Any) -> Result:
        """``snapbreaker run --scope SCOPE OPTIONS -- COMMAND``."""
        return self("run", "--scope", scope, *options, "--", *command, **more)

    def start(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
        entry: Sequence[str] = ("-m", "snapbreaker"),
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Call it and do not wait; in a session of its own, so that a test can signal it as a group."""
        process = subprocess.Popen(
            self.argv(*arguments, entry=entry),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.environment, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def argv(self, *arguments: str | Path, entry: Sequence[str] = ("-m", "snapbreaker")) -> list[str]:
        """For a test that starts it in its own way; it wants ``environment`` and REPOSITORY as its directory."""
        return [sys.executable, *entry, *map(str, arguments)]

    def close(self) -> None:
        """End what a failed test left running. snapbreaker rolls back on TERM, so it gets some time."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.communicate(timeout=20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()

    def report(self) -> dict[str, Any]:
        """The newest report."""
        answer = self("report", "--last", "--format", "json")
        assert answer.status == 0, answer.stderr
        report: dict[str, Any] = json.loads(answer.stdout)
        return report

    def checkpoints(self) -> list[dict[str, Any]]:
        return self("checkpoint", "list", "--json").events

    def record(self) -> dict[str, Any]:
        """Everything about the newest checkpoint."""
        answer = self("checkpoint", "show", "--last", "--json")
        assert answer.status == 0, answer.stderr
        shown: dict[str, Any] = json.loads(answer.stdout)
        return shown


def wait_for(process: subprocess.Popen[bytes], text: str) -> None:
    """Read ``process``'s output up to the line that holds ``text``."""
    assert process.stdout
    for line in process.stdout:
        if text.encode() in line:
            return
    _, stderr = process.communicate()
    raise AssertionError(f"{text!r} never came; exit {process.returncode}: {stderr.decode(errors='replace')}")


def cgroups() -> set[str]:
    """The cgroups of snapbreaker's runs that exist now."""
    return {
        entry
        for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
        for directory, entries, _files in os.walk(base)
        for entry in entries
        if entry.startswith("snapbreaker-") and directory
    }
