"""What a run does to units of systemd, and to the services that work on its files, is undone."""

from __future__ import annotations

import pytest

from tests import comparer
from tests.lab.machine import Machine
from tests.system.facts import facts, processes
from tests.system.scene import report, script, show, started, systemctl, unit, units_of, until, wait_for

END = "\necho 'ERROR: enough'\nsleep 60\n"
OK = "rolled back and verified"

UNITS = r"""
systemctl stop running.service
systemctl disable --quiet enabled.service
systemctl enable --quiet --now disabled.service
systemctl mask --quiet --now masked.service
systemctl mask --quiet --runtime --now masked-runtime.service
mkdir -p /etc/systemd/system/edited.service.d
printf '[Service]\nEnvironment=WHO=run\n' >/etc/systemd/system/edited.service.d/override.conf
systemctl daemon-reload
systemctl restart edited.service
systemctl set-property --runtime tuned.service CPUWeight=77
systemctl set-property tuned.service IOWeight=55
cat >/etc/systemd/system/ours.service <<UNIT
[Service]
ExecStart=/bin/sh -c 'while :; do date >>/srv/ours; sleep 0.05; done'
UNIT
cat >/etc/systemd/system/ours.timer <<UNIT
[Timer]
OnActiveSec=0
OnUnitInactiveSec=1
UNIT
cat >/etc/systemd/system/door.socket <<UNIT
[Socket]
ListenStream=4711
UNIT
cat >/etc/systemd/system/door.service <<UNIT
[Service]
ExecStart=sleep 1000
UNIT
cat >/etc/systemd/system/watch.path <<UNIT
[Path]
PathExists=/srv/flag
Unit=watched.service
UNIT
cat >/etc/systemd/system/watched.service <<UNIT
[Service]
ExecStart=sleep 1000
UNIT
cat >/run/systemd/system/volatile.service <<UNIT
[Service]
ExecStart=sleep 1000
UNIT
systemctl daemon-reload
systemctl start ours.timer door.socket watch.path volatile.service
touch /srv/flag
systemd-run --quiet --unit=brief --on-active=1000 true
systemctl reset-failed failed.service
systemctl daemon-reexec
(exec 3<>/dev/tcp/127.0.0.1/4711) 2>/dev/null
sleep 0.3
"""
SERVICES = (
    "running",
    "enabled",
    "masked",
    "masked-runtime",
    "edited",
    "tuned",
)


def own(machine: Machine) -> list[str]:
    """Without PID 1, whose arguments say that it was executed anew."""
    return [line for line in processes(machine) if not line.startswith("init.scope")]


def test_every_state_of_a_unit_comes_back(machine: Machine) -> None:
    for name in (*SERVICES, "disabled"):
        unit(machine, name, more="Environment=WHO=nobody")
    unit(machine, "failed", "/bin/false")
    change = script(machine, UNITS + END)
    started(machine, *SERVICES)
    machine.run("systemctl", "start", "failed")
    until(machine, "systemctl is-failed failed")
    before, system, running = machine.snapshot(), facts(machine), own(machine)
    properties = ("CPUWeight", "IOWeight", "DropInPaths", "Environment", "NeedDaemonReload")
    shown = {name: show(machine, name, *properties) for name in SERVICES}
    assert system.units["failed.service"] == "failed"
    result = machine.snapbreaker("run", "--", change)
    # A failure that was forgotten cannot be made again: it is told, and no difference.
    assert result.returncode == 1, result.stderr
    assert OK in result.stderr
    told = report(machine)
    assert told["issue"]["line"] == "ERROR: enough", result.stderr
    assert told["warnings"] == ["unit failed.service had failed before; that was reset, and cannot be made again"]
    assert told["foreign"] == []
    now = facts(machine)
    assert system.units.pop("failed.service") == "failed"
    assert "failed.service" not in now.units
    assert "failed.service" in system.failed
    assert "failed.service" not in now.failed
    assert now.failed == ""
    assert {name: pair for name, pair in system.differences(now).items() if name != "failed"} == {}
    assert own(machine) == running
    assert {name: show(machine, name, *properties) for name in SERVICES} == shown
    assert comparer.differences(before, machine.snapshot()) == []
    assert machine.run("ls", "/run/systemd/system/volatile.service").returncode != 0
    done = units_of(told)
    assert done["running.service"] == "started"
    assert done["disabled.service"] == "stopped"
    assert done["door.socket"] == "stopped"
    assert done["edited.service"].startswith("restarted: ")


DAEMONS = r"""
cat >/etc/systemd/system/leaver.service <<UNIT
[Service]
Type=forking
KillMode=process
PIDFile=/run/leaver.pid
ExecStart=/bin/sh -c 'sleep 1001 & sleep 1002 & sleep 1003 & echo \$! >/run/leaver.pid'
UNIT
cat >/etc/systemd/system/notifier.service <<UNIT
[Service]
Type=notify
NotifyAccess=all
KillMode=none
ExecStart=/bin/sh -c 'sleep 1004 & systemd-notify --ready; exec sleep 1005'
UNIT
cat >/etc/systemd/system/stubborn.service <<UNIT
[Service]
ExecStart=/bin/sh -c 'trap "" TERM; while :; do sleep 1; date >>/srv/stubborn; done'
ExecStop=sleep 1006
TimeoutStopSec=infinity
UNIT
cat >/etc/systemd/system/always.service <<UNIT
[Service]
ExecStart=/bin/sh -c 'sleep 0.2; date >>/srv/always'
Restart=always
RestartSec=0
StartLimitIntervalSec=0
UNIT
cat >/etc/systemd/system/starting.service <<UNIT
[Service]
Type=notify
ExecStart=sleep 1007
UNIT
systemctl daemon-reload
systemctl start leaver notifier stubborn always
systemctl start --no-block starting
systemctl stop restless
"""


def test_daemons_that_hold_on_are_ended(ext4_machine: Machine) -> None:
    """KillMode=process and none leave children; one never stops, one always comes back, one never gets ready."""
    unit(ext4_machine, "restless", "sleep 1000", "Restart=always")
    started(ext4_machine, "restless")
    change = script(ext4_machine, DAEMONS + END)
    before, system, running = ext4_machine.snapshot(), facts(ext4_machine), own(ext4_machine)
    result = ext4_machine.snapbreaker("run", "--", change, timeout=120)
    assert result.returncode == 1, result.stderr
    told = report(ext4_machine)
    assert told["issue"]["line"] == "ERROR: enough"
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    assert system.differences(facts(ext4_machine)) == {}
    assert own(ext4_machine) == running
    assert ext4_machine.run("pgrep", "-xa", "sleep", session=False).stdout.count("\n") == 1
    done = units_of(told)
    assert done.pop("restless.service") == "started"
    assert set(done) == {f"{name}.service" for name in ("leaver", "notifier", "stubborn", "always", "starting")}
    reconciled = sum(phase["seconds"] for phase in told["timeline"] if phase["name"] == "reconcile")
    assert reconciled < 10, told["timeline"]


QUEUED = r"""
cat >/etc/systemd/system/slow.service <<UNIT
[Service]
Type=oneshot
ExecStart=sleep 1001
UNIT
cat >/etc/systemd/system/waiting.service <<UNIT
[Unit]
After=slow.service
[Service]
ExecStart=sleep 1002
UNIT
systemctl daemon-reload
systemctl start --no-block slow.service waiting.service
systemctl stop --no-block slowly.service
"""


def test_queued_jobs_are_cancelled(ext4_machine: Machine) -> None:
    unit(ext4_machine, "slowly", "sleep 1000", "ExecStop=sleep 2")
    started(ext4_machine, "slowly")
    change = script(ext4_machine, QUEUED + END)
    before, system = ext4_machine.snapshot(), facts(ext4_machine)
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    assert report(ext4_machine)["issue"]["line"] == "ERROR: enough"
    assert ext4_machine.run("systemctl", "list-jobs", "--no-legend", session=False).stdout == ""
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    assert system.differences(facts(ext4_machine)) == {}
    assert systemctl(ext4_machine, "is-active", "slowly") == "active\n"


@pytest.mark.parametrize("words", ["systemctl reboot", "systemctl --no-block start reboot.target"])
def test_a_reboot_that_the_run_began(ext4_machine: Machine, words: str) -> None:
    """It is not called off half-way: the files go back, at the latest when the machine boots."""
    unit(ext4_machine, "slowly", "sleep 1000", "ExecStop=sleep 3")
    started(ext4_machine, "slowly")
    installed = ext4_machine.snapbreaker("install-service", session=False)
    assert installed.returncode == 0, installed.stderr
    change = script(ext4_machine, f"echo x >/etc/new; rm /etc/issue; {words}; sleep 0.5" + END)
    system, before = facts(ext4_machine), ext4_machine.snapshot()
    ext4_machine.start("snapbreaker", "run", "--", change)
    wait_for(lambda: not ext4_machine.running, 40)
    assert ext4_machine.boot() == "running"
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    now = facts(ext4_machine)
    # Which of its own parts systemd finds something to do for differs from boot to boot.
    for one in (system, now):
        for name in [name for name in one.units if name.startswith("systemd-")]:
            del one.units[name]
    assert system.differences(now) == {}
    assert ext4_machine.snapbreaker("recover").returncode == 0
    told = report(ext4_machine)
    assert told["outcome"] == "rolled-back", told
    assert told["issue"]["type"] == "INTERRUPTED"
    assert any("shutting down" in text or "booted since" in text for text in told["warnings"]), told["warnings"]


def test_undo_and_redo_leave_what_the_admin_did_since(ext4_machine: Machine) -> None:
    for name in ("one", "two", "three", "four", "five"):
        unit(ext4_machine, name)
    started(ext4_machine, "one", "three", "five")
    change = script(
        ext4_machine,
        "systemctl disable --quiet --now one; systemctl enable --quiet --now two\n"
        "systemctl mask --quiet --runtime --now five\n"
        "systemctl set-property --runtime three CPUWeight=55; systemctl set-property three IOWeight=44\n",
    )
    system, before = facts(ext4_machine), ext4_machine.snapshot()
    done = ext4_machine.snapbreaker("run", "--", change)
    assert done.returncode == 0, done.stderr
    after, changed = facts(ext4_machine), ext4_machine.snapshot()
    assert "one.service" not in after.units
    # The admin: four comes, three goes, a setting of his own until the next boot.
    systemctl(ext4_machine, "start", "four")
    systemctl(ext4_machine, "stop", "three")
    systemctl(ext4_machine, "set-property", "--runtime", "two", "CPUWeight=33")

    def as_the_admin_left_it(units: dict[str, str]) -> dict[str, str]:
        found = {**units, "four.service": "active"}
        del found["three.service"]
        return found

    back = ext4_machine.snapbreaker("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stderr
    now = facts(ext4_machine)
    assert now.units == as_the_admin_left_it(system.units)
    assert now.enabled == system.enabled
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    assert show(ext4_machine, "three", "CPUWeight", "IOWeight") == "CPUWeight=[not set]\nIOWeight=[not set]\n"
    assert show(ext4_machine, "two", "CPUWeight") == "CPUWeight=33\n"
    again = ext4_machine.snapbreaker("rollback", "--last", "--redo", "--yes")
    assert again.returncode == 0, again.stderr
    now = facts(ext4_machine)
    assert now.units == as_the_admin_left_it(after.units)
    assert now.enabled == after.enabled
    assert show(ext4_machine, "three", "CPUWeight", "IOWeight") == "CPUWeight=55\nIOWeight=44\n"
    assert show(ext4_machine, "two", "CPUWeight") == "CPUWeight=33\n"
    assert comparer.differences(changed, ext4_machine.snapshot()) == []
