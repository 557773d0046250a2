"""Power cuts and SIGKILL while datasets are at work on: after the next boot they are as before, or committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import soak
from tests.lab.vm_judge import JUDGE
from tests.lab.vm_zfs import ZfsVm, disks
from tests.vm.conftest import booted

SCOPE = "/d"
MAKE = f"""zpool create -f -O mountpoint=none tank /dev/ubdb
zfs create -o acltype=posixacl -o xattr=sa -o mountpoint={SCOPE} tank/d; zfs create tank/d/child
cd {JUDGE}; python3 -m tests.lab.hostile seed {SCOPE}/child/root; cp -r /etc {SCOPE}/etc
snapbreaker install-service
sync; python3 -m tests.comparer save {SCOPE} /root/before; sync"""
COMPARE = f"cd {JUDGE} && python3 -m tests.comparer diff {SCOPE} /root/before"
CHANGE = f"rm -r {SCOPE}/etc; python3 -m tests.lab.hostile mutate {SCOPE}/child/root; touch /run/changed"
# Waits for a state of a checkpoint, or for the end of the change, and a little; then the power is cut (nothing is
# written any more), or all who work on the checkpoint are killed.
STRIKE = """
import glob, json, os, signal, sys, time
wanted, delay, how = sys.argv[1], float(sys.argv[2]), sys.argv[3]
def found():
    for path in glob.glob("/var/lib/snapbreaker/0*/state.json"):
        try:
            with open(path) as file:
                status = json.load(file)
        except (OSError, ValueError):
            continue
        if status["state"] == wanted or (wanted == "changed" and os.path.exists("/run/changed")):
            return [owner["pid"] for owner in status["owners"]]
open("/run/watching", "w").close()
while (owners := found()) is None:
    time.sleep(0.005)
time.sleep(delay)
if how == "cut":
    open("/proc/sys/kernel/sysrq", "w").write("1")
    open("/proc/sysrq-trigger", "w").write("o")
    time.sleep(60)
for pid in owners:
    os.kill(pid, signal.SIGKILL)
"""
RECOVER = """i=0
until snapbreaker recover; status=$?; [ $status != 4 ]; do
    sleep 1; i=$((i+1)); [ $i -lt 60 ] || break
done; exit $status"""
# Seconds after the checkpoint has got into the state.
_DICE = soak.dice(6)
STATES = ("creating", "running", "restoring")
CUTS = [("creating", 0.0), ("running", 0.4), ("restoring", 0.1), ("restoring", 0.7)]
CUTS += [(_DICE.choice(STATES), _DICE.uniform(0, 2)) for _ in range(soak.times(4) - 4)]
COMMITS = [0.2, *(_DICE.uniform(0, 2) for _ in range(soak.times(1) - 1))]
AWAIT = (
    "i=0; until [ -e /run/watching ]; do sleep 0.02; i=$((i+1)); [ $i -lt 1000 ] || exit 1; done; rm /run/watching"
)


@pytest.fixture(scope="module")
def vm(lab: Path) -> Iterator[ZfsVm]:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = ZfsVm.create(lab, None, disks(lab, 1 << 30))
    try:
        booted(vm)
        vm.put_judge()
        vm.sh(MAKE)
        yield vm
    finally:
        vm.close()


@pytest.mark.parametrize(("state", "delay"), CUTS)
def test_a_power_cut_leaves_what_was(vm: ZfsVm, state: str, delay: float) -> None:
    struck(vm, state, delay, "cut", f"{CHANGE}; echo Error: it failed; sleep 5")
    assert_settled(vm)
    assert_as_before(vm)


@pytest.mark.parametrize("delay", COMMITS)
def test_a_power_cut_in_a_commit(vm: ZfsVm, delay: float) -> None:
    struck(vm, "changed", delay, "cut", CHANGE)
    (last,) = assert_settled(vm)
    if last["state"] == "committed":
        undone = vm.snapbreaker("rollback", "--last", "--yes", timeout=120)
        assert undone.returncode == 0, undone.stdout + undone.stderr
    assert_as_before(vm)


@pytest.mark.parametrize(("state", "delay"), [("running", 0.3), ("restoring", 0.2)])
def test_all_who_work_are_killed(vm: ZfsVm, state: str, delay: float) -> None:
    struck(vm, state, delay, "kill", f"{CHANGE}; echo Error: it failed; sleep 5")
    recovered = vm.run("sh", "-c", RECOVER, timeout=120)  # a guardian that was not noted goes on by itself
    assert recovered.returncode in (0, 1), recovered.stdout + recovered.stderr
    assert_settled(vm)
    assert_as_before(vm)


def struck(vm: ZfsVm, state: str, delay: float, how: str, script: str) -> None:
    """A run of ``script`` that is cut off."""
    vm.sh(f"rm -f /run/changed; cd {JUDGE}")
    watching = vm.start("python3", "-c", STRIKE, state, str(delay), how)
    vm.sh(AWAIT)
    running = vm.start("snapbreaker", "run", "--scope", SCOPE, "--", "sh", "-c", script, cwd=JUDGE)
    if how == "kill":
        vm.wait(watching)
        vm.wait(running, 120)
        return
    assert vm.kernel
    vm.kernel.wait(120)
    vm.power_cut()
    assert vm.boot() == "running", vm.run("systemctl", "list-units", "--failed").stdout


def assert_settled(vm: ZfsVm) -> list[dict[str, Any]]:
    """Nothing is left to be done, and each snapshot is one of a checkpoint's. The checkpoints."""
    listed = vm.snapbreaker("checkpoint", "list", "--json")
    checkpoints = [json.loads(line) for line in listed.stdout.splitlines()]
    assert not [one for one in checkpoints if one["unfinished"]], listed.stdout
    assert {one["state"] for one in checkpoints} <= {"rolled-back", "committed"}, listed.stdout
    owners = vm.sh("zfs list -Ht snapshot -o org.snapbreaker:checkpoint -r tank/d").split()
    assert set(owners) <= {one["id"] for one in checkpoints}
    return checkpoints


def assert_as_before(vm: ZfsVm) -> None:
    compared = vm.run("sh", "-c", COMPARE)
    assert compared.returncode == 0, compared.stdout
    vm.sh(
        "for record in /var/lib/snapbreaker/0*; do [ ! -e $record ] || "
        "snapbreaker checkpoint delete --force ${record##*/}; done"
    )
    assert vm.sh("zfs list -Ht snapshot -r tank/d") == ""
