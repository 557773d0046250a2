"""Paths that lead to a server."""

from __future__ import annotations

import os

from snapbreaker.linux.mountinfo import parse_mount
from snapbreaker.linux.served import Served, served_to

LOCAL = [b"1 0 8:1 / / rw - ext4 /dev/a rw", b"2 1 0:5 / /proc rw - proc proc rw"]
FAR = [
    b"3 1 0:40 / /mnt/nfs rw - nfs4 server:/x rw",
    b"4 3 8:2 / /mnt/nfs/disk rw - xfs /dev/b rw",
    b"5 1 0:41 / /home/me/gvfs rw - fuse.gvfsd-fuse gvfs rw",
]


def test_the_longest_mount_point_decides() -> None:
    served = Served.of([parse_mount(line) for line in LOCAL + FAR])
    assert served.holds(b"/mnt/nfs/file")
    assert served.holds(b"/mnt/nfs/file (deleted)")
    assert served.holds(b"/home/me/gvfs/a/b")
    assert not served.holds(b"/mnt/nfs/disk/file")
    assert not served.holds(b"/mnt/nfsx")
    assert not served.holds(b"/etc/passwd")


def test_where_nobody_serves_nothing_is_looked_up() -> None:
    assert Served.of([parse_mount(line) for line in LOCAL]) == Served()
    assert served_to(os.getpid()) is served_to(os.getpid())
    assert served_to(1 << 22) == Served()
