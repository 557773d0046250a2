"""The connection to PID 1, while PID 1 has other things to say."""

from __future__ import annotations

from tests.lab.machine import Machine

ASKS = r"""
import subprocess, sys, threading, time
sys.path.insert(0, "/usr/local/bin/snapbreaker")
from snapbreaker.linux.systemd import Manager

def reload():
    for _ in range(10):
        subprocess.run(["systemctl", "daemon-reload"], check=True)

reloads = threading.Thread(target=reload, daemon=True)
reloads.start()
longest = count = 0
while reloads.is_alive():
    began = time.monotonic()
    with Manager.connect() as manager:
        assert manager.units()
    longest = max(longest, time.monotonic() - began)
    count += 1
print(count, longest)
"""


def test_connecting_while_units_are_reloaded(ext4_machine: Machine) -> None:
    """Signals that it sends to everybody arrive right behind the answer to our authentication."""
    asked = ext4_machine.run("python3", "-c", ASKS, timeout=40)
    assert asked.returncode == 0, asked.stderr
    count, longest = asked.stdout.split()
    assert int(count) >= 5
    assert float(longest) < 5
