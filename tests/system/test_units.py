"""What a run does to units of systemd, and to the services that work on its files, is undone."""

from __future__ import annotations

from tests import comparer
from tests.lab.machine import Machine
from tests.system.facts import facts, processes
from tests.system.scene import report, script, show, started, unit, units_of, until

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
systemd-run --quiet --unit=broken sh -c 'exit 3'
systemctl start failing.service
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
    unit(machine, "failing", "/bin/false")
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
