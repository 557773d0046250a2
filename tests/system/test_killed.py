"""snapbreaker killed, or the whole machine, at any moment of a run that changes packages, services and files."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import debs, soak
from tests.lab.machine import Machine
from tests.system.conftest import MakeMachine, booted
from tests.system.facts import Facts, facts

ROUNDS = 6
# The run ends by itself after about a second and is committed, unless it is cut off before.
CHANGE = """#!/bin/sh
dpkg -i /debs/victim_1.0_all.deb >/dev/null 2>&1
echo changed >> /etc/hosts
systemctl stop atd.service
systemctl mask --runtime systemd-ask-password-wall.path >/dev/null 2>&1
useradd someone
rm -r /etc/security
exit 0
"""


class Scene:
    """A machine before the change, and after it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        service = "/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /opt/victim 8080"
        files = {f"/opt/victim/{number}": f"{number}\n" for number in range(50)}
        package = debs.Package("victim", files=files, services={"victim": service})
        debs.build(package, machine.root / "debs")
        script = Path(machine.root) / "root/change.sh"
        script.write_text(CHANGE)
        script.chmod(0o755)
        assert machine.snapbreaker("install-service").returncode == 0
        self.before, self.system = machine.snapshot(), facts(machine)

    def judge(self, moment: str) -> str:
        """The machine is what it was; or the run was committed, then it is undone first."""
        machine = self.machine
        shown = machine.snapbreaker("checkpoint", "list", session=False)
        assert shown.returncode == 0, shown.stderr
        listed = shown.stdout.splitlines()
        state = listed[-1].split()[1] if listed else "never made"
        if state == "committed":
            assert facts(machine).packages != self.system.packages
            back = machine.snapbreaker("rollback", "--last", "--yes", session=False)
            assert back.returncode == 0, f"{moment}: {back.stderr}"
        else:
            assert state in ("rolled-back", "never made"), f"{moment}: {listed}"
        assert comparer.differences(self.before, machine.snapshot()) == [], f"{moment}, {state}"
        assert self._differences() == {}, f"{moment}, {state}"
        return state

    def _differences(self) -> dict[str, object]:
        deadline = time.monotonic() + 5
        while True:
            found = self.system.differences(self._now())
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def _now(self) -> Facts:
        return facts(self.machine)


def descendants(pid: int) -> list[int]:
    """``pid`` and all below it."""
    found = [pid]
    for one in found:
        try:
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        found += [int(child) for child in children]
    return found


def kill_all_of_snapbreaker(machine: Machine) -> None:
    """Worker, supervisor and guardian at once; of what they started nobody."""
    assert machine.container
    for _ in range(3):
        for pid in descendants(machine.container.init):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\\0")
            except OSError:
                continue
            if any(word.endswith(b"/snapbreaker") for word in words[:4]):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


@pytest.mark.parametrize("fstype", soak.cases(["ext4"], ["btrfs"]))
def test_killed_at_any_moment(make_machine: MakeMachine, fstype: str) -> None:
    """All of snapbreaker dies; `recover` finishes it, whatever it was doing."""
    scene, seed = Scene(booted(make_machine(fstype))), random.randrange(1 << 30)
    moments, ends = random.Random(seed), []
    for number in range(ROUNDS):
        moment = moments.uniform(0.05, 3.0)
        process = scene.machine.start("snapbreaker", "run", "--", "/root/change.sh")
        time.sleep(moment)
        kill_all_of_snapbreaker(scene.machine)
        process.communicate(timeout=30)
        recovered = scene.machine.snapbreaker("recover", session=False)  # nobody can log in without /etc/security
        what = f"seed {seed}, round {number}, after {moment:.3f} s"
        assert recovered.returncode == 0, f"{what}: {recovered.stderr}"
        ends.append(scene.judge(what))
    assert ends


def test_power_cut_at_any_moment(make_machine: MakeMachine) -> None:
    """Every process of the machine dies at once. The next boot finishes the run, and comes up whole."""
    scene, seed = Scene(booted(make_machine("ext4"))), random.randrange(1 << 30)
    moments = random.Random(seed)
    for number in range(ROUNDS):
        moment = moments.uniform(0.3, 3.0)
        scene.machine.start("snapbreaker", "run", "--", "/root/change.sh")
        time.sleep(moment)
        scene.machine.crash()
        what = f"seed {seed}, round {number}, after {moment:.3f} s"
        assert scene.machine.boot() == "running", what
        scene.judge(what)
