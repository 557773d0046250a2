"""What cron and atd start for a run is the run's: it dies, and what it wrote goes back; others' jobs live on."""

from __future__ import annotations

from tests import comparer
from tests.lab.machine import Machine
from tests.system.facts import facts, processes
from tests.system.scene import put, report, script

# Shells execute their last command in their own place: nothing of the line is left but that. One job leaves its
# parents, one is of a table that crontab(1) writes, one is a line beside others'.
CHANGE = r"""
cat >/etc/cron.d/ours <<'TABLE'
NOTE=new
* * * * * root while :; do date >>/srv/loop; sleep 0.05; done
* * * * * root echo >/srv/plain; exec sleep 5001
* * * * * root (setsid sh -c 'while :; do date >>/srv/orphan; sleep 0.05; done' >/dev/null 2>&1 &)
TABLE
echo '* * * * * root cd / && TIME=5002 && echo >/srv/beside && sleep $TIME' >>/etc/cron.d/shared
echo '* * * * * echo >/srv/personal; sleep 5003' | crontab -u nobody -
echo 'while :; do date >>/srv/at; sleep 0.05; done' | at now 2>/dev/null
echo 'date >>/srv/later' | at now + 1 minutes 2>/dev/null
for name in loop plain orphan beside at; do
    until [ -s /srv/$name ]; do sleep 0.05; done
done
for time in 5003 6001 6002; do
    until pgrep -xf "sleep $time" >/dev/null; do sleep 0.05; done
done
echo 'ERROR: enough'
while :; do date >>/srv/more; done
"""
OTHERS = "* * * * * root sleep 6001\n* * * * * root exec sleep $LONG\n"


def test_jobs_of_cron_and_at_that_a_run_wrote_are_its_own(ext4_machine: Machine) -> None:
    machine = ext4_machine
    installed = machine.run("apt-get", "install", "-qqy", "cron", "at", session=False)
    assert installed.returncode == 0, installed.stderr
    put(machine, "/etc/cron.d/shared", f"LONG=6002\n{OTHERS}")
    change = script(machine, CHANGE)
    before, system, running = machine.snapshot(), facts(machine), processes(machine)
    result = machine.snapbreaker("run", "--idle", "100", "--", change, timeout=150)
    assert result.returncode == 1, result.stderr
    left = machine.run("pgrep", "-a", "sleep", session=False).stdout
    assert {line.split()[-1] for line in left.splitlines()} == {"6001", "6002"}, left
    told = report(machine)
    assert told["issue"]["line"] == "ERROR: enough"
    ended = "\n".join(told["warnings"])
    for name in ("/etc/cron.d/ours", "/etc/cron.d/shared", "/var/spool/cron/crontabs/nobody", "atd.service"):
        assert name in ended, ended
    # The shell of a job may have ended before it could be asked whose it is: what it wrote goes back as well.
    daemons = {"/srv/later": "atd.service", "/srv/plain": "cron.service"}
    others = [(one["path"], one["text"]) for one in told["foreign"]]
    assert [(path, text) for path, text in others if daemons.get(path, "?") not in text] == []
    states = machine.run("ps", "-C", "cron,atd", "-o", "state=", session=False).stdout.split()
    assert set(states) == {"S"}  # they are let go again
    assert [line for line in processes(machine) if "CRON" not in line and "sleep 600" not in line] == running
    assert comparer.differences(before, machine.snapshot()) == []
    assert system.differences(facts(machine)) == {}
