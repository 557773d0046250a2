"""The mounts of this process's namespace, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re

from snapbreaker.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo; paths and names are str with surrogateescape.

    ``device`` is ``major:minor``, ``root`` the directory of the filesystem that is mounted (for btrfs it starts
    with the subvolume's path), ``mountpoint`` is relative to this process's root. ``options`` are those of the
    mount, ``super_options`` those of the filesystem, both as the comma-separated text of the kernel.
    """

    id: int
    parent: int
    device: str
    root: str
    mountpoint: str
    options: str
    fstype: str
    source: str
    super_options: str

    @property
    def shows_snapshot(self) -> bool:
        """Whether ZFS mounted it by itself, since somebody looked into ``.zfs/snapshot``. It goes by itself."""
        return self.fstype == "zfs" and "@" in self.source


def read_mounts(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """All mounts, in the kernel's order: a mount that hides another at the same place comes after it.

    Raises OSError when /proc is not mounted.
    """
    with open(path, "rb", buffering=0) as file:
        text = file.readall() or b""
    return [parse_mount(line) for line in text.split(b"\n") if line]


def parse_mount(line: bytes) -> Mount:
    """One line. The optional fields between the options and ``-`` (propagation) are left out."""
    fields = line.split(b" ")
    separator = fields.index(b"-", 6)
    fstype, source, super_options = [*fields[separator + 1 :], b"", b"", b""][:3]
    identity, parent, device, root, mountpoint, options = fields[:6]
    return Mount(
        int(identity),
        int(parent),
        device.decode(),
        _text(root),
        _text(mountpoint),
        _text(options),
        _text(fstype),
        _text(source),
        _text(super_options),
    )


def _text(field: bytes) -> str:
    # seq_file escapes space, tab, newline, backslash and (in sources) # as three octal digits.
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))
