"""What the guard cannot see, or cannot tell because it is gone, is named: exit 3, and no wait without an end."""

from __future__ import annotations

import pytest

from tests.lab.uml import Vm

# The kernel of Debian's user-mode Linux is built without CONFIG_FANOTIFY_ACCESS_PERMISSIONS: take this line away
# when the VM has one with it.
pytestmark = pytest.mark.skip(reason="needs a VM whose kernel has CONFIG_FANOTIFY_ACCESS_PERMISSIONS")

TRUNCATE = """python3 -c 'import os; os.truncate("/srv/d/f", 3)'; false"""
GUARD = "snapbreaker-guard"  # how pgrep -f finds the guard: to be set when it has a name
STRIKE = "pkill -{signal} -f {guard}; printf new | dd of=/srv/d/f conv=notrunc status=none; false"


def run(vm: Vm, command: str) -> None:
    assert vm.run("sh", "-c", "mkdir /srv/d; echo content >/srv/d/f; sync").returncode == 0
    done = vm.snapbreaker("run", "--scope", "/srv/d", "--", "sh", "-c", command, timeout=60)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "/srv/d/f" in done.stdout + done.stderr


def test_truncate_by_path_is_named(vm: Vm) -> None:
    run(vm, TRUNCATE)


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_guard_that_is_struck_down_is_told(vm: Vm, signal: str) -> None:
    run(vm, STRIKE.format(signal=signal, guard=GUARD))
    assert vm.run("cat", "/srv/d/f", timeout=10).returncode == 0
