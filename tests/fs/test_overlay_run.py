"""`run --backend overlay` as its users call it: full, killed, held, chosen, by another user than root."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import click
import pytest

from snapbreaker.sandbox.serves import COMMANDS, serves
from tests import comparer
from tests.fs.processes import children, kill_all
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import REPOSITORY, Result, Tool, cgroups, wait_for

OVERLAY = ("--backend", "overlay")
CHANGE = "echo more >>file; rm -r gone; mkdir made; echo new >made/new; mv moved made/moved"


@pytest.fixture
def root(ext4: LoopFilesystem) -> Path:
    root = ext4.path / "scope"
    (root / "gone").mkdir(parents=True)
    for name in ("file", "moved", "gone/file"):
        (root / name).write_text(f"before: {name}\n")
    time.sleep(0.02)  # a change has to be newer
    return root


def tried(tool: Tool, root: Path, script: str, *options: str, **more: str) -> Result:
    return tool.run(root, "sh", "-c", f"cd {root}; {script}", options=[*OVERLAY, *options], **more)


def test_halted_and_committed(tool: Tool, root: Path) -> None:
    before = comparer.snapshot(root)
    assert tried(tool, root, f"{CHANGE}; echo 'ERROR: no'; sleep 9").status == 1
    assert comparer.differences(before, comparer.snapshot(root)) == []
    assert tried(tool, root, CHANGE).status == 0
    assert (root / "made/moved").read_text() == "before: moved\n"
    assert tool("rollback", "--last", "--yes").status == 0
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_more_memory_than_there_is(tool: Tool, root: Path) -> None:
    result = tried(tool, root, "touch made", "--upper-size", "900T")
    assert result.status == 4
    assert b"--upper DIR" in result.stderr
    assert not (root / "made").exists()
    assert tool.checkpoints() == []


def test_a_full_sandbox_trips(tool: Tool, root: Path) -> None:
    """Also when the command does not care."""
    before = comparer.snapshot(root)
    script = "dd if=/dev/zero of=large bs=64k count=1000 status=none 2>/dev/null; true"
    result = tried(tool, root, script, "--upper-size", "16M")
    assert result.status == 1
    assert "the sandbox is full" in tool.report()["issue"]["reason"]
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_no_room_for_the_change(tool: Tool, root: Path, ext4: LoopFilesystem) -> None:
    free = os.statvfs(ext4.path).f_bfree * 4096
    with open(ext4.path / "filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (40 << 20))
    before = comparer.snapshot(root)
    result = tried(tool, root, "dd if=/dev/urandom of=large bs=1M count=60 status=none; echo x >file")
    assert result.status == 1, result.stderr
    assert "could not be applied" in tool.report()["issue"]["reason"]
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_processes_end_with_the_sandbox(tool: Tool, root: Path) -> None:
    result = tried(tool, root, "echo x >file; (setsid sh -c 'sleep 777; echo >late' >/dev/null 2>&1 &)")
    assert result.status == 0, result.stderr
    assert b"ended with its sandbox" in result.stderr
    assert subprocess.run(["pgrep", "-f", "sleep 777"], capture_output=True).stdout == b""
    assert (root / "file").read_text() == "x\n"


def test_killed_while_it_is_checked(tool: Tool, root: Path) -> None:
    before = comparer.snapshot(root)
    result = tried(tool, root, CHANGE, "--check", "kill -9 $PPID; sleep 9")
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(root)) == []
    issue = tool.report()["issue"]
    assert (issue["type"], issue["reason"]) == ("INTERRUPTED", "snapbreaker itself was ended while the checks ran")


@pytest.mark.parametrize("everyone", [False, True])
def test_killed_while_it_runs(tool: Tool, root: Path, everyone: bool) -> None:
    before = comparer.snapshot(root)
    script = f"cd {root}; {CHANGE}; echo up; sleep 60"
    process = tool.start("run", *OVERLAY, "--scope", root, "--", "sh", "-c", script)
    wait_for(process, "up")
    if everyone:
        kill_all([*children(process.pid), process.pid])
    else:
        os.kill(children(process.pid)[0], signal.SIGKILL)
    process.communicate()
    assert tool("recover").status == 0
    assert comparer.differences(before, comparer.snapshot(root)) == []
    assert [entry["state"] for entry in tool.checkpoints()] == ["rolled-back"]
    number = int((tool.store / "sequence").read_text())
    assert [name for name in cgroups() if name.startswith(f"snapbreaker-{number:06d}-")] == []


def test_an_upper_on_a_disk_is_gone_after_a_kill(tool: Tool, root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = ("run", *OVERLAY, "--upper", disk, "--scope", root, "--", "sh", "-c", "echo up; sleep 60")
    process = tool.start(*arguments)
    wait_for(process, "up")
    assert list(disk.iterdir())
    kill_all([*children(process.pid), process.pid])
    process.communicate()
    assert tool("recover").status == 0
    assert list(disk.iterdir()) == []


def test_what_is_kept_is_the_machines_own(tool: Tool, root: Path) -> None:
    (root / "kept").mkdir()
    script = "echo x >kept/file; echo x >file; echo 'ERROR: no'; sleep 9"
    assert tried(tool, root, script, "--keep", f"{root}/kept").status == 1
    assert (root / "kept/file").read_text() == "x\n"
    assert (root / "file").read_text() == "before: file\n"


def test_run_is_private(tool: Tool, root: Path) -> None:
    place = Path("/run") / f"snapbreaker-test-{os.getpid()}"
    place.mkdir()
    try:
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.bind(f"{place}/socket")
            (place / "data").write_text("is copied")
            (place / "daemon.pid").write_text(f"{os.getpid()}\n")
            script = f"ls {place} >seen; echo inside >{place}/made"
            assert tried(tool, root, script).status == 0
            assert (root / "seen").read_text().split() == ["data"]
            assert tried(tool, root, script, "--share-socket", f"{place}/socket").status == 0
            assert (root / "seen").read_text().split() == ["data", "socket"]
            assert not (place / "made").exists()
    finally:
        shutil.rmtree(place)


class TestHold:
    def test_nothing_is_on_the_machine_until_it_is_confirmed(self, tool: Tool, root: Path) -> None:
        before = comparer.snapshot(root)
        result = tried(tool, root, CHANGE, "--hold")
        assert result.status == 0, result.stderr
        assert b"held in its sandbox" in result.stderr
        assert comparer.differences(before, comparer.snapshot(root)) == []
        shown = tool("checkpoint", "diff", "--last", "--text").stdout.decode()
        assert f"A {root}/made/new" in shown
        assert f"D {root}/gone/file" in shown
        assert "+more" in shown
        assert tool("recover").status == 0
        assert tool("confirm", "--last").status == 0
        assert (root / "made/new").read_text() == "new\n"
        assert tool("rollback", "--last", "--yes").status == 0
        assert comparer.differences(before, comparer.snapshot(root)) == []

    def test_dropped(self, tool: Tool, root: Path) -> None:
        before = comparer.snapshot(root)
        assert tried(tool, root, CHANGE, "--hold").status == 0
        assert tool("rollback", "--last", "--yes").status == 0
        assert comparer.differences(before, comparer.snapshot(root)) == []
        assert tool("confirm", "--last").status == 4

    def test_others_were_first(self, tool: Tool, root: Path) -> None:
        """It stays held; nothing was changed."""
        assert tried(tool, root, CHANGE, "--hold").status == 0
        (root / "file").write_text("theirs")
        result = tool("confirm", "--last")
        assert result.status == 4
        assert f"{root}/file".encode() in result.stderr
        assert (root / "file").read_text() == "theirs"
        assert (root / "gone").exists()
        assert tool("rollback", "--last", "--yes").status == 0

    def test_its_holder_is_gone(self, tool: Tool, root: Path) -> None:
        assert tried(tool, root, CHANGE, "--hold").status == 0
        os.kill(tool.record()["status"]["sandbox"]["keeper"][0], signal.SIGKILL)
        result = tool("confirm", "--last")
        assert result.status == 4
        assert b"is gone" in result.stderr
        assert tool("rollback", "--last", "--yes").status == 0

    def test_only_with_a_sandbox(self, tool: Tool, root: Path) -> None:
        assert tool.run(root, "true", options=["--hold"]).status == 2
        assert tried(tool, root, "true", "--hold", "--check", "true").status == 2


def test_a_check_fails_after_it_was_applied(tool: Tool, root: Path) -> None:
    before = comparer.snapshot(root)
    result = tried(tool, root, CHANGE, "--check", f"test -e {root}/made/new && exit 3")
    assert result.status == 1, result.stderr
    assert tool.report()["issue"]["type"] == "CHECK"
    assert comparer.differences(before, comparer.snapshot(root)) == []


class TestChosen:
    """What is chosen where no backend is named."""

    @pytest.mark.parametrize("command", sorted(COMMANDS))
    def test_commands_that_are_served(self, tool: Tool, root: Path, tmp_path: Path, command: str) -> None:
        (tmp_path / "archive").mkdir()
        (tmp_path / "archive/from").write_text("new\n")
        words: dict[str, list[str | Path]] = {
            "cp": ["cp", tmp_path / "archive/from", root / "from"],
            "rm": ["rm", "-r", root / "gone"],
        }
        if not shutil.which(command):
            pytest.skip(f"apt-get install {command}")
        before = comparer.snapshot(root)
        result = tool.run(root, *words[command])
        assert result.status == 0, result.stderr
        assert [volume["backend"] for volume in tool.record()["volumes"]] == ["overlay"]
        assert comparer.differences(before, comparer.snapshot(root))
        assert tool("rollback", "--last", "--yes").status == 0
        assert comparer.differences(before, comparer.snapshot(root)) == []

    @pytest.mark.parametrize(
        "command",
        [
            *("git init", "sed -i s/a/b/ x", "./rm x", "/srv/bin/rm x", "sh -c rm", "tar xFf script x.tar"),
            *(
                "tar -xI cat -f x",
                "tar --to-command=sh -xf x",
                "tar --use-compress-prog sh -xf x",
                "tar xf x --info=y",
            ),
        ],
    )
    def test_what_may_start_another_program_is_not(self, command: str) -> None:
        assert not serves(command.split())
        assert serves(["/usr/bin/cp", "a", "b"])

    def test_any_other_is_not_sandboxed_unasked(self, tool: Tool, root: Path) -> None:
        assert tool.run(root, "touch", root / "new").status == 0
        assert [volume["backend"] for volume in tool.record()["volumes"]] == ["filecopy"]

    def test_a_checkpoint_by_hand_is_none(self, tool: Tool, root: Path) -> None:
        result = tool("checkpoint", "create", "--backend", "overlay", "--scope", root)
        assert result.status == 4
        assert tool.checkpoints() == []


class TestAnotherUser:
    """On files of one's own, in a user namespace."""

    @pytest.fixture
    def tool(self, root: Path) -> Tool:
        """In a place where that user can be."""
        root.parent.parent.chmod(0o711)  # the session's directory, empty otherwise
        for above in (*root.parent.parents, REPOSITORY, *REPOSITORY.parents):
            if above.stat().st_mode & 0o001 == 0:
                pytest.skip(f"{above} cannot be entered by others")
        tool = Tool(root.parent / "home")
        subprocess.run(["chown", "-R", "nobody:nogroup", root.parent], check=True)
        return tool

    def call(self, tool: Tool, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3"]
        path = f"{tool.environment['PYTHONPATH']}:{Path(click.__file__).parents[1]}"
        env = {**tool.environment, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*user, "-m", "snapbreaker", *words]
        return subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, timeout=60)

    def test_halted_and_committed(self, tool: Tool, root: Path) -> None:
        before = comparer.snapshot(root)
        run = ("run", *OVERLAY, "--scope", root, "--", "sh", "-c")
        tripped = self.call(tool, *run, f"cd {root}; {CHANGE}; echo 'ERROR: no'; sleep 9")
        if b"user namespaces must be allowed" in tripped.stderr:
            pytest.skip(f"sysctl user.max_user_namespaces=10000: {tripped.stderr.decode()}")
        assert tripped.returncode == 1, tripped.stderr
        assert comparer.differences(before, comparer.snapshot(root)) == []
        done = self.call(tool, *run, f"cd {root}; {CHANGE}")
        assert done.returncode == 0, done.stderr.decode()
        assert (root / "made/new").read_text() == "new\n"
        back = self.call(tool, "rollback", "--last", "--yes")
        assert back.returncode == 0, back.stderr
        assert comparer.differences(before, comparer.snapshot(root)) == []
