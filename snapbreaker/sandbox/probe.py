"""Whether a volume can be sandboxed here, found out by doing it."""

from __future__ import annotations

import os

from snapbreaker.backend import Reason, Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.merged import can_hold_user_attributes
from snapbreaker.linux.filesystems import filesystem_type
from snapbreaker.sandbox.namespace import Blueprint, make
from snapbreaker.sandbox.places import Kind, Place
from snapbreaker.sandbox.size import SMALLEST, available

_SIZE = 1 << 20
_BASE = "/sys"  # a directory that is everywhere, and in no volume


def reason_against(volume: Volume) -> Reason | None:
    """Why it cannot; None when a sandbox of it was just made, and is gone again. Changes nothing."""
    if not _kernel_knows_overlay():
        return Reason("the kernel has no overlay filesystem", "modprobe overlay")
    if available() < SMALLEST:
        return Reason(
            f"only {available() >> 20} MiB of memory are available, and a sandbox needs {SMALLEST >> 20}",
            "--upper DIR keeps the changes on a disk",
            of_memory=True,
        )
    try:
        namespace = make(Blueprint(_BASE, _SIZE, [Place(volume.root, Kind.OVERLAY, 0)]))
    except CheckpointError as error:
        return Reason(error.message, _remedy(volume))
    try:
        if os.geteuid() != 0 and not can_hold_user_attributes(next(iter(namespace.uppers.values()))):
            text = "memory holds no user attributes here, which a user's sandbox needs"
            return Reason(text, "Linux 6.6, or --upper DIR", of_memory=True)
    finally:
        namespace.close()
    return None


def _kernel_knows_overlay() -> bool:
    """As a module that is not loaded it may be missing in the list, and is loaded by mount(2)."""
    with open("/proc/filesystems", encoding="ascii") as file:
        listed = any(line.split()[-1] == "overlay" for line in file)
    return listed or os.path.isdir(f"/lib/modules/{os.uname().release}/kernel/fs/overlayfs")


def _remedy(volume: Volume) -> str:
    if os.geteuid() != 0:
        return "user namespaces must be allowed: sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces"
    if filesystem_type(volume.root) == "overlay":
        return "overlays lie on each other two deep at most: run snapbreaker outside of the container"
    return "CAP_SYS_ADMIN is needed (a container: --privileged), and a filesystem that overlayfs can lie on"
