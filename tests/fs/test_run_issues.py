"""What trips the breaker, what does not, and with which exit code each run ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import comparer
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Result, Tool, wait_for


@pytest.fixture
def scope(ext4: LoopFilesystem) -> Path:
    root = ext4.path / "app"
    root.mkdir()
    (root / "config").write_text("before\n")
    return root


class Shell:
    """Runs a shell script that first changes the scope, and knows what the scope was."""

    def __init__(self, tool: Tool, scope: Path) -> None:
        self.tool, self.scope = tool, scope
        self.before = comparer.snapshot(scope.parent)

    def script(self, text: str) -> list[str]:
        place = shlex.quote(str(self.scope))
        return ["sh", "-c", f"cd {place}; echo after > config; echo new > new; rm -f gone; {text}"]

    def __call__(self, text: str, *options: str | Path) -> Result:
        return self.tool.run(self.scope, *self.script(text), options=options)

    def put_back(self) -> bool:
        return comparer.differences(self.before, comparer.snapshot(self.scope.parent)) == []

    def kept(self) -> bool:
        return (self.scope / "config").read_text() == "after\n" and (self.scope / "new").exists()


@pytest.fixture
def shell(tool: Tool, scope: Path) -> Shell:
    return Shell(tool, scope)


TRACEBACK = 'python3 -c "import json; json.loads(chr(123))"'
TRIPS = {
    "error": ("echo 'ERROR: disk on fire'; sleep 30", "ERROR", "ERROR: disk on fire"),
    "traceback": (TRACEBACK, "ERROR", "Traceback (most recent call last):"),
    "warning": ("echo 'WARNING: clock skew' >&2; sleep 30", "WARNING", "WARNING: clock skew"),
    "deprecated": ("echo 'foo is deprecated, use bar'; sleep 30", "WARNING", "foo is deprecated, use bar"),
    "skipped": ("echo 'Step 4: SKIPPED'; sleep 30", "SKIP", "Step 4: SKIPPED"),
    "not found": ("nonexistent-program; sleep 30", None, None),
    "no newline": ("printf 'FATAL: no newline'; sleep 30", "ERROR", "FATAL: no newline"),
    "last line without newline": ("printf 'ok\\nCRITICAL: last'", "ERROR", "CRITICAL: last"),
    "in colour": ("printf '\\033[1;31mERROR\\033[0m: red\\n'; sleep 30", "ERROR", "ERROR: red"),
    "behind a carriage return": ("printf '10%%\\rERROR: behind\\n'; sleep 30", "ERROR", "ERROR: behind"),
    "not UTF-8": ("printf 'ERROR: \\377\\n'; sleep 30", "ERROR", "ERROR: \ufffd"),
    "exit status": ("exit 7", "EXIT", ""),
    "killed by a signal": ("kill -SEGV $$", "EXIT", ""),
}


@pytest.mark.parametrize("case", TRIPS)
def test_trips(shell: Shell, tool: Tool, case: str) -> None:
    script, kind, line = TRIPS[case]
    result = shell(script)
    assert result.status == 1, result.stderr
    assert result.seconds < 30  # which the command sleeps
    assert shell.put_back()
    report = tool.report()
    assert (report["outcome"], report["exit_code"]) == ("rolled-back", 1)
    if kind is not None:
        assert (report["issue"]["type"], report["issue"]["line"]) == (kind, line)
    if case == "exit status":
        assert report["issue"]["status"] == 7


def test_silence(shell: Shell, tool: Tool) -> None:
    result = shell("echo started; exec sleep 60", "--idle", "2")
    assert result.status == 1, result.stderr
    assert 2 <= result.seconds < 30  # which is how long it may be silent otherwise
    assert shell.put_back()
    issue = tool.report()["issue"]
    assert (issue["type"], issue["reason"]) == ("TIMEOUT", "no output for 2 s")


def test_whole_time(shell: Shell, tool: Tool) -> None:
    result = shell("while :; do echo busy; sleep 0.1; done", "--timeout", "1")
    assert result.status == 1, result.stderr
    assert shell.put_back()
    assert tool.report()["issue"]["type"] == "TIMEOUT"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whole_group", [True, False])
def test_stopped_by_a_signal(shell: Shell, tool: Tool, number: signal.Signals, whole_group: bool) -> None:
    """As Ctrl-C on a terminal (the whole group gets it), and as ``kill PID``."""
    process = tool.start("run", "--scope", shell.scope, "--", *shell.script("echo ready; sleep 60"))
    wait_for(process, "ready")
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 128 + number, stderr
    assert shell.put_back()
    assert tool.report()["issue"]["type"] == "INTERRUPTED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopped_again_and_again(shell: Shell, tool: Tool, number: signal.Signals) -> None:
    """An impatient Ctrl-C does not kill the one who rolls back."""
    process = tool.start("run", "--scope", shell.scope, "--", *shell.script("echo ready; sleep 60"))
    wait_for(process, "ready")
    while process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        time.sleep(0.002)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 128 + number, stderr
    assert b"takes over" not in stderr
    assert shell.put_back()
    assert tool.report()["issue"]["type"] == "INTERRUPTED"


@pytest.mark.parametrize(
    ("command", "status"),
    [("/nowhere/at-all", 127), ("no-such-command-anywhere", 127), ("/etc/passwd", 126), ("/etc", 126)],
)
def test_command_that_cannot_be_started(shell: Shell, tool: Tool, command: str, status: int) -> None:
    result = tool.run(shell.scope, command)
    assert result.status == status, result.stderr
    assert command in result.stderr.decode()
    assert shell.put_back()
    assert tool.checkpoints() == []


def test_success_is_kept_and_can_be_undone(shell: Shell, tool: Tool) -> None:
    result = shell("echo '0 errors, 0 warnings'")
    assert result.status == 0, result.stderr
    assert result.stdout == b"0 errors, 0 warnings\n"
    assert shell.kept()
    assert tool("rollback", "--last", "--yes").status == 0
    assert shell.put_back()


@pytest.mark.parametrize("cut", ["Errors: |0", "all is fine, 0 err|ors", "liberror|-perl is there"])
def test_a_line_that_comes_in_two_parts(shell: Shell, cut: str) -> None:
    """Its first part would trip."""
    first, _, rest = cut.partition("|")
    result = shell(f"printf '{first}'; sleep 1; echo '{rest}'")
    assert result.status == 0, result.stderr
    assert shell.kept()


def test_the_last_line_of_a_log_has_no_end(shell: Shell, tool: Tool, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    result = shell(f"printf 'ERROR: cannot go on' >{log}", "--log", log)
    assert result.status == 1, result.stderr
    assert shell.put_back()
    issue = tool.report()["issue"]
    assert (issue["source"], issue["line"]) == (str(log), "ERROR: cannot go on")


def test_success_that_changes_nothing(tool: Tool, scope: Path) -> None:
    before = comparer.snapshot(scope.parent)
    assert tool.run(scope, "true").status == 0
    assert comparer.differences(before, comparer.snapshot(scope.parent)) == []
    assert tool("rollback", "--last", "--yes").status == 0
    assert comparer.differences(before, comparer.snapshot(scope.parent)) == []


def test_conflict_is_refused(shell: Shell, tool: Tool) -> None:
    assert shell("true").status == 0
    (shell.scope / "config").write_text("changed again, by hand\n")
    refused = tool("rollback", "--last", "--yes")
    assert refused.status == 4, refused.stderr
    assert (shell.scope / "config").read_text() == "changed again, by hand\n"
    assert (shell.scope / "new").exists()
    forced = tool("rollback", "--last", "--yes", "--force")
    assert forced.status == 0, forced.stderr
    assert shell.put_back()


def test_rollback_of_one_path(shell: Shell, tool: Tool) -> None:
    assert shell("true").status == 0
    assert tool("rollback", "--last", "--yes", "--path", shell.scope / "config").status == 0
    assert (shell.scope / "config").read_text() == "before\n"
    assert (shell.scope / "new").exists()
    assert tool("rollback", "--last", "--yes").status == 0
    assert shell.put_back()


def test_dry_run_changes_nothing(shell: Shell, tool: Tool) -> None:
    assert shell("true").status == 0
    shown = tool("rollback", "--last", "--dry-run")
    assert shown.status == 0, shown.stderr
    assert b"config" in shown.stdout
    assert shell.kept()


def test_observe_halts_nothing(shell: Shell, tool: Tool) -> None:
    result = shell("echo 'ERROR: one'; echo 'WARNING: two'; echo end", "--observe")
    assert result.status == 0, result.stderr
    assert result.stdout == b"ERROR: one\nWARNING: two\nend\n"
    assert shell.kept()
    report = tool.report()
    assert report["outcome"] == "observed"
    assert [issue["line"] for issue in report["issues"]] == ["ERROR: one", "WARNING: two"]


def test_health_check(shell: Shell, tool: Tool) -> None:
    result = shell("true", "--check", f"test -e {shell.scope}/new", "--check", "echo unhealthy; false")
    assert result.status == 1, result.stderr
    assert shell.put_back()
    assert tool.report()["issue"]["type"] == "CHECK"


def test_not_confirmed(shell: Shell, tool: Tool) -> None:
    result = shell("true", "--confirm", "0.5")
    assert result.status == 1, result.stderr
    assert shell.put_back()


def test_confirmed(shell: Shell, tool: Tool) -> None:
    process = tool.start("run", "--scope", shell.scope, "--confirm", "20", "--", *shell.script("true"))
    deadline = time.monotonic() + 10
    while not any(entry["state"] == "confirming" for entry in tool.checkpoints()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert tool("confirm", "--last").status == 0
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
    assert shell.kept()


def test_second_run_at_once_is_refused(shell: Shell, tool: Tool) -> None:
    process = tool.start("run", "--scope", shell.scope, "--", *shell.script("echo ready; sleep 60"))
    wait_for(process, "ready")
    second = tool.run(shell.scope, "touch", shell.scope / "second")
    assert second.status == 4, second.stderr
    assert b"another snapbreaker" in second.stderr
    assert not (shell.scope / "second").exists()
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert shell.put_back()


def test_kept_paths_are_left_alone(shell: Shell, tool: Tool) -> None:
    uploads = shell.scope / "uploads"
    result = shell("mkdir uploads; echo x > uploads/file; echo 'ERROR: no'; sleep 9", "--keep", uploads)
    assert result.status == 1, result.stderr
    assert (uploads / "file").read_text() == "x\n"
    assert (shell.scope / "config").read_text() == "before\n"
    assert not (shell.scope / "new").exists()


def test_output_passes_byte_for_byte(shell: Shell, tool: Tool) -> None:
    noise = bytes(range(256)).replace(b"\n", b"") * 5000
    (shell.scope.parent / "noise").write_bytes(noise)
    result = shell("cat ../noise; cat ../noise >&2", "--observe")
    assert result.status == 0
    assert result.stdout == noise
    assert noise in result.stderr


def test_a_trip_tells_the_line_its_place_the_rule_and_its_reason(shell: Shell) -> None:
    result = shell("echo working; echo 'ERROR: broken'; sleep 9")
    assert result.status == 1
    told = result.stderr.decode()
    assert "snapbreaker: TRIPPED by ERROR: ERROR: broken\nsnapbreaker:   stdout line 2: " in told
    assert re.search(r"line 2: .+ \(rule default/.+\)\nsnapbreaker: the command was stopped .+ rolling back", told)


def test_what_becomes_of_checkpoints_as_json(shell: Shell, tool: Tool) -> None:
    assert shell("echo working").status == 0
    [made] = tool.checkpoints()
    id = made["id"]
    assert tool("checkpoint", "pin", id, "--json").events == [{"id": id, "pinned": True}]
    assert tool("checkpoint", "prune", "--count", "0", "--json").events == []
    assert tool("checkpoint", "pin", id, "--off", "--json").events == [{"id": id, "pinned": False}]
    dry = tool("checkpoint", "prune", "--count", "0", "--dry-run", "--json").events
    assert dry == [{"id": id, "deleted": False}]
    assert tool("checkpoint", "delete", id, "--json").events == [{"id": id, "deleted": True}]
    assert tool.checkpoints() == []


def test_events(shell: Shell, tool: Tool) -> None:
    result = shell("echo working; echo 'ERROR: broken'; sleep 9", "--json")
    assert result.status == 1, result.stderr
    kinds = [event["event"] for event in result.events if event["event"] not in ("progress", "output", "warning")]
    assert kinds == [
        "start",
        "checkpoint",
        "running",
        "issue",
        "halted",
        "restoring",
        "restored",
        "verified",
        "finished",
    ]
    assert (
        "".join(event["text"] for event in result.events if event["event"] == "output")
        == "working\nERROR: broken\n"
    )
    assert result.events[-1]["exit_code"] == 1
    assert shell.put_back()


def test_the_event_of_a_timeout_says_what_the_tree_was_doing(shell: Shell, tool: Tool) -> None:
    result = shell("cat </dev/zero >/dev/null & exec sleep 61", "--json", "--idle", "1")
    assert result.status == 1, result.stderr
    (issue,) = [event for event in result.events if event["event"] == "issue"]
    assert (issue["type"], issue["rule"]) == ("TIMEOUT", "idle")
    sleeping, working = issue["doing"]
    assert (sleeping["command"], sleeping["depth"], sleeping["waits"]) == ("sleep 61", 0, "a time")
    assert (working["command"], working["depth"], working["parent"]) == ("cat", 1, sleeping["pid"])
    assert tool.report()["doing"] == issue["doing"]
    again = tool("attach", issue["id"], "--json").events
    assert [event["doing"] for event in again if event["event"] == "issue"] == [issue["doing"]]


def test_usage_errors(tool: Tool, scope: Path) -> None:
    assert tool("run", "--scope", scope).status == 2
    assert tool("run", "--scope", scope, "--no-such-option", "--", "true").status == 2
    assert tool.run(scope / "missing", "true").status == 2
    assert tool.run(scope / "config", "true").status == 2
    assert tool.run(Path("/proc"), "true").status == 2
    assert tool("rollback", "--last").status == 2
    assert tool("no-such-verb").status == 2


def test_the_pack_of_a_tool_that_a_script_starts(shell: Shell, tmp_path: Path) -> None:
    """Told by its process alone: neither the command line nor a line before tells of apt."""
    line = "echo 'Setting up warn (1.0) ...'; sleep 0.1\n"
    for name, text in {"apt-get": line, "deploy": f"{tmp_path}/apt-get\n", "other": line}.items():
        (tmp_path / name).write_text("#!/bin/sh\n" + text)
        (tmp_path / name).chmod(0o755)
    assert shell(f"{tmp_path}/other").status == 1
    assert shell(f"{tmp_path}/deploy").status == 0
    assert shell.kept()
