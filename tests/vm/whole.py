"""A machine of which whole volumes are replaced: told what to do, and compared by the independent judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests import comparer
from tests.lab.vm import Vm
from tests.vm.conftest import booted
from tests.vm.power_cuts import COMPARER, EXCLUDED

BEFORE = "/var/tmp/before"
# Found ahead of the program that it has the name of: the power goes at a command that changes something, counted
# from the boot. ``changes`` says which do; it goes before the command, and with ``after`` behind it, too.
CUTTER = r"""#!/bin/sh
cut() {{
	count=$(($(cat /run/cut-count 2>/dev/null || echo 0) + 1))
	echo $count >/run/cut-count
	at=$(cat /run/cut-at 2>/dev/null || sed -n 's/.*cut_at=\([0-9]*\).*/\1/p' /proc/cmdline)
	[ "$count" != "$at" ] || {{ echo o >/proc/sysrq-trigger; sleep 60; }}
}}
case $1 in {changes}) cut ;; *) exec /usr/sbin/${{0##*/}} "$@" ;; esac
/usr/sbin/${{0##*/}} "$@"
code=$?
{after}
exit $code
"""


def prepared(vm: Vm, script: str, places: Sequence[str]) -> Vm:
    """Booted, and what ``script`` makes of it is what has to come back."""
    booted(vm).put(Path(comparer.__file__), COMPARER)
    well(vm, "sh", "-ec", script)
    look(vm, places)
    return vm


def put_cutter(vm: Vm, programs: Sequence[str], changes: str = "*", after: bool = False) -> None:
    text = CUTTER.format(changes=changes, after="cut" if after else ":")
    for name in programs:
        vm.put(text.encode(), f"/usr/local/sbin/{name}", 0o755)


def well(vm: Vm, *argv: str, code: int = 0) -> str:
    done = vm.run(*argv, timeout=240)
    assert done.returncode == code, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def look(vm: Vm, places: Sequence[str]) -> None:
    for number, place in enumerate(places):
        well(vm, "python3", COMPARER, "save", place, f"{BEFORE}{number}", *EXCLUDED)
    well(vm, "sync")


def differences(vm: Vm, places: Sequence[str]) -> str:
    found = ""
    for number, place in enumerate(places):
        done = vm.run("python3", COMPARER, "diff", place, f"{BEFORE}{number}", *EXCLUDED, timeout=240)
        found += done.stdout.removeprefix("no difference\n") + done.stderr
    return found


def state(vm: Vm) -> str:
    """Of the last checkpoint."""
    return str(json.loads(well(vm, "snapbreaker", "checkpoint", "list", "--json").splitlines()[-1])["state"])


def change(vm: Vm, script: str) -> None:
    """By a run that is committed."""
    well(vm, "snapbreaker", "run", "--", "sh", "-ec", script)
    assert state(vm) == "committed"


def forget(vm: Vm) -> None:
    """Delete all checkpoints."""
    well(vm, "sh", "-c", "snapbreaker checkpoint delete $(ls /var/lib/snapbreaker | grep ^0)")


def called_off(vm: Vm) -> None:
    """What was scheduled does not happen, however the machine is booted next."""
    well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
    well(vm, "snapbreaker", "rollback", "--last", "--call-off")
    assert state(vm) == "committed"
    well(vm, "snapbreaker", "rollback", "--last", "--call-off", code=4)
    vm.power_off()
    assert vm.boot() == "running"


def replaced(vm: Vm, *told: str, meanwhile: str = "") -> None:
    """The last run is undone at a boot; what is kept goes on until then."""
    said = well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
    for text in ("takes effect at reboot (exit 5)", *told):
        assert text in said
    assert state(vm) == "reboot-pending"
    assert "useradd" not in well(vm, "id", "deploy")  # nothing has changed under what runs
    later = "echo later >>/var/log/service.log; echo later >/var/tmp/kept/file; echo lost >/etc/lost"
    well(vm, "sh", "-ec", f"{meanwhile}\n{later}; sync")
    vm.power_cut()
    assert vm.boot() == "running"
    assert state(vm) == "rolled-back"
    assert well(vm, "cat", "/var/tmp/kept/file", "/var/log/service.log").split() == ["later", "old", "later"]
    report = json.loads(well(vm, "snapbreaker", "report", "--last", "--format", "json"))
    assert report["outcome"] == "rolled-back"
    well(vm, "snapbreaker", "verify", "--last")
