"""Finding the command before anything is done for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapbreaker.errors import CommandNotExecutable, CommandNotFound, UsageError
from snapbreaker.monitor.spawn import resolve_command


def make(path: Path, content: bytes = b"#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_first_that_can_be_executed_in_path(tmp_path: Path) -> None:
    make(tmp_path / "a/tool", mode=0o644)
    (tmp_path / "b/tool").mkdir(parents=True)
    make(tmp_path / "c/tool")
    path = f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b:{tmp_path}/c"
    assert resolve_command(["tool", "x"], {"PATH": path}, "/").path == f"{tmp_path}/c/tool"


def test_relative_to_the_directory_of_the_command(tmp_path: Path) -> None:
    make(tmp_path / "deploy.sh")
    assert resolve_command(["./deploy.sh"], {}, str(tmp_path)).path == "./deploy.sh"
    assert resolve_command(["deploy.sh"], {"PATH": ""}, str(tmp_path)).path == "./deploy.sh"
    with pytest.raises(CommandNotFound):
        resolve_command(["./deploy.sh"], {}, "/")


def test_script_without_interpreter_line_is_for_the_shell(tmp_path: Path) -> None:
    assert resolve_command([str(make(tmp_path / "plain", b"echo hi\n"))], {}, "/").shell
    assert not resolve_command([str(make(tmp_path / "binary", b"\x7fELF\0"))], {}, "/").shell
    assert not resolve_command([str(make(tmp_path / "other", b"MZ\0\0"))], {}, "/").shell


@pytest.mark.parametrize("head", [b"#!/no/such/interpreter -x\n", b"#!\n", b"#!/etc/passwd\n"])
def test_interpreter_that_cannot_be_run(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(CommandNotExecutable, match="interpreter"):
        resolve_command([str(make(tmp_path / "tool", head))], {}, "/")


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandNotExecutable, match="not executable"):
        resolve_command([str(make(tmp_path / "tool", mode=0o644))], {}, "/")
    with pytest.raises(CommandNotExecutable, match="a directory"):
        resolve_command([str(tmp_path)], {}, "/")
    with pytest.raises(CommandNotFound, match="no directory of PATH"):
        resolve_command(["tool"], {"PATH": "/none"}, "/")
    with pytest.raises(UsageError):
        resolve_command([], {}, "/")
    with pytest.raises(UsageError):
        resolve_command(["tool"], {}, f"{tmp_path}/none")
