"""apt's own timers and unattended-upgrades: away while a run goes on, back afterwards, however it ends."""

from __future__ import annotations

import signal

import pytest

from tests.lab.machine import Machine
from tests.system.facts import said
from tests.system.judge import Judge, kill_snapbreaker, until_said

TIMER, SERVICE = "apt-daily.timer", "unattended-upgrades.service"
HARMLESS = "[Service]\nExecStart=\nExecStart=/bin/true\nExecStartPre=\n"
UPGRADES = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
# One word each, in a file: the breaker reads what is printed.
LOOK = f"systemctl is-active {TIMER} {SERVICE} >/tmp/during; "
UP, DOWN = "active\nactive\n", "inactive\ninactive\n"


@pytest.fixture
def updating(ext4_machine: Machine) -> Machine:
    """A machine whose timer and service for updates are up, though nothing comes of it."""
    units = ext4_machine.root / "etc/systemd/system"
    (units / TIMER).unlink()
    (units / "apt-daily.service.d").mkdir()
    (units / "apt-daily.service.d/harmless.conf").write_text(HARMLESS)
    (units / SERVICE).write_text(UPGRADES)
    ext4_machine.run("systemctl", "daemon-reload")
    started = ext4_machine.run("systemctl", "enable", "--now", TIMER, SERVICE)
    assert started.returncode == 0, started.stderr
    ext4_machine.run("systemctl", "start", "apt-daily.service")  # what the timer has missed
    assert states(ext4_machine) == UP
    return ext4_machine


def states(machine: Machine) -> str:
    return said_anyway(machine, "systemctl", "is-active", TIMER, SERVICE)


def said_anyway(machine: Machine, *argv: str) -> str:
    return machine.run(*argv, session=False).stdout


def during(machine: Machine) -> str:
    return said(machine, "cat", "/tmp/during")


def test_after_success_and_after_a_trip(updating: Machine) -> None:
    judge = Judge.of(updating)
    for command, code in (("true", 0), ("false", 1)):
        result = updating.snapbreaker("run", "--", "sh", "-c", LOOK + command)
        assert result.returncode == code, result.stderr
        assert (during(updating), states(updating)) == (DOWN, UP)
    judge.undone()


def test_after_a_checkpoint_that_could_not_be_made(updating: Machine) -> None:
    (updating.root / ".snapbreaker").write_text("in the way\n")
    judge = Judge.of(updating)
    result = updating.snapbreaker("run", "--", "touch", "/root/was-run")
    assert result.returncode == 4, result.stderr
    assert not (updating.root / "root/was-run").exists()
    assert states(updating) == UP
    judge.undone()


def test_after_snapbreaker_was_killed(updating: Machine) -> None:
    judge = Judge.of(updating)
    process = updating.start(
        "snapbreaker", "run", "--", "sh", "-c", LOOK + "echo new >/etc/new; echo go; sleep 60"
    )
    until_said(process, b"go\n")
    assert len(kill_snapbreaker(updating, process)) >= 3
    assert (during(updating), states(updating)) == (DOWN, DOWN)
    recovered = updating.snapbreaker("recover")
    assert recovered.returncode == 0, recovered.stderr
    assert states(updating) == UP
    judge.undone()


def test_what_the_run_disabled_stays_down(updating: Machine) -> None:
    judge = Judge.of(updating)
    command = f"systemctl disable --quiet --now {TIMER} {SERVICE}"
    assert updating.snapbreaker("run", "--", "sh", "-c", command).returncode == 0
    assert states(updating) == DOWN
    back = updating.snapbreaker("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stderr
    assert said_anyway(updating, "systemctl", "is-enabled", TIMER, SERVICE) == "enabled\nenabled\n"
    assert states(updating) == UP
    judge.undone()
    tripped = updating.snapbreaker("run", "--", "sh", "-c", f"{command}; false")
    assert tripped.returncode == 1, tripped.stderr
    judge.undone()


def test_a_run_may_be_interrupted(updating: Machine) -> None:
    process = updating.start("snapbreaker", "run", "--", "sh", "-c", LOOK + "echo go; sleep 60")
    until_said(process, b"go\n")
    updating.signal(process, signal.SIGINT)
    assert process.wait(30) == 130
    assert (during(updating), states(updating)) == (DOWN, UP)
