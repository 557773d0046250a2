"""Kernel 6.1 stamps inodes with the time of the last tick (10 ms here), so a change may leave the ctime as it was."""

from __future__ import annotations

import pytest

from tests.lab.uml import Vm
from tests.vm.judge import listing

# Changes each file around the making of a checkpoint, so that some copies are taken within the tick of a change. A
# change keeps the size and sets the mtime back. CHURN ends when the file "stop" is there; "last" says what it wrote.
CHURN = """
import os, sys
os.chdir(sys.argv[1])
names = sorted(name for name in os.listdir("data"))
descriptors = [os.open("data/" + name, os.O_RDWR) for name in names]
turn = 0
open("/run/churn-ready", "w").close()
while not os.path.exists("/run/churn-stop"):
    turn += 1
    for descriptor in descriptors:
        os.pwrite(descriptor, b"%08d" % turn, 0)
        os.utime(descriptor, ns=(10**18, 10**18))
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
    """Writers that never pause, over the whole making of the checkpoint; what it took must be what it compares."""
    fill = "mkdir -p /srv/d/data; for i in $(seq 40); do head -c 5000 /dev/zero >/srv/d/data/$i; done"
    assert vm.run("sh", "-c", fill).returncode == 0
    churn = vm.start("python3", "-c", CHURN, "/srv/d")
    until(vm, "/run/churn-ready")
    checkpoint(vm, "/srv/d")
    assert vm.run("touch", "/run/churn-stop").returncode == 0
    assert vm.wait(churn).returncode == 0
    changed = listing(vm, "/srv/d")
    found = vm.snapbreaker("verify", "--last")
    assert found.returncode == 3, found.stdout + found.stderr
    assert all(f"data/{number}" in found.stdout for number in range(1, 41)), found.stdout
    rollback(vm)
    restored = listing(vm, "/srv/d")
    assert restored != changed
    rollback(vm)
    assert listing(vm, "/srv/d") == restored


@pytest.mark.parametrize("verify", [True, False])
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
