"""What the tests of services share: units and scripts put on a machine from outside, reports read back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lab.machine import Machine

UNIT = "[Service]\nExecStart={command}\n{more}\n[Install]\nWantedBy=multi-user.target\n"


def put(machine: Machine, path: str, text: str, mode: int = 0o644) -> str:
    """Write a file of the machine; returns its path there."""
    file = Path(machine.root) / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return path


def script(machine: Machine, text: str, path: str = "/root/change.sh") -> str:
    return put(machine, path, f"#!/bin/sh\n{text}", 0o755)


def unit(machine: Machine, name: str, command: str = "sleep 1000", more: str = "") -> None:
    """A service that is installed, but neither enabled nor started."""
    put(machine, f"/usr/lib/systemd/system/{name}.service", UNIT.format(command=command, more=more))


def systemctl(machine: Machine, *words: str) -> str:
    result = machine.run("systemctl", *words, session=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def show(machine: Machine, name: str, *properties: str) -> str:
    words = [f"--property={each}" for each in properties]
    return systemctl(machine, "show", *words, name)


def started(machine: Machine, *names: str) -> None:
    systemctl(machine, "daemon-reload")
    systemctl(machine, "enable", "--quiet", "--now", *names)


def report(machine: Machine, which: str = "--last") -> dict[str, Any]:
    result = machine.snapbreaker("report", which, "--format", "json", session=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def units_of(found: dict[str, Any]) -> dict[str, str]:
    """What a report says was done to units."""
    return {one["path"]: one["text"] for one in found["units"]}


def until(machine: Machine, condition: str, timeout: float = 20) -> None:
    """Wait for a condition of sh(1) in the machine."""
    text = f"i=0; while [ $i -lt {int(timeout * 20)} ]; do {{ {condition}; }} >/dev/null 2>&1 && exit 0; "
    result = machine.run("sh", "-c", text + "sleep 0.05; i=$((i + 1)); done; exit 1", session=False, timeout=60)
    assert result.returncode == 0, f"not within {timeout} s: {condition}"


def wait_for(done: Callable[[], bool], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
