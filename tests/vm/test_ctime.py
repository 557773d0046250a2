"""Kernel 6.1 stamps inodes with the time of the last tick (10 ms here): a change may leave the ctime as it was."""

from __future__ import annotations

import pytest

from tests.lab import soak
from tests.lab.vm import Vm
from tests.vm.judge import listing

# Changes files without a pause, each time with the same size and the mtime set back, until so many turns after the
# checkpoint's pack has appeared. So the last change of a file may be in the tick in which its copy was taken.
CHURN = """
import glob, os, sys
scope, turns = sys.argv[1], int(sys.argv[2])
descriptors = [os.open(f"{scope}/{number}", os.O_RDWR) for number in range(1, 41)]
old = set(glob.glob("/.snapbreaker/*/*/*"))
turn = 0
open("/run/churn-ready", "w").close()
while turns >= 0:
    turn += 1
    for descriptor in descriptors:
        os.pwrite(descriptor, b"%08d" % turn, 0)
        os.utime(descriptor, ns=(10**18, 10**18))
    turns -= bool(set(glob.glob("/.snapbreaker/*/*/*")) - old)
"""
# Dirties a page through a mapping: before the checkpoint (the page is writable from then on, without a fault) and
# after it, with the mtime set back.
MAPPED = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
page = mmap.mmap(fd, 4096)
page[:6] = b"before"
open("/run/mapped-ready", "w").close()
while not os.path.exists("/run/mapped-go"):
    time.sleep(0.01)
page[:6] = b"after!"
os.utime(fd, ns=(10**18, 10**18))
open("/run/mapped-done", "w").close()
"""
# A change in the very tick of the one before: the same ctime, size and mtime, other content.
SAME_TICK = """
import os, sys
path, first, second = sys.argv[1:]
fd = os.open(path, os.O_RDWR | os.O_CREAT)
for turn in range(1000):
    os.pwrite(fd, first.encode(), 0)
    os.utime(fd, ns=(10**18, 10**18))
    one = os.fstat(fd).st_ctime_ns
    os.pwrite(fd, second.encode(), 0)
    os.utime(fd, ns=(10**18, 10**18))
    if os.fstat(fd).st_ctime_ns == one:
        break
else:
    sys.exit("a tick between the two each time")
"""
AWAIT = 'i=0; while ! [ -e "$1" ]; do sleep 0.02; i=$((i+1)); [ $i -lt 1000 ] || exit 1; done'


def until(vm: Vm, path: str) -> None:
    assert vm.run("sh", "-c", AWAIT, "await", path).returncode == 0, f"{path} never came"


def checkpoint(vm: Vm, scope: str) -> None:
    made = vm.snapbreaker("checkpoint", "create", "--scope", scope, "--backend", "filecopy")
    assert made.returncode == 0, made.stderr


def rollback(vm: Vm) -> None:
    done = vm.snapbreaker("rollback", "--last", "--whole", "--force", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    again = vm.snapbreaker("verify", "--last", "--deep")
    assert again.returncode == 0, again.stdout + again.stderr


def test_ticks_are_coarse(vm: Vm) -> None:
    """What the tests below rely on: two changes in one tick leave one ctime."""
    done = vm.run("python3", "-c", SAME_TICK, "/srv/file", "first", "other")
    assert done.returncode == 0, done.stderr
    assert vm.run("cat", "/srv/file").stdout == "other"


def test_a_file_changed_in_the_tick_of_the_checkpoint_is_found(vm: Vm) -> None:
    """What a checkpoint took and what is there differ at most where ``verify`` says so, by times alone as well."""
    fill = "mkdir /srv/d; for i in $(seq 40); do head -c 5000 /dev/zero >/srv/d/$i; done"
    assert vm.run("sh", "-c", fill).returncode == 0
    for turns in (0, 1, 3, 10, 30):
        churn = vm.start("python3", "-c", CHURN, "/srv/d", str(turns))
        until(vm, "/run/churn-ready")
        checkpoint(vm, "/srv/d")
        assert vm.wait(churn).returncode == 0
        left = listing(vm, "/srv/d")
        found = vm.snapbreaker("verify", "--last")
        rollback(vm)
        differ = set(listing(vm, "/srv/d")) ^ set(left)
        assert found.returncode == (3 if differ else 0), f"{turns}: {found.stdout}{found.stderr}{differ}"
        assert vm.run("rm", "/run/churn-ready").returncode == 0


@pytest.mark.parametrize("verify", soak.cases([True], [False]))
def test_a_mapping_dirtied_across_the_checkpoint_is_found(vm: Vm, verify: bool) -> None:
    assert vm.run("sh", "-c", "mkdir /srv/d; head -c 4096 /dev/zero >/srv/d/mapped; sync").returncode == 0
    writer = vm.start("python3", "-c", MAPPED, "/srv/d/mapped")
    until(vm, "/run/mapped-ready")
    checkpoint(vm, "/srv/d")
    assert vm.run("touch", "/run/mapped-go").returncode == 0
    until(vm, "/run/mapped-done")
    assert vm.wait(writer).returncode == 0
    assert vm.run("head", "-c", "6", "/srv/d/mapped").stdout == "after!"
    if verify:
        found = vm.snapbreaker("verify", "--last")
        assert found.returncode == 3, found.stdout + found.stderr
        assert "mapped" in found.stdout
    rollback(vm)
    assert vm.run("head", "-c", "6", "/srv/d/mapped").stdout == "before"
