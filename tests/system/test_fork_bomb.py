"""A fork bomb of root is frozen and killed, though it leaves no process for anybody else, snapbreaker included."""

from __future__ import annotations

import pytest

from tests import comparer
from tests.lab import cgroups
from tests.lab.errors import LabError
from tests.lab.machine import Machine
from tests.system.scene import report, script

MOST = 400
# Each makes new ones for ever; each of those leads a session of its own, and many are orphans. (Who is refused one
# waits a moment: others work on this machine, too.) The shell that wants a process is refused one, and says so.
BOMB = r"""
echo changed >/srv/file
perl -MPOSIX -e 'while (1) {
    my $pid = fork;
    if (!defined $pid) { select(undef, undef, undef, 0.05) }
    elsif (!$pid) { POSIX::setsid }
    elsif (rand() < .3) { exit }
}' &
while (:); do :; done
"""


def test_a_fork_bomb_is_frozen_and_killed(ext4_machine: Machine) -> None:
    try:
        cgroups.pids_hierarchy()
    except LabError as error:
        pytest.skip(f"{error}: run the tests where it is")
    machine = ext4_machine
    change = script(machine, BOMB)
    before = machine.snapshot()
    with cgroups.few_processes(f"{machine.session.name}.bomb", MOST) as counted:
        result = machine.snapbreaker("run", "--idle", "100", "--", change, timeout=150)
        refused = (counted / "pids.events").read_text().split()
    assert result.returncode == 1, result.stderr
    assert refused[0] == "max"
    assert int(refused[1]) > 0
    told = report(machine)
    assert told["issue"]["line"].endswith("Cannot fork")
    assert told["halt"]["killed"] > MOST / 2
    assert told["halt"]["survivors"] == []
    assert told["differences"] == []
    assert machine.run("pgrep", "-a", "perl", session=False).stdout == ""
    assert comparer.differences(before, machine.snapshot()) == []
