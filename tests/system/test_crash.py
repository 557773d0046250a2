"""Jobs that a run must wait for, timers that were held, and the unit that recovers: on a booted machine."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lab.machine import Machine
from tests.system.scene import put, script, systemctl, unit, until

TIMER = "apt-daily.timer"
AFTER = "[Unit]\nAfter=backup.service\n[Service]\nExecStart=sleep 1000\n"


def test_what_is_starting_for_hours_keeps_nobody_from_a_run(ext4_machine: Machine) -> None:
    """A job that waits for it does, as does one that stops a unit; and systemd takes the unit of `recover`."""
    unit(ext4_machine, "backup", "sleep 1000", "Type=oneshot")
    unit(ext4_machine, "lingers", "sleep 1000", "ExecStop=sleep 20")
    put(ext4_machine, "/etc/systemd/system/after.service", AFTER)
    systemctl(ext4_machine, "daemon-reload")
    systemctl(ext4_machine, "start", "lingers")
    systemctl(ext4_machine, "start", "--no-block", "backup")
    until(ext4_machine, "systemctl is-active backup | grep -q activating")
    fine = ext4_machine.snapbreaker("run", "--", "true")
    assert fine.returncode == 0, fine.stderr
    systemctl(ext4_machine, "start", "--no-block", "after")
    waiting = ext4_machine.snapbreaker("run", "--", "true")
    assert waiting.returncode == 4
    assert "systemd has jobs queued: start of after.service" in waiting.stderr
    systemctl(ext4_machine, "stop", "after")
    systemctl(ext4_machine, "stop", "--no-block", "lingers")
    stopping = ext4_machine.snapbreaker("run", "--", "true")
    assert stopping.returncode == 4
    assert "systemd has jobs queued: stop of lingers.service" in stopping.stderr
    installed = ext4_machine.snapbreaker("install-service")
    assert installed.returncode == 0, installed.stderr
    verified = ext4_machine.run("systemd-analyze", "verify", "/etc/systemd/system/snapbreaker-recover.service")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_timers_that_were_held_come_back_whoever_died(ext4_machine: Machine) -> None:
    """Killed between the last state and the report; and without what was recorded nothing is called good."""
    systemctl(ext4_machine, "unmask", TIMER)
    systemctl(ext4_machine, "enable", "--quiet", "--now", TIMER)
    failing = ext4_machine.snapbreaker("run", "--", "sh", "-c", "exit 1")
    assert failing.returncode == 1, failing.stderr
    assert systemctl(ext4_machine, "is-active", TIMER) == "active\n"
    record = next(Path(ext4_machine.root).glob("var/lib/snapbreaker/0*"))
    boot = json.loads((record / "system.json").read_text())["boot"]
    for command, options in (("recover", ()), ("run", ("--scope", "/srv", "--", "true"))):
        (record / "held.json").write_text(json.dumps({"boot": boot, "units": {TIMER: "enabled"}}))
        systemctl(ext4_machine, "stop", TIMER)
        done = ext4_machine.snapbreaker(command, *options)
        assert done.returncode == 0, done.stderr
        assert systemctl(ext4_machine, "is-active", TIMER) == "active\n"
        assert not (record / "held.json").exists()
    change = script(ext4_machine, "rm /var/lib/snapbreaker/*/system.json; exit 1")
    unknown = ext4_machine.snapbreaker("run", "--", change)
    assert unknown.returncode == 3, unknown.stderr
    assert "what was recorded of the system cannot be read" in unknown.stderr
