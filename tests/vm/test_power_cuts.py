"""The power goes at random moments of a run. After the next boot it is finished, and nothing is half-way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import soak, vm_roots
from tests.lab.uml import Uml
from tests.lab.vm import Vm
from tests.vm.conftest import booted
from tests.vm.power_cuts import PowerCuts

ROUNDS = soak.cases(
    [("ext4", ("create", "run", "commit", "restore")), ("btrfs", ("restore", "run", "commit"))],
    [("ext4", ("restore", "run", "commit")), ("btrfs", ("create", "run", "commit", "restore"))],
)


@pytest.mark.parametrize(("kind", "rounds"), ROUNDS)
def test_power_cuts(kind: str, rounds: tuple[str, ...], lab: Path) -> None:
    if reason := Uml.missing():
        pytest.skip(reason)
    vm: Vm = Uml.create(lab) if kind == "ext4" else vm_roots.create(lab, kind)
    try:
        cuts = PowerCuts.on(booted(vm))
        dice = soak.dice(len(kind) + len(rounds))
        for number in range(soak.times(len(rounds))):
            phase = rounds[number % len(rounds)]
            print(f"{kind}: cut {number + 1} in {phase}:", cuts.cut(phase, dice))
    finally:
        vm.close()


def test_what_was_said_to_stay_is_on_disk(lab: Path) -> None:
    """The command wrote and synced nothing; the power goes as soon as the run has ended well."""
    if reason := Uml.missing():
        pytest.skip(reason)
    vm = Uml.create(lab)
    try:
        booted(vm)
        done = vm.run(
            "snapbreaker", "run", "--", "sh", "-c", "echo more >>/etc/issue; echo new >/srv/new", timeout=120
        )
        vm.power_cut()
        assert done.returncode == 0, done.stdout + done.stderr
        assert vm.boot() == "running"
        assert vm.run("tail", "-qn", "1", "/etc/issue", "/srv/new").stdout == "more\nnew\n"
    finally:
        vm.close()
