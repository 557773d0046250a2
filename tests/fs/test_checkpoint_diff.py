"""`checkpoint diff`: from a snapshot, a copy and an undo set; for a person, a program and a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from snapbreaker.report import schema
from tests.fs.conftest import MakeFilesystem
from tests.lab.tool import REPOSITORY, Tool

CHANGE = r"""
cd "$1"
printf 'one\n2\nthree\n' >etc/config; chmod 600 etc/mode; chown 3:4 etc/mode; rm etc/gone
mkdir -p var/new; printf 'made\n' >"var/new/a
b"; rm etc/kind; ln -s config etc/kind; printf '\0\1' >etc/binary; touch -d @1 etc etc/config var
"""
EXPECTED = """\
M {root}/etc  (mtime)
M {root}/etc/binary  (content, mtime)
M {root}/etc/config  (content, mtime)
D {root}/etc/gone
T {root}/etc/kind  (type)
M {root}/etc/mode  (mode, owner)
M {root}/var  (mtime)
A {root}/var/new
A {root}/var/new/a\\nb
"""


@pytest.fixture(params=["ext4", "btrfs"])
def root(request: pytest.FixtureRequest, make_filesystem: MakeFilesystem) -> Path:
    root = make_filesystem(request.param).path / "app"
    (root / "etc").mkdir(parents=True)
    (root / "var").mkdir()
    (root / "etc/config").write_text("one\ntwo\nthree\n")
    (root / "etc/binary").write_bytes(b"\0")
    for name in ("mode", "gone", "kind"):
        (root / "etc" / name).write_text(f"{name}\n")
    return root


def change(root: Path) -> None:
    subprocess.run(["sh", "-c", CHANGE, "sh", root], check=True)


def checkpointed(tool: Tool, root: Path, how: str) -> None:
    """Changed since a checkpoint by hand, or by a run that was committed."""
    if how == "undo set":
        assert tool.run(root, "sh", "-c", CHANGE, "sh", root).status == 0
        return
    assert tool("checkpoint", "create", "--scope", root).status == 0
    change(root)


@pytest.mark.parametrize("how", ["checkpoint", "undo set"])
def test_what_differs(tool: Tool, root: Path, how: str) -> None:
    checkpointed(tool, root, how)
    listed = tool("checkpoint", "diff", "--last")
    assert (listed.status, listed.stderr) == (0, b"")
    assert listed.stdout.decode() == EXPECTED.format(root=root)

    number = tool.checkpoints()[0]["id"].partition("-")[0]
    one = tool("checkpoint", "diff", number, root / "etc", root / "etc/config", "--exit-code", "-p")
    assert one.status == 3
    lines = one.stdout.decode().splitlines()
    assert lines[1:3] == [
        f"M {root}/etc/binary  ({lines[1].partition('(')[2]}",
        f"Binary files a{root}/etc/binary and b{root}/etc/binary differ (1 B, 2 B)",
    ]
    at = lines.index(f"--- a{root}/etc/config")
    assert lines[at : at + 7] == [
        *(f"--- a{root}/etc/config", f"+++ b{root}/etc/config", "@@ -1,3 +1,3 @@"),
        *(" one", "-two", "+2", " three"),
    ]
    mode = next(line for line in lines if line.startswith(f"M {root}/etc/mode"))
    assert mode.endswith("  (mode 0600 instead of 0644, owner 3:4 instead of 0:0)")
    assert not any(f"{root}/var" in line for line in lines)

    stat = tool("checkpoint", "diff", "--last", "--stat").stdout.decode().splitlines()
    assert stat[0].split() == ["added", "changed", "removed", "more", "less"]
    assert stat[-1].split() == ["2", "6", "1", "6", "B", "12", "B", "in", "all"]
    assert [line.split()[-1] for line in stat[1:-1]] == [f"{root}/etc", f"{root}/var"]


def test_for_a_program(tool: Tool, root: Path) -> None:
    checkpointed(tool, root, "checkpoint")
    found = tool("checkpoint", "diff", "--last", "--json", "--text").events
    assert [schema.problems(event) for event in found] == [[]] * len(found)
    listed = [line.partition("  ")[0] for line in EXPECTED.format(root=root).splitlines()]
    assert [f"{event['status']} {event['path']}".replace("\n", "\\n") for event in found] == listed
    config = next(event for event in found if event["path"].endswith("config"))
    assert config["aspects"] == ["content", "mtime"]
    assert (config["size_then"], config["size_now"]) == (14, 12)
    assert config["diff"].endswith(" one\n-two\n+2\n three\n")
    stat = tool("checkpoint", "diff", "--last", "--json", "--stat", root / "etc").events
    assert [schema.problems(event) for event in stat] == [[]] * len(stat)
    assert sum(event["removed"] for event in stat) == 1


def test_on_a_terminal(tool: Tool, root: Path) -> None:
    """In colour, and nothing that a file holds or is called moves the cursor."""
    checkpointed(tool, root, "checkpoint")
    (root / "var/odd").write_bytes(b"\x1b[2Jred\xff\n")
    command = [sys.executable, "-m", "snapbreaker", "checkpoint", "diff", "--last", "-p"]
    env = {**tool.environment, "TERM": "xterm", "NO_COLOR": ""}
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(REPOSITORY)
        os.execvpe(command[0], command, env)
    shown = b""
    try:
        while data := os.read(master, 65536):
            shown += data
    except OSError:  # EIO: the other side is gone
        pass
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"\x1b[31m-two\x1b[0m\r\n\x1b[32m+2\x1b[0m\r\n" in shown
    assert b"+\\x1b[2Jred\\xff" in shown
    assert b"\x1b[2J" not in shown


def test_nothing_differs_and_wrong_use(tool: Tool, root: Path) -> None:
    assert tool("checkpoint", "create", "--scope", root).status == 0
    id = tool.checkpoints()[0]["id"]
    same = tool("checkpoint", "diff", id, "--exit-code")
    assert (same.status, same.stdout, same.stderr) == (0, b"", b"")
    assert tool("checkpoint", "diff", "--last", "app", cwd=root.parent).status == 0
    for wrong in (
        (),
        (id, "--last"),
        ("--last", "--stat", "-p"),
        ("no-such-id",),
        (id, "/etc"),
        ("--last", root.parent),
        (id, ""),
    ):
        assert tool("checkpoint", "diff", *wrong).status == 2, wrong
