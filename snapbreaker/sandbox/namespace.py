"""Making the mount namespace of a sandbox: a process is forked for it, and hands over its descriptors.

The namespace lives as long as somebody has one, or is in it. With it go the overlays; the uppers stay, without a
name, as long as their descriptors.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import field
from typing import NoReturn

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files.merged import BY_OTHERS, BY_ROOT, TOP
from snapbreaker.linux import namespaces
from snapbreaker.linux.handles import handle_of
from snapbreaker.linux.overlay_origin import encode
from snapbreaker.linux.process import die_with_parent
from snapbreaker.linux.unmount import unmount
from snapbreaker.linux.xattr import read_xattrs
from snapbreaker.paths import is_below
from snapbreaker.sandbox import private_run
from snapbreaker.sandbox.places import RUN, Kind, Place

# Names stay what they are (no redirects), content is copied before metadata is changed (no metacopy): the upper
# alone says what was changed. Nobody needs it after a power cut (volatile, Linux 5.10).
_OPTIONS = "metacopy=off,index=off,volatile"
_OF_ROOT, _OF_OTHERS = "redirect_dir=off", "userxattr"  # the latter implies the former, and refuses the word
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIMIT = 250  # descriptors in one message: SCM_MAX_FD is 253


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A sandbox to be made. ``base`` is an empty directory of ours: the uppers are made in it, after a tmpfs of
    ``size`` octets was mounted there, unless that is 0. ``bindings`` are files and directories to be shown at
    other paths, which exist or lie below the private /run.
    """

    base: str
    size: int
    places: Sequence[Place]
    bindings: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class Namespace:
    """Descriptors: of the namespaces (``user``: -1 where there is none of its own), and of each volume's upper."""

    mount: int
    user: int
    uppers: dict[int, int] = field(default_factory=dict)

    def enter(self) -> None:
        """For a process with one thread. Raises OSError."""
        if self.user >= 0:
            namespaces.setns(self.user, namespaces.CLONE_NEWUSER)
        namespaces.setns(self.mount, namespaces.CLONE_NEWNS)

    def leave(self) -> None:
        """Let go of the namespace, but not of the uppers. Idempotent."""
        for fd in (self.mount, self.user):
            if fd >= 0:
                os.close(fd)
        self.mount = self.user = -1

    def close(self) -> None:
        self.leave()
        for fd in self.uppers.values():
            os.close(fd)
        self.uppers = {}


def make(blueprint: Blueprint) -> Namespace:
    """Raises CheckpointError, with what the kernel said."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        mine.close()
        _build(blueprint, theirs)
    theirs.close()
    try:
        with mine:
            said, fds, flags, _ = socket.recv_fds(mine, 1 << 16, _LIMIT)
    finally:
        os.waitpid(pid, 0)
    lines = os.fsdecode(said).split("\0")
    if lines[0] != "made":
        raise CheckpointError(f"the sandbox could not be made: {lines[0] or 'its maker died'}", "see `doctor`")
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise CheckpointError("the sandbox could not be made: too many open files", "ulimit -n 1024")
    for fd in fds:
        os.set_inheritable(fd, False)
    own_user = lines[1] == "user"
    numbers = [int(number) for number in lines[2].split()]
    uppers = dict(zip(numbers, fds[1 + own_user :], strict=True))
    return Namespace(fds[0], fds[1] if own_user else -1, uppers)


def _build(blueprint: Blueprint, told: socket.socket) -> NoReturn:
    try:
        die_with_parent(signal.SIGKILL)
        maker = _Maker(blueprint)
        maker.run()
        lines = ["made", "user" if maker.own_user else "", " ".join(map(str, maker.uppers))]
        socket.send_fds(told, [os.fsencode("\0".join(lines))], [*maker.spaces, *maker.uppers.values()])
    except OSError as error:
        where = f" {os.fsdecode(error.filename)}" if error.filename else ""
        told.send(os.fsencode(f"{error.strerror}{where}"))
    finally:
        os._exit(0)


class _Maker:
    """The forked process, on its way to the namespace."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self.own_user = os.geteuid() != 0
        self.spaces: list[int] = []
        self.uppers: dict[int, int] = {}
        self._new = ""  # where the new root is put together; empty: the machine's own stays the root

    def run(self) -> None:
        blueprint = self._blueprint
        run = _open_directory("/run")
        self._unshare()
        namespaces.seclude()
        kinds = ["mnt", "user"] if self.own_user else ["mnt"]
        self.spaces = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
        if blueprint.size:
            limits = f"mode=0700,size={blueprint.size},nr_inodes={max(blueprint.size >> 10, 1024)}"
            namespaces.mount("snapbreaker", blueprint.base, "tmpfs", namespaces.MS_NODEV, limits)
        if any(place.path == "/" for place in blueprint.places):
            self._new = f"{blueprint.base}/root"
            os.mkdir(self._new)
        # Opened before an overlay hides them: by its path it is the overlay's own directory that would be shown.
        through = {place.path: _reference(place.path) for place in blueprint.places if place.kind is Kind.THROUGH}
        bindings = [(_reference(source), path) for source, path in blueprint.bindings]
        for place in blueprint.places:
            self._place(place, run, through.get(place.path, -1))
        for source, path in bindings:
            self._show(source, path)
        if self._new:
            namespaces.pivot_root(self._new)
            unmount(".")
            os.chdir("/")
        elif blueprint.size:
            unmount(blueprint.base)

    def _unshare(self) -> None:
        """As another user than root in a user namespace, in which we are nobody but ourselves."""
        if not self.own_user:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            return
        uid, gid = os.geteuid(), os.getegid()
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)

    def _place(self, place: Place, run: int, source: int) -> None:
        target = self._new + place.path
        if place.kind is Kind.OVERLAY:
            self._overlay(place, target)
        elif place.kind is Kind.THROUGH:
            if source >= 0:
                namespaces.bind(f"/proc/self/fd/{source}", target)
        elif run >= 0:
            options = "mode=0755,size=64m"
            namespaces.mount("run", target, "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, options)
            private_run.copy(run, _open_directory(target))

    def _overlay(self, place: Place, target: str) -> None:
        base = f"{self._blueprint.base}/{place.number}"
        os.mkdir(base, 0o700)
        for name in ("upper", "work"):
            os.mkdir(f"{base}/{name}", 0o700)
        lower, upper = _open_directory(place.path), _open_directory(f"{base}/upper")
        work = _open_directory(f"{base}/work")
        _look_alike(lower, upper)
        _note_top(lower, upper, BY_OTHERS if self.own_user else BY_ROOT)
        # By descriptor: a path may hold characters that mean something in options.
        layers = "lowerdir=/proc/self/fd/%d,upperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d"
        options = f"{layers % (lower, upper, work)},{_OPTIONS},{_OF_OTHERS if self.own_user else _OF_ROOT}"
        # The root of all needs a directory of its own; any other place is there.
        target = target.rstrip("/") or target
        namespaces.mount("snapbreaker", target, "overlay", 0, options)
        self.uppers[place.number] = upper
        os.close(lower)
        os.close(work)

    def _show(self, source: int, path: str) -> None:
        """Bind a file, socket or directory at a path; below the private /run that may have to be made."""
        target = self._new + path
        if is_below(path, RUN) and not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if stat.S_ISDIR(os.fstat(source).st_mode):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        namespaces.bind(f"/proc/self/fd/{source}", target)


def _reference(path: str) -> int:
    """-1 when it is gone."""
    try:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _open_directory(path: str) -> int:
    """-1 where there is none."""
    try:
        return os.open(path, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _look_alike(lower: int, upper: int) -> None:
    """The top of an overlay shows the upper's own directory: give it the lower's metadata."""
    status = os.fstat(lower)
    if os.geteuid() == 0:
        os.fchown(upper, status.st_uid, status.st_gid)
    for name, value in read_xattrs(lower):
        with suppress(OSError):  # no user.* on tmpfs before Linux 6.6
            os.setxattr(upper, name, value)
    os.fchmod(upper, stat.S_IMODE(status.st_mode))
    os.utime(upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def _note_top(lower: int, upper: int, prefix: bytes) -> None:
    """Which directory it was: the kernel notes that of the others. Not where the filesystem has no handles."""
    with suppress(OSError):
        os.setxattr(upper, prefix + TOP, encode(handle_of(b".", lower)))
