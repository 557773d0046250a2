"""Power cuts in the middle of runs, and what must be true of the machine once it is up again.

cuts = PowerCuts.on(vm)            # booted; its files are recorded by the independent judge
cuts.cut("restore", dice)          # a run, a cut, a boot, the verdict
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests import comparer
from tests.lab import debs
from tests.lab.debs import Package
from tests.lab.vm import Vm

COMPARER = "/usr/local/lib/comparer.py"
BEFORE = "/usr/local/lib/before"
DEB = "/usr/local/lib/cut-off.deb"
NAME = "cut-off"
# What each boot changes, and what snapbreaker keeps.
EXCLUDED = (
    *("dev", "proc", "run", "sys", "tmp", "var/tmp", "var/log", "var/lib/snapbreaker", "var/lib/systemd"),
    BEFORE[1:],
)
CHANGE = f"""dpkg -i {DEB} && echo more >>/etc/issue && rm /usr/bin/lsattr && mv /etc/hosts /etc/hosts.moved &&
chmod 700 /srv && echo made $((6 * 7))"""
RUN = 'snapbreaker run --json -- sh -c "$1" >/dev/console 2>&1'  # which the host sees at once
FAILS, SUCCEEDS = f"{CHANGE}; echo 'ERROR: enough'; sleep 60", CHANGE


@dataclass(frozen=True, slots=True)
class Phase:
    """``after``: what snapbreaker says when it begins; ``seconds``: about how long it takes in such a VM."""

    after: str
    seconds: float
    script: str = FAILS


PHASES = {
    "create": Phase('"event":"start"', 1.0),
    "run": Phase('"event":"running"', 2.0),
    "restore": Phase('"event":"restoring"', 2.5),
    "commit": Phase("made 42", 1.5, SUCCEEDS),
}


@dataclass(slots=True)
class PowerCuts:
    vm: Vm

    @classmethod
    def on(cls, vm: Vm) -> PowerCuts:
        """``vm`` is booted and has snapbreaker. Raises AssertionError."""
        with tempfile.TemporaryDirectory() as scratch:
            vm.put(debs.build(_package(), Path(scratch)), DEB)
        vm.put(Path(comparer.__file__), COMPARER)
        _well(vm, "snapbreaker", "install-service")
        cuts = cls(vm)
        cuts.look()
        return cuts

    def look(self) -> None:
        """What is there now is what has to come back."""
        _well(self.vm, "python3", COMPARER, "save", "/", BEFORE, *EXCLUDED)
        _well(self.vm, "sync")

    def cut(self, phase: str, dice: random.Random) -> str:
        """A run, and the power goes in ``phase``. Returns what became of the run: a state of its record."""
        about = PHASES[phase]
        already = len(self.vm.console())  # recover has told there what it did
        self.vm.start("sh", "-c", RUN, "run", about.script)
        self._await(about.after, already)
        time.sleep(dice.uniform(0, about.seconds))
        self.vm.power_cut()
        assert self.vm.boot() == "running", self.said("systemctl", "list-units", "--failed")
        return self._judge()

    def said(self, *argv: str) -> str:
        done = self.vm.run(*argv, timeout=120)
        return done.stdout + done.stderr

    def _await(self, text: str, already: int) -> None:
        deadline = time.monotonic() + 60
        while text not in self.vm.console()[already:]:
            assert time.monotonic() < deadline, self.vm.console()[-2000:]
            time.sleep(0.02)

    def _judge(self) -> str:
        vm = self.vm
        unit = self.said("systemctl", "show", "-p", "Result,ExecMainStatus,ActiveState", "snapbreaker-recover")
        assert "Result=success" in unit, self.said("journalctl", "-b", "-u", "snapbreaker-recover")
        listed = _well(vm, "snapbreaker", "checkpoint", "list", "--json").splitlines()
        state = json.loads(listed[-1])["state"] if listed else "none"
        if state == "committed":
            assert vm.run("dpkg", "--verify", NAME).returncode == 0, self.said("dpkg", "--verify", NAME)
            assert _well(vm, "dpkg-query", "-W", NAME)
            assert _well(vm, "tail", "-n", "1", "/etc/issue") == "more\n"
            _well(vm, "snapbreaker", "rollback", "--last", "--yes")
        else:
            assert state in ("none", "rolled-back"), state
        assert _well(vm, "dpkg", "--audit") == ""
        compared = vm.run("python3", COMPARER, "diff", "/", BEFORE, *EXCLUDED, timeout=120)
        assert compared.returncode == 0, f"{state}: {compared.stdout}{self.said('journalctl', '-b', '-n', '60')}"
        if listed:
            _well(vm, "snapbreaker", "checkpoint", "delete", json.loads(listed[-1])["id"])
        return str(state)


def _package() -> Package:
    files: dict[str, str | bytes | debs.File | debs.Link] = {
        f"/usr/share/{NAME}/{number}": f"{number}\n" * 1000 for number in range(200)
    }
    files["/etc/cut-off/main.conf"] = "setting\n"
    scripts = {"postinst": f"#!/bin/sh -e\nuseradd --system --no-create-home {NAME}\n"}
    return Package(NAME, files=files, scripts=scripts, conffiles=("/etc/cut-off/main.conf",))


def _well(vm: Vm, *argv: str) -> str:
    done = vm.run(*argv, timeout=120)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
