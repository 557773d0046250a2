"""Others that never stop writing, and services that write when they are stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.lab.machine import Machine
from tests.system.test_deploy import put

# Writes a file every 30 ms, as sessions of a web application, a maildir or metrics do.
BUSY = """
import itertools, time
for n in itertools.count():
    open(f'/srv/busy/{n}', 'w').write('x')
    time.sleep(0.03)
"""
# Holds its rows in memory, and writes them by rename(2) when it is told to end: like Redis.
STORE = """
import os, signal, sys, time
os.chdir('/var/lib/store')
def dump(*_):
    open('tmp', 'w').write('rows in memory'); os.rename('tmp', 'dump'); sys.exit()
signal.signal(signal.SIGTERM, dump)
while True: time.sleep(1)
"""


def service(machine: Machine, name: str, program: str) -> None:
    root = Path(machine.root)
    (root / f"usr/local/lib/{name}.py").write_text(program)
    unit = f"[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/{name}.py\n"
    (root / f"etc/systemd/system/{name}.service").write_text(unit)
    machine.run("systemctl", "daemon-reload")
    assert machine.run("systemctl", "start", name).returncode == 0


def test_a_busy_writer_loses_nothing_and_is_no_difference(ext4_machine: Machine) -> None:
    """What it wrote before the halt went back, and is saved; what it wrote afterwards is where it was."""
    busy = Path(ext4_machine.root) / "srv/busy"
    busy.mkdir()
    service(ext4_machine, "busy", BUSY)
    script = put(ext4_machine, "#!/bin/sh\necho x > /etc/new\nsleep 1\necho ERROR: no\nsleep 60\n")
    result = ext4_machine.snapbreaker("run", "--", script)
    time.sleep(0.2)
    ext4_machine.run("systemctl", "stop", "busy")
    assert result.returncode == 1, result.stderr
    assert not (Path(ext4_machine.root) / "etc/new").exists()
    live = {int(path.name) for path in busy.iterdir()}
    saved = {
        int(path.name) for path in (Path(ext4_machine.root) / "var/lib/snapbreaker").glob("0*/saved/srv/busy/*")
    }
    assert set(range(max(live) + 1)) == live | saved
    assert saved
    report = json.loads(ext4_machine.snapbreaker("report", "--last", "--format", "json").stdout)
    told = {int(note["path"].rpartition("/")[2]) for note in report["foreign"]}
    assert saved <= told
    assert all("busy.service" in note["text"] for note in report["foreign"])


def test_what_a_service_writes_when_it_is_stopped_is_saved(ext4_machine: Machine) -> None:
    """The run replaces its file, so it is stopped before that goes back; its rows were nowhere but in memory."""
    root = Path(ext4_machine.root)
    (root / "var/lib/store").mkdir()
    (root / "var/lib/store/dump").write_text("base")
    service(ext4_machine, "store", STORE)
    time.sleep(0.3)
    script = put(ext4_machine, "#!/bin/sh\necho broken > /var/lib/store/dump\necho ERROR: no\nsleep 60\n")
    result = ext4_machine.snapbreaker("run", "--", script)
    assert result.returncode == 1, result.stderr
    assert (root / "var/lib/store/dump").read_text() == "base"
    assert ext4_machine.run("systemctl", "is-active", "store").stdout == "active\n"
    (saved,) = (root / "var/lib/snapbreaker").glob("0*/saved/var/lib/store/dump")
    assert saved.read_text() == "rows in memory"
    report = ext4_machine.snapbreaker("report", "--last", "--format", "markdown").stdout
    assert "/var/lib/store/dump" in report.partition("Written by others")[2]
