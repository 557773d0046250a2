"""commands.run with real programs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from snapbreaker import commands
from snapbreaker.commands import ToolMissing
from snapbreaker.errors import CheckpointError, ToolError
from snapbreaker.exits import Exit

pytestmark = pytest.mark.real_commands


def test_output_of_both_streams_and_status() -> None:
    done = commands.run(["sh", "-c", "printf out; printf err >&2"])
    assert (done.stdout, done.stderr, done.status) == ("out", "err", 0)


def test_arguments_are_not_interpreted(tmp_path: Path) -> None:
    odd = os.fsdecode(b"a b\n$(id) \xff'\"")
    done = commands.run(["printf", "%s|", odd, "", "*", "--x=1"], timeout=5)
    assert os.fsencode(done.stdout) == os.fsencode(odd) + b"||*|--x=1|"


def test_standard_input_is_empty_or_what_was_given() -> None:
    assert commands.run(["cat"]).stdout == ""
    data = bytes(range(256)) * 5000
    assert os.fsencode(commands.run(["cat"], input=data).stdout) == data


def test_large_output_is_whole() -> None:
    assert len(commands.run(["seq", "1000000"]).stdout) == 6888896


def test_failure_carries_everything() -> None:
    with pytest.raises(ToolError) as caught:
        commands.run(["sh", "-c", "echo partial; echo first >&2; echo last >&2; exit 7"])
    error = caught.value
    assert (error.status, error.stdout, error.stderr) == (7, "partial\n", "first\nlast\n")
    assert "sh ended with 7: last" in str(error)
    assert commands.run(["false"], check=False).status == 1
    assert commands.run(["sh", "-c", "exit 124"], check=False).status == 124


def test_death_by_signal_is_a_negative_status() -> None:
    assert commands.run(["sh", "-c", "kill -SEGV $$"], check=False).status == -11
    with pytest.raises(ToolError):
        commands.run(["sh", "-c", "kill -TERM $$"])


def test_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"no end after 0\.3 s"):
        commands.run(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"], timeout=0.3, check=False)
    assert time.monotonic() - started < 2
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    for _ in range(100):
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the grandchild survived")


def test_a_daemon_that_keeps_its_output_open_does_not_hang_us() -> None:
    started = time.monotonic()
    assert commands.run(["sh", "-c", "sleep 2 & echo started"]).stdout == "started\n"
    assert time.monotonic() - started < 1.5


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LANGUAGE", "LVM_SYSTEM_DIR", "DPKG_ROOT", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "stray")
    monkeypatch.setenv("HOME", "/root")
    printed = commands.run(["env"], env={"DEBIAN_FRONTEND": "noninteractive"}).stdout.splitlines()
    assert not [line for line in printed if "stray" in line]
    assert {"LANG=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive"} <= set(printed)


def test_signals_are_as_a_program_expects_them() -> None:
    status = commands.run(["cat", "/proc/self/status"]).stdout
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & 0b1 == 0  # SIGHUP


def test_missing_program_names_its_package() -> None:
    with pytest.raises(CheckpointError) as caught:
        commands.run(["zpool-that-is-missing"])
    assert caught.value.exit_code is Exit.NOT_STARTED
    assert commands.ToolMissing("lvs").hint == "apt-get install lvm2"
    assert commands.installed("sh")
    assert not commands.installed("zpool-that-is-missing")


def test_working_directory_and_what_cannot_start(tmp_path: Path) -> None:
    assert commands.run(["pwd"], cwd=str(tmp_path)).stdout == f"{tmp_path}\n"
    with pytest.raises(ToolError, match=r"pwd ended with 126: .*No such file"):
        commands.run(["pwd"], cwd=str(tmp_path / "missing"))
    program = tmp_path / "not-a-program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    with pytest.raises(ToolError, match=r"ended with 126: .*Exec format error"):
        commands.run([str(program)])


def test_one_program_reads_what_another_writes(tmp_path: Path) -> None:
    commands.run_joined(["seq", "300000"], ["sh", "-c", f"cat >{tmp_path}/out"])
    assert (tmp_path / "out").stat().st_size == 1988895
    with pytest.raises(ToolError, match="second") as caught:
        commands.run_joined(["seq", "1000000"], ["sh", "-c", "echo second >&2; exit 3"])
    assert caught.value.status == 3
    with pytest.raises(ToolError, match="first"):
        commands.run_joined(["sh", "-c", "echo first >&2; exit 4"], ["cat"])
    with pytest.raises(ToolMissing):
        commands.run_joined(["seq", "1000000"], ["no-such-program-anywhere"])
