"""The one place that runs external programs.

Never called between the start of a command and the end of its file restore: what is run here may be what the
command broke.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, ToolError
from snapbreaker.linux.process import die_with_parent

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMED_OUT, CANNOT_EXECUTE = 124, 126  # as timeout(1) and a shell say it

# The Debian package of each program that is not in one of the same name.
PACKAGES = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "apt-mark": "apt",
    "btrfs": "btrfs-progs",
    "debconf-show": "debconf",
    "dd": "coreutils",
    "dpkg-query": "dpkg",
    "findmnt": "util-linux",
    "invoke-rc.d": "init-system-helpers",
    "ip": "iproute2",
    "iptables-save": "iptables",
    "journalctl": "systemd",
    "loginctl": "systemd",
    "lvchange": "lvm2",
    "lvconvert": "lvm2",
    "lvcreate": "lvm2",
    "lvextend": "lvm2",
    "lvmconfig": "lvm2",
    "lvremove": "lvm2",
    "lvs": "lvm2",
    "modprobe": "kmod",
    "nft": "nftables",
    "scp": "openssh-client",
    "service": "init-system-helpers",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "swapoff": "mount",
    "swapon": "mount",
    "sysctl": "procps",
    "systemctl": "systemd",
    "systemd-run": "systemd",
    "systemd-tmpfiles": "systemd",
    "udevadm": "udev",
    "vgcfgbackup": "lvm2",
    "vgcfgrestore": "lvm2",
    "vgs": "lvm2",
    "zfs": "zfsutils-linux",
    "zpool": "zfsutils-linux",
}

# What would change a program's output, or redirect it to another database, configuration or library.
STRIPPED = (
    "APT_",
    "BASH_ENV",
    "BTRFS_",
    "DM_",
    "DPKG_",
    "ENV",
    "LANGUAGE",
    "LC_",
    "LD_",
    "LVM_",
    "PYTHON",
    "SYSTEMD_",
    "ZFS_",
    "ZPOOL_",
)


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended. ``stdout`` and ``stderr`` are UTF-8 with surrogateescape: ``os.fsencode`` is exact.

    ``status`` is the exit status, or ``-n`` when signal ``n`` killed it.
    """

    stdout: str
    stderr: str
    status: int


class ToolMissing(CheckpointError):
    """A program that is needed is not installed."""

    def __init__(self, program: str) -> None:
        package = PACKAGES.get(program, program)
        super().__init__(f"{program} is not installed", f"apt-get install {package}")
        self.program, self.package = program, package


def installed(program: str) -> bool:
    """Whether ``run`` would find the program."""
    return shutil.which(program, path=SEARCH_PATH) is not None


def run(
    argv: Sequence[str],
    *,
    input: bytes = b"",
    timeout: float | None = 60,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Completed:
    """Run ``argv`` and wait for its end. No shell; a plain name is looked up in the system's directories only.

    Standard input is ``input``, or empty. ``timeout`` is in seconds; past it the program's process group is
    killed. ``env`` is added to the environment, which is ours with LANG=C.UTF-8, without what would make the
    program talk another language or work on something else.

    Raises ToolMissing when there is no such program, ToolError when it failed (with ``check``) or timed out.
    """
    path = shutil.which(argv[0], path=SEARCH_PATH)
    if path is None:
        raise ToolMissing(argv[0])
    with _memory_file("stdin", input) as stdin, _memory_file("stdout") as out, _memory_file("stderr") as err:
        streams = {"_in": stdin, "_out": out, "_err": err}
        options = {**streams, "_env": _environment(env or {}), "_cwd": cwd}
        try:
            status = _spawn([path, *argv[1:]], options, timeout)
        except OSError as error:
            raise ToolError(list(argv), CANNOT_EXECUTE, "", str(error)) from error
        if status is None:
            late = f"{_text(err)}\nno end after {timeout:g} s: killed"
            raise ToolError(list(argv), TIMED_OUT, _text(out), late)
        done = Completed(_text(out), _text(err), status)
    if check and status != 0:
        raise ToolError(list(argv), status, done.stdout, done.stderr)
    return done


def run_joined(first: Sequence[str], second: Sequence[str]) -> None:
    """Run two programs, the second of which reads what the first one writes, and wait for both.

    Both end with us. Raises ToolMissing; ToolError of the second where both failed.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with ExitStack() as stack:
        ends = [stack.enter_context(os.fdopen(writing, "wb")), stack.enter_context(os.fdopen(reading, "rb"))]
        nothing = stack.enter_context(_memory_file("stdin"))
        errors = [stack.enter_context(_memory_file("stderr")) for _ in range(2)]
        spare = stack.enter_context(_memory_file("stdout"))
        streams = ({"_in": nothing, "_out": ends[0]}, {"_in": ends[1], "_out": spare})
        running = []
        for argv, own, told, end in zip((first, second), streams, errors, ends, strict=True):
            path = shutil.which(argv[0], path=SEARCH_PATH)
            if path is None:
                raise ToolMissing(argv[0])
            options = {**own, "_err": told, "_env": _environment({}), "_preexec_fn": _end_with_parent}
            try:
                running.append(_start([path, *argv[1:]], options))
            except OSError as error:
                raise ToolError(list(argv), CANNOT_EXECUTE, "", str(error)) from error
            end.close()
        for one in running:
            one.wait()
        for argv, one, told in reversed(list(zip((first, second), running, errors, strict=True))):
            if one.exit_code:
                raise ToolError(list(argv), one.exit_code, "", _text(told))


def _end_with_parent() -> None:
    _default_signals()
    die_with_parent(signal.SIGKILL)


def _spawn(argv: Sequence[str], options: Mapping[str, Any], timeout: float | None) -> int | None:
    """Run to the end; the exit status, ``-n`` for a signal, None when it was out of time."""
    running = _start(argv, options)
    ended = False
    try:
        ended = _ends_within(running.pid, timeout)
    finally:
        if not ended:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    return running.exit_code if ended else None


def _start(argv: Sequence[str], options: Mapping[str, Any]) -> Any:
    """The program runs. Raises OSError."""
    import sh  # late: 76 ms

    # sh encodes arguments strictly, in one encoding. Latin-1 maps each byte to itself, so that a name which is not
    # valid UTF-8 arrives as it is.
    program, *arguments = (os.fsencode(argument).decode("latin-1") for argument in argv)
    # The streams are files, not pipes: nothing is cut off, and a daemon that keeps them open does not hang us.
    # _bg returns before the end, so that the time is limited here: sh's own _timeout costs 0.1 s a call.
    # A group of its own: an operator's Ctrl-C does not reach a program in the middle of a repair.
    try:
        return sh.Command(program)(
            *arguments,
            _encoding="latin-1",
            _bg=True,
            _bg_exc=False,
            _new_group=True,
            _ok_code=tuple(range(-signal.NSIG, 256)),
            **{"_preexec_fn": _default_signals, **options},
        )
    except sh.CommandNotFound as error:
        raise OSError(f"{argv[0]!r}: not a name that can be run") from error
    except sh.ForkException as error:  # carries the child's traceback as text
        raise OSError(str(error).strip().splitlines()[-1]) from error


def _default_signals() -> None:
    """Undo what would be inherited: sh's ignored SIGHUP and what the monitor blocks."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _ends_within(pid: int, timeout: float | None) -> bool:
    """Wait for a child without reaping it, so that its pid cannot become another process's meanwhile."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    finally:
        os.close(pidfd)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(STRIPPED)}
    # LVM tools complain on standard error of every descriptor that they inherit.
    return {**kept, "LANG": "C.UTF-8", "PATH": SEARCH_PATH, "LVM_SUPPRESS_FD_WARNINGS": "1", **extra}


@contextmanager
def _memory_file(name: str, data: bytes = b"") -> Iterator[IO[bytes]]:
    """An unnamed file in memory (memfd_create(2)) that holds ``data``, positioned at its start."""
    with open(os.memfd_create(name), "w+b", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        file.seek(0)
        yield file


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "surrogateescape")
