"""What cron(8) would run, and which processes it runs because of lines that are new."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from snapbreaker.linux.process import boot_id, command_line
from snapbreaker.system import cron, schedulers, strays
from snapbreaker.system.state import AFTER, BEFORE, SystemState
from snapbreaker.system.target import Target


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cron, "SYSTEM", (str(tmp_path / "crontab"), str(tmp_path / "cron.d")))
    monkeypatch.setattr(cron, "USERS", (str(tmp_path / "crontabs"),))
    monkeypatch.setattr(cron, "SCRIPTS", (str(tmp_path / "cron.hourly"),))
    for name in ("cron.d", "crontabs", "cron.hourly"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_commands_are_read_from_every_table(tables: Path) -> None:
    (tables / "crontab").write_text(
        "# m h dom mon dow user command\nSHELL=/bin/sh\n'MAIL TO' = x\n17 * * * *\troot\tcd / && run-parts x\n\n"
        "*/5 1-3 * jan mon-fri www-data  date +\\%s >>/tmp/a%input\n@reboot root /opt/start --now\n"
        "* * * * broken\n"
    )
    (tables / "crontabs/deploy").write_bytes(b"0 4 * * * backup 'a  b' \xff\n@daily FOO=1 tidy\n")
    (tables / "crontabs/gone").symlink_to("/nothere")
    (tables / "cron.hourly/clean").write_text("#!/bin/sh\n")
    commands = cron.read()
    assert list(commands) == [
        "cd / && run-parts x",
        "date +%s >>/tmp/a",
        "/opt/start --now",
        "backup 'a  b' \udcff",
        "FOO=1 tidy",
        f"{tables}/cron.hourly/clean",
    ]
    assert commands["FOO=1 tidy"] == f"{tables}/crontabs/deploy"


def test_only_what_was_not_there_is_added(tables: Path) -> None:
    table = tables / "crontab"
    table.write_text("* * * * * root old\n")
    before = cron.read()
    table.write_text("*/2 * * * * root old\n* * * * * root new\n")
    (tables / "cron.hourly/clean").write_text("#!/bin/sh\n")
    assert list(cron.added(before, cron.read())) == ["new", f"{tables}/cron.hourly/clean"]


@pytest.mark.parametrize(
    ("executed", "whose"),
    [
        (["/bin/sh", "-c", "while :; do sync; done"], "new"),
        (["/bin/sh", "-c", "cd / && tidy --all"], ""),
        (["tidy", "--all"], ""),  # a shell executes its last command in its own place
        (["sleep", "77"], "new"),
        (["/bin/sh", "/etc/cron.hourly/fresh"], "new"),
        (["/bin/bash", "/usr/local/bin/backup", "/root/data"], ""),
        (["who", "knows"], "new"),
        ([], ""),
    ],
)
def test_whose_line_explains_a_process(executed: list[str], whose: str) -> None:
    new = ["while :; do sync; done", "exec sleep 77 >/dev/null", "/etc/cron.hourly/fresh"]
    told = cron._Told(dict.fromkeys(new, "new"), ["cd / && tidy --all", "backup $HOME/data", "sleep 5"])
    assert told.file_of([executed] if executed else []) == whose


@pytest.mark.real_commands
def test_jobs_are_found_below_a_daemon_of_that_name(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell with the daemon's name waits for one that has the same name, which waits for the job."""
    program = tables / "cron-test"
    for module in (cron, schedulers):
        monkeypatch.setattr(module, "DAEMONS", (program.name,))
    shutil.copy(os.path.realpath("/bin/sh"), program)
    (tables / "crontab").write_text("* * * * * root sleep 60\n")
    before, since = cron.read(), time.monotonic()
    command = "sleep 71 & sleep 72"
    job = f"sh -c '{command}' & sleep 60 & wait"
    other = f"{program} -c 'sleep 60; :'"
    daemon = subprocess.Popen([program, "-c", f'{program} -c "{job}" & {other} & wait'], start_new_session=True)
    try:
        lines = {command: "/etc/cron.d/new"}
        deadline, told = time.monotonic() + 20, set[str]()
        while not {"sleep 71", "sleep 72"} <= told and time.monotonic() < deadline:
            found = cron.jobs(lines, before, since)
            told = {" ".join(command_line(pid)) for pid in found}
        assert {"sleep 71", "sleep 72"} <= told
        assert "sleep 60" not in told
        assert set(found.values()) == {"/etc/cron.d/new"}
        assert cron.jobs({}, before, since) == {}
        assert cron.jobs(lines, before, time.monotonic() + 1) == {}
        schedulers.hold([program.name])
        assert _state(daemon.pid) == "T"
        ended = strays.end("no-run", False, lambda: cron.jobs(lines, before, since))
        assert any(", from /etc/cron.d/new)" in text for text in ended)
        schedulers.let_go()
        assert _state(daemon.pid) != "T"
        assert cron.jobs(lines, before, since) == {}
    finally:
        os.killpg(daemon.pid, 9)
        daemon.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_at_jobs_of_the_run_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "SPOOLS", (str(tmp_path / "none"), str(tmp_path)))
    assert not strays.has_jobs("run-1")
    (tmp_path / "a1").write_text("#!/bin/sh\nSNAPBREAKER_RUN=run\\-1; export SNAPBREAKER_RUN\n")
    assert strays.has_jobs("run-1")
    assert not strays.has_jobs("run-2")


@pytest.mark.parametrize("undo", [False, True])
def test_a_record_that_tells_nothing_of_cron_makes_no_job_the_runs(tables: Path, undo: bool) -> None:
    (tables / "crontab").write_text("* * * * * root somebody's\n")
    for name in (BEFORE, AFTER):
        SystemState(boot_id(), 1.0).save(tables / name)
    assert Target.of(tables, undo).cron_lines() == {}


def test_what_a_run_has_given_cron_to_run(tables: Path) -> None:
    table = tables / "crontab"
    SystemState(boot_id(), 1.0, cron={"old": "/etc/crontab"}).save(tables / BEFORE)
    SystemState(boot_id(), 1.0, cron={"old": "/etc/crontab", "new": str(table)}).save(tables / AFTER)
    table.write_text("* * * * * root old\n* * * * * root later\n")
    assert Target.of(tables, undo=False).cron_lines() == {"later": str(table)}  # a halted run: what is there now
    assert Target.of(tables, undo=True).cron_lines() == {"new": str(table)}
    SystemState("another boot", 1.0, cron={}).save(tables / BEFORE)
    assert Target.of(tables, undo=False).cron_lines() == {}
