"""What a run is judged by besides the output of its command: units that fail, the journal, apt's own log."""

from __future__ import annotations

import pytest

from tests import comparer
from tests.lab import debs
from tests.lab.machine import Machine
from tests.system.facts import facts
from tests.system.scene import put, report, script, started, systemctl, unit, until

OK = "rolled back and verified"
# Ends with 143 when it is to stop, as a Java program does.
STUBBORN = "/bin/sh -c 'trap \"exit 143\" TERM; while :; do sleep 0.1; done'"


def failing(machine: Machine, name: str, how: str, more: str = "") -> None:
    unit(machine, name, f"/bin/sh -c '{how}'", more)


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ("exit 3", ""),
        ("sleep 0.4; exit 3", ""),  # the command has ended by then
        ("sleep 0.1; exit 3", "Restart=always\nRestartSec=1000"),
        ("exit 3", "Restart=always\nRestartSec=0\n[Unit]\nStartLimitIntervalSec=0"),
        ("kill -SEGV $$$$", ""),
    ],
    ids=["at once", "later", "restarted", "over and over", "by a signal"],
)
def test_a_unit_that_the_run_starts_fails(ext4_machine: Machine, how: str, more: str) -> None:
    failing(ext4_machine, "app", f"echo cannot go on; {how}", more)
    systemctl(ext4_machine, "daemon-reload")
    change = script(ext4_machine, "echo x >/srv/changed; systemctl start app; echo started")
    before, system = ext4_machine.snapshot(), facts(ext4_machine)
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    assert OK in result.stderr
    issue = report(ext4_machine)["issue"]
    assert (issue["type"], issue["rule"], issue["source"]) == ("ERROR", "unit-failed", "journal:app.service")
    assert issue["line"].startswith("app.service: failed (")
    assert "its journal ends: cannot go on" in issue["reason"]
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    assert system.differences(facts(ext4_machine)) == {}


def test_a_transient_unit_that_fails(ext4_machine: Machine) -> None:
    change = script(ext4_machine, "systemd-run --quiet --unit=brief sh -c 'exit 3'; sleep 1000")
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    assert report(ext4_machine)["issue"]["line"] == "brief.service: failed (exit-code, status 3)"


def test_a_unit_whose_failure_is_known_to_be_harmless(ext4_machine: Machine) -> None:
    failing(ext4_machine, "app", "exit 3")
    systemctl(ext4_machine, "daemon-reload")
    change = script(ext4_machine, "systemctl start app; echo started")
    assert ext4_machine.snapbreaker("run", "--", change).returncode == 1
    allowed = ext4_machine.snapbreaker("rules", "allow", "--system", "--last", "--reason", "a probe, may fail")
    assert allowed.returncode == 0, allowed.stderr
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 0, result.stderr


def test_units_that_are_to_stop_or_were_not_well_before(ext4_machine: Machine) -> None:
    """Also one that fails over and over since before the run, and one that a timer starts."""
    for name in ("stopped", "restarted", "removed"):
        unit(ext4_machine, name, STUBBORN)
    failing(ext4_machine, "broken", "exit 3")
    failing(
        ext4_machine, "flapping", "sleep 0.2; exit 3", "Restart=always\nRestartSec=0.1\nStartLimitIntervalSec=0"
    )
    failing(ext4_machine, "tick", "exit 3", "Type=oneshot")
    put(
        ext4_machine,
        "/usr/lib/systemd/system/tick.timer",
        "[Timer]\nOnActiveSec=0.1\nOnUnitInactiveSec=0.3\nAccuracySec=10ms\n[Install]\nWantedBy=timers.target\n",
    )
    unit(ext4_machine, "good")
    started(ext4_machine, "stopped", "restarted", "removed", "flapping", "tick.timer")
    ext4_machine.run("systemctl", "start", "broken")
    until(ext4_machine, "systemctl is-failed broken")
    change = script(
        ext4_machine,
        "systemctl stop stopped; systemctl restart restarted; systemctl disable --quiet --now removed\n"
        "systemctl start good; systemctl daemon-reexec; sleep 2; systemctl restart restarted; echo done",
    )
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 0, result.stderr


def test_the_journal_of_units_that_the_run_touches(ext4_machine: Machine) -> None:
    unit(ext4_machine, "app", "/bin/sh -c 'echo \"<3>the cache is cold\"; exec sleep 1000'")
    unit(ext4_machine, "other", "/bin/sh -c 'while :; do echo \"<3>noise\"; sleep 0.05; done'")
    started(ext4_machine, "other")
    change = script(ext4_machine, "systemctl start app; sleep 0.2; echo started")
    assert ext4_machine.snapbreaker("run", "--", change).returncode == 0
    systemctl(ext4_machine, "stop", "app")
    result = ext4_machine.snapbreaker("run", "--journal", "--", change)
    assert result.returncode == 1, result.stderr
    assert "[journal:app.service] [error] the cache is cold" in result.stderr
    issue = report(ext4_machine)["issue"]
    assert (issue["source"], issue["line"]) == ("journal:app.service", "[error] the cache is cold")
    record = ext4_machine.run("sh", "-c", "cd /var/lib/snapbreaker/*2-2*/ && cat journal:app.service.log").stdout
    assert "[error] the cache is cold\n" in record
    assert "noise" not in result.stderr
    named = ext4_machine.snapbreaker("run", "--unit", "other", "--", "sleep", "1")
    assert named.returncode == 1, named.stderr
    assert report(ext4_machine)["issue"]["source"] == "journal:other.service"


def test_a_unit_that_logs_a_lot_at_once(ext4_machine: Machine) -> None:
    """Much more than is read in one go, and what matters in the midst of it."""
    loud = 'seq 4000 | sed "2000s/.*/the cache is cold, which is an ERROR/"; exec sleep 1000'
    unit(ext4_machine, "app-1.2", f"/bin/sh -c '{loud}'")
    systemctl(ext4_machine, "daemon-reload")
    for option in ("--journal", "--unit=app-1.2"):
        change = script(ext4_machine, "systemctl start app-1.2.service; sleep 1; echo started")
        result = ext4_machine.snapbreaker("run", option, "--", change)
        assert result.returncode == 1, result.stderr
        assert report(ext4_machine)["issue"]["line"] == "the cache is cold, which is an ERROR"


def test_a_warning_in_the_journal_and_lines_of_no_level(ext4_machine: Machine) -> None:
    unit(ext4_machine, "app", "/bin/sh -c 'echo all is fine; echo \"<4>careful\"; exec sleep 1000'")
    systemctl(ext4_machine, "daemon-reload")
    result = ext4_machine.snapbreaker("run", "--journal", "--", "systemctl", "start", "app")
    assert result.returncode == 1, result.stderr
    issue = report(ext4_machine)["issue"]
    assert (issue["type"], issue["line"]) == ("WARNING", "[warning] careful")


def test_what_the_command_logs_itself_is_no_unit_of_its(ext4_machine: Machine) -> None:
    change = script(ext4_machine, "logger -p user.err 'ERROR: elsewhere' || true; echo fine")
    assert ext4_machine.snapbreaker("run", "--journal", "--", change).returncode == 0


HIDDEN = "echo 'WARNING: the old format will be dropped'\n"


@pytest.mark.parametrize("where", [">/dev/null 2>&1", ""], ids=["hidden", "shown"])
def test_what_dpkg_says_where_apt_is_not_heard(ext4_machine: Machine, where: str) -> None:
    debs.add(ext4_machine.root, debs.Package("talker", scripts={"postinst": HIDDEN}))
    assert ext4_machine.run("apt-get", "-qq", "update").returncode == 0
    change = script(ext4_machine, f"apt-get -y install talker {where}\nsleep 1.5; echo installed")
    observed = ext4_machine.snapbreaker("run", "--observe", "--", change)
    assert observed.returncode == 0, observed.stderr
    told = report(ext4_machine)["issues"]
    assert [one["line"] for one in told] == ["WARNING: the old format will be dropped"], told
    assert told[0]["source"] == ("/var/log/apt/term.log" if where else "stdout")


def test_a_log_in_a_sandbox(ext4_machine: Machine) -> None:
    change = script(ext4_machine, "mkdir -p /srv/log; echo 'ERROR: in here' >/srv/log/app.log; sleep 1000")
    result = ext4_machine.snapbreaker("run", "--backend", "overlay", "--log", "/srv/log/app.log", "--", change)
    assert result.returncode == 1, result.stderr
    issue = report(ext4_machine)["issue"]
    assert (issue["source"], issue["line"]) == ("/srv/log/app.log", "ERROR: in here")


def test_failed_units_are_taken_away(machine: Machine) -> None:
    """One of a file and a transient one; the first trips, the other has failed by then or never gets to it."""
    failing(machine, "failing", "exit 3")
    systemctl(machine, "daemon-reload")
    change = script(
        machine,
        "systemd-run --quiet --unit=broken sh -c 'exit 3' & systemctl start failing.service; wait; sleep 60\n",
    )
    before, system = machine.snapshot(), facts(machine)
    result = machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    assert OK in result.stderr
    assert report(machine)["issue"]["line"] in {
        "failing.service: failed (exit-code, status 3)",
        "broken.service: failed (exit-code, status 3)",
    }
    assert system.differences(facts(machine)) == {}
    assert comparer.differences(before, machine.snapshot()) == []
