"""The clock is set while a run is under way: what is put back does not depend on what time it seems to be."""

from __future__ import annotations

import json

import pytest

from tests.lab import soak
from tests.lab.vm import Vm
from tests.vm.judge import listing

FILL = """mkdir -p /srv/d/sub; cd /srv/d
for i in 1 2 3 4; do echo "old $i" >file$i; done
echo sub >sub/file; ln file1 linked; ln -s file2 link; chmod 640 file3; setfattr -n user.name -v value file4
touch -d '2001-02-03 04:05:06.789' file2; touch -d '2040-01-01' file3
"""
CHANGE = """cd /srv/d; {before}; {step}
printf 'new 1\n' >file1; cp -p file2 t; printf 'new 2\n' >file2; touch -r t file2; rm t
rm file3; mkdir new; echo new >new/file; setfattr -n user.name -v other file4; mv sub/file sub/moved; {after}
echo done; false"""
STEP = 'date -s "@$(($(date +%s) {by}))" >/dev/null'
HOURS = 5 * 3600


def seconds(vm: Vm) -> int:
    return int(vm.run("date", "+%s").stdout)


@pytest.mark.parametrize("by", soak.cases([f"- {HOURS}"], [f"+ {HOURS}"]))
def test_a_run_that_sets_the_clock_is_rolled_back_exactly(vm: Vm, by: str) -> None:
    assert vm.run("sh", "-c", FILL).returncode == 0
    before, began = listing(vm, "/srv/d"), seconds(vm)
    change = CHANGE.format(before="echo x >>file4", step=STEP.format(by=by), after=":")
    result = vm.snapbreaker("run", "--scope", "/srv/d", "--backend", "filecopy", "--", "sh", "-c", change)
    assert result.returncode == 1, result.stdout + result.stderr
    assert listing(vm, "/srv/d") == before
    assert abs(seconds(vm) - began) > HOURS / 2, "the clock was not set"
    report = json.loads(vm.snapbreaker("report", "--last", "--format", "json").stdout)
    assert report["issue"]["type"] == "EXIT"


@pytest.mark.parametrize("by", soak.cases([f"+ {HOURS}"], [f"- {HOURS}"]))
def test_the_clock_is_set_by_another_one_meanwhile(vm: Vm, by: str) -> None:
    """And a file that is changed after the step, back to its size and mtime, is found by a rollback."""
    assert vm.run("sh", "-c", FILL).returncode == 0
    before = listing(vm, "/srv/d")
    made = vm.snapbreaker("checkpoint", "create", "--scope", "/srv/d", "--backend", "filecopy")
    assert made.returncode == 0, made.stderr
    assert vm.run("sh", "-c", STEP.format(by=by)).returncode == 0
    assert vm.run("sh", "-c", CHANGE.format(before=":", step=":", after=":")).returncode == 1
    assert vm.snapbreaker("verify", "--last").returncode == 3
    done = vm.snapbreaker("rollback", "--last", "--whole", "--force", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert listing(vm, "/srv/d") == before
