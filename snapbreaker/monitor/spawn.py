"""Starting the command: found before a checkpoint is taken, in its cgroup before its first instruction."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import (
    CheckpointError,
    CommandNotExecutable,
    CommandNotFound,
    SnapbreakerError,
    UsageError,
)
from snapbreaker.linux.fork import fork_into
from snapbreaker.monitor.process_tree import MARKER, ProcessTree

_FAILURE = struct.Struct("=ci")  # stage, errno
_ENTERED, _CGROUP, _NAMESPACE, _CHDIR, _EXEC = b"+", b"g", b"n", b"d", b"x"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Python ignores these from its start; the command expects the default.
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be executed. ``path`` is what execve(2) gets, relative to ``cwd`` if it was given so.

    ``shell``: a file without ``#!``, which execvp(3) and every shell hand to /bin/sh.
    """

    argv: tuple[str, ...]
    path: str
    cwd: str
    env: Mapping[str, str]
    shell: bool = False


@dataclass(frozen=True, slots=True)
class Stdio:
    """Descriptors that become 0, 1 and 2, all above 2. ``terminal``: they are a new session's terminal.

    ``own_group``: a process group of its own, so that it can be signalled as one.
    """

    stdin: int
    stdout: int
    stderr: int
    terminal: bool = False
    own_group: bool = False


def resolve_command(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> Command:
    """Find the program as execvp(3) would, in ``env``'s PATH and from ``cwd``.

    Raises CommandNotFound (127), CommandNotExecutable (126), UsageError (no command, no such directory).
    """
    if not argv or not argv[0]:
        raise UsageError("no command was given", "snapbreaker run -- COMMAND [ARGUMENT]…")
    if not os.path.isdir(cwd):
        raise UsageError(f"{cwd}: not a directory, so the command cannot be started there")
    refused: CommandNotExecutable | None = None
    for path in _candidates(argv[0], env):
        try:
            shell = _examine(os.path.join(cwd, path), argv[0])
        except CommandNotExecutable as error:
            refused = refused or error
        except (FileNotFoundError, NotADirectoryError):
            continue
        else:
            return Command(tuple(argv), path, cwd, env, shell)
    if refused:
        raise refused
    where = "there is no such file" if "/" in argv[0] else "it is in no directory of PATH"
    raise CommandNotFound(f"{argv[0]}: command not found: {where}")


def _candidates(name: str, env: Mapping[str, str]) -> list[str]:
    if "/" in name:
        return [name]
    return [os.path.join(directory or ".", name) for directory in env.get("PATH", _DEFAULT_PATH).split(":")]


def _examine(path: str, name: str) -> bool:
    """Whether the file needs /bin/sh. Raises FileNotFoundError, CommandNotExecutable."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:
        raise CommandNotExecutable(f"{name}: {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise CommandNotExecutable(f"{name}: {path} is {kind}")
    if not os.access(path, os.X_OK, effective_ids=True):
        raise CommandNotExecutable(
            f"{name}: {path} is not executable", f"chmod +x {path}, unless its mount has noexec"
        )
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError:
        return False  # may be executed without being readable
    if head.startswith(b"#!"):
        _check_interpreter(head, path, name)
    return not head.startswith((b"#!", b"\x7fELF")) and b"\0" not in head


def _check_interpreter(head: bytes, path: str, name: str) -> None:
    words = head[2:].split(b"\n")[0].split(None, 1)
    interpreter = os.fsdecode(words[0]) if words else ""
    if not os.access(interpreter, os.X_OK, effective_ids=True):
        raise CommandNotExecutable(f"{name}: {path} names an interpreter that cannot be run: {interpreter!r}")


def spawn(
    command: Command,
    stdio: Stdio,
    tree: ProcessTree,
    before_exec: Callable[[int], None],
    ignored: frozenset[int] = frozenset(),
    enter: Callable[[], None] | None = None,
) -> int:
    """Start the command inside ``tree``; its pid. It executes nothing before ``before_exec(pid)`` has returned.
    ``enter`` is called by its process before it looks at any file.

    It keeps umask, limits and descriptors that our caller has passed on to us, and gets default signal
    dispositions but for ``ignored`` (those that we were started with ignored, as by nohup). There must be no other
    threads. Raises CheckpointError when it cannot enter the cgroup, CommandNotFound, CommandNotExecutable.
    """
    env = dict(command.env) | {MARKER: tree.run_id}
    report_read, report = os.pipe()
    go, go_write = os.pipe()
    procs = procs_of = tree.cgroup.open_procs() if tree.cgroup else -1
    ours = _private_descriptors()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork_into(tree.cgroup.fd) if tree.cgroup else None
        if pid is None:
            pid = os.fork()
        else:
            procs_of = -1
        if pid == 0:
            _become(command, env, stdio, _Child(report, go, procs_of, ours, ignored, enter))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for fd in (report, go, procs):
            if fd >= 0:
                os.close(fd)
    try:
        first = os.read(report_read, _FAILURE.size)
        tree.started(pid)
        if first[:1] in (_ENTERED, b""):
            before_exec(pid)
            with suppress(BrokenPipeError):
                os.write(go_write, b"+")
            first = os.read(report_read, _FAILURE.size)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(report_read)
        os.close(go_write)
    if first:
        os.waitpid(pid, 0)
        raise _failure(command, *_FAILURE.unpack(first))
    return pid


@dataclass(frozen=True, slots=True)
class _Child:
    report: int
    go: int
    procs: int  # written to by a child that is not in its cgroup yet, else -1
    ours: tuple[int, ...]
    ignored: frozenset[int]
    enter: Callable[[], None] | None


def _private_descriptors() -> tuple[int, ...]:
    """Those that close at exec anyway. The child closes them before: a guard may hold it up in exec."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and not os.get_inheritable(int(name)):
                found.append(int(name))
    return tuple(found)


def _become(command: Command, env: dict[str, str], stdio: Stdio, child: _Child) -> NoReturn:
    """The child's way from fork to exec. Never returns to the caller's code."""
    stage = _CGROUP
    try:
        signal.set_wakeup_fd(-1)
        if child.procs >= 0:
            os.write(child.procs, b"0")
        stage = _NAMESPACE
        if child.enter is not None:
            child.enter()
        _take_descriptors(stdio, child)
        stage = _CHDIR
        os.chdir(command.cwd)
        _reset_signals(child.ignored)
        os.write(child.report, _FAILURE.pack(_ENTERED, 0))
        if os.read(child.go, 1):  # else snapbreaker died
            stage = _EXEC
            _execute(command, env)
    except OSError as error:
        os.write(child.report, _FAILURE.pack(stage, error.errno or 0))
    finally:
        os._exit(127)


def _take_descriptors(stdio: Stdio, child: _Child) -> None:
    if stdio.terminal:
        os.login_tty(stdio.stdin)  # setsid, TIOCSCTTY, dup2
    else:
        for number, fd in enumerate((stdio.stdin, stdio.stdout, stdio.stderr)):
            if fd != number:
                os.dup2(fd, number)
        if stdio.own_group:
            os.setpgid(0, 0)
    for fd in child.ours:
        if fd not in (child.report, child.go):
            with suppress(OSError):
                os.close(fd)


def _reset_signals(ignored: frozenset[int]) -> None:
    for number in _PYTHON_IGNORES:
        signal.signal(number, signal.SIG_DFL)
    for inherited in ignored:
        signal.signal(inherited, signal.SIG_IGN)
    for handled in signal.valid_signals():
        if handled not in ignored and callable(signal.getsignal(handled)):
            signal.signal(handled, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(command: Command, env: dict[str, str]) -> None:
    try:
        os.execve(command.path, command.argv, env)
    except OSError as error:
        if error.errno != errno.ENOEXEC or not command.shell:
            raise
        os.execve("/bin/sh", ["sh", command.path, *command.argv[1:]], env)


def _failure(command: Command, stage: bytes, number: int) -> SnapbreakerError:
    name, text = command.argv[0], os.strerror(number)
    if stage == _CGROUP:
        return CheckpointError(f"{name} was not run: it cannot be put into the run's cgroup: {text}")
    if stage == _NAMESPACE:
        return CheckpointError(f"{name} was not run: it cannot enter its sandbox: {text}")
    if stage == _CHDIR:
        return CommandNotExecutable(f"{name}: cannot be started in {command.cwd}: {text}")
    if number == errno.ENOENT and not os.path.lexists(os.path.join(command.cwd, command.path)):
        return CommandNotFound(f"{name}: {text}")
    return CommandNotExecutable(f"{name}: {command.path} cannot be executed: {text}")
