"""Mount and user namespaces, and what is mounted in them: unshare(2), setns(2), mount(2), pivot_root(2)."""

from __future__ import annotations

import ctypes
import os

from snapbreaker.linux.libc import check, function

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUSER = 0x1000_0000

# <sys/mount.h>
MS_NOSUID, MS_NODEV, MS_NOATIME = 2, 4, 1024
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19

_P = ctypes.c_char_p
_unshare = function("unshare", ctypes.c_int)
_setns = function("setns", ctypes.c_int, ctypes.c_int)
_mount = function("mount", _P, _P, _P, ctypes.c_ulong, _P)
_pivot_root = function("pivot_root", _P, _P)


def unshare(flags: int) -> None:
    """Leave the namespaces of our kinds ``flags`` for new ones. Raises OSError: EPERM without CAP_SYS_ADMIN."""
    check(_unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Join the namespace that ``fd`` (of /proc/PID/ns) is. For a process with one thread. Root and current
    directory are those of a joined mount namespace then.
    """
    check(_setns(fd, kind), "setns")


def mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    """Mount a filesystem. Raises OSError: ENODEV where the kernel does not know ``fstype``."""
    arguments = os.fsencode(source), os.fsencode(target), os.fsencode(fstype)
    check(_mount(*arguments, flags, os.fsencode(options)), f"mount({fstype})", target)


def bind(source: str, target: str) -> None:
    """Show ``source``, and all that is mounted below it, at ``target`` too. Neither may be led elsewhere by a
    symbolic link: the caller has resolved them.
    """
    check(_mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), "mount(bind)", target)


def seclude() -> None:
    """From here on nothing that is mounted in this namespace is seen in another one. What is unmounted outside is
    so here too, where the mounts are shared: it must not be kept busy.
    """
    check(_mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount(slave)", "/")


def pivot_root(new: str) -> None:
    """Make the mount at ``new`` the root of this namespace, with the old one on top of it: pivot_root(2), NOTES.
    Unmount ``.`` then.
    """
    os.chdir(new)
    check(_pivot_root(b".", b"."), "pivot_root", new)
