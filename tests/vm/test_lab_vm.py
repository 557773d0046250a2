"""The lab's VMs: they boot, run commands exactly, survive power cuts, and their death is no failed test."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.lab import cgroups, soak
from tests.lab.errors import LabError
from tests.lab.qemu import Qemu
from tests.lab.vm import Vm
from tests.vm.conftest import MakeVm

SHOW_ARGUMENTS = r"import os, sys; os.write(1, b'\0'.join(map(os.fsencode, sys.argv[1:])))"
NASTY = ("", " ", "a b", "it's", '"', "$HOME", "`id`", "\\", "new\nline\n", "-n", "--", "*", b"\xff\xfe", "é", "#")


def test_it_boots_and_boots_again_after_a_power_cut(vm: Vm) -> None:
    assert vm.run("systemctl", "is-system-running").stdout == "running\n"
    assert re.match(r"6\.1\.", vm.run("uname", "-r").stdout)
    assert vm.run("cat", "/proc/1/comm").stdout == "systemd\n"
    assert vm.run("findmnt", "-no", "FSTYPE,SOURCE", "/").stdout.split() == ["ext4", "/dev/ubda"]
    version = vm.snapbreaker("--version")
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("snapbreaker")
    first = vm.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    assert vm.run("sh", "-c", "echo kept >/srv/file; sync; echo lost >/dev/shm/file").returncode == 0
    vm.power_cut()
    with pytest.raises(LabError, match="not running"):
        vm.run("true")
    assert vm.boot() == "running"
    assert vm.run("cat", "/proc/sys/kernel/random/boot_id").stdout not in (first, "")
    assert vm.run("cat", "/srv/file").stdout == "kept\n"
    assert vm.snapbreaker("--version").stdout == version.stdout
    vm.power_off()
    assert not vm.alive


def test_commands_are_run_exactly_and_all_is_given_back(make_vm: MakeVm) -> None:
    vm = make_vm()
    assert vm.boot() == "running"
    for status in (0, 1, 77, 255):
        assert vm.run("sh", "-c", f"exit {status}").returncode == status
    assert vm.run("/no/such/program").returncode == 127
    shown = vm.run("python3", "-c", SHOW_ARGUMENTS, *NASTY)
    assert os.fsencode(shown.stdout).split(b"\0") == [os.fsencode(word) for word in NASTY]
    script = 'cat; echo out; echo err >&2; echo "$NAME"; pwd'
    said = vm.run("sh", "-c", script, input=b"in\xff\n", env={"NAME": "a 'b'\n$c"}, cwd="/srv")
    assert os.fsencode(said.stdout) == b"in\xff\nout\na 'b'\n$c\n/srv\n"
    assert said.stderr == "err\n"
    with pytest.raises(AssertionError, match="still ran after"):
        vm.run("sh", "-c", "sleep 61; true", timeout=1)
    assert vm.run("pgrep", "sleep").stdout == ""
    cgroup = vm.cgroup
    assert cgroup
    assert cgroups.populated(cgroup)
    panic = vm.start("sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 60")
    with pytest.raises(LabError, match=r"died|hangs"):
        vm.wait(panic, timeout=20)
    vm.close()
    assert not cgroup.exists()
    assert not list(vm.session.glob(f"{vm.name}*"))


@soak.only_long
def test_qemu_boots_again_after_a_power_cut(lab: Path) -> None:
    if reason := Qemu.missing():
        pytest.skip(reason)
    vm = Qemu.create(lab)
    try:
        assert vm.boot() == "running"
        assert vm.run("findmnt", "-no", "FSTYPE,SOURCE", "/").stdout.split() == ["ext4", "/dev/nvme0n1"]
        assert vm.run("sh", "-c", "echo kept >/srv/file; sync").returncode == 0
        vm.power_cut()
        assert vm.boot() == "running"
        assert vm.run("cat", "/srv/file").stdout == "kept\n"
        vm.power_off()
        assert not vm.alive
    finally:
        vm.close()
    assert not list(vm.session.glob(f"{vm.name}*"))
