"""VMs of user-mode Linux 6.1, for power cuts and clocks: quick to boot, an ordinary process.

Its kernel stamps inodes once a tick (10 ms), and knows no fanotify permission events.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroups, vm_image
from tests.lab.vm import Vm

MODULES = Path("/usr/lib/uml/modules")
# Directories of it that no test needs.
NO_MODULES = (
    *("sctp", "batman-adv", "tipc", "ceph", "sunrpc", "openvswitch", "nfc", "rxrpc", "atm", "rds"),
    *("dccp", "can", "ieee802154", "caif", "ocfs2", "nfs", "nfsd", "smb", "f2fs", "gfs2", "afs", "nilfs2"),
    *("ubifs", "orangefs", "jffs2", "scsi", "target", "mtd", "iio", "dlm", "llc", "hfsplus", "lockd", "9p"),
    "ecryptfs",
)
# hostfs is how a VM reaches a directory of the host: what lab= on the kernel's command line names.
MOUNT = """sh -c 'mount -t hostfs -o "$$(sed "s/.*lab=\\\\([^ ]*\\\\).*/\\\\1/" /proc/cmdline)" none /run/lab'"""
QUIET = ("quiet", "con=null", "con0=null,fd:1", "systemd.show_status=0")


@dataclass(slots=True)
class Uml(Vm):
    """``disks`` are ``/dev/ubda``, ``/dev/ubdb`` …"""

    root: str = "/dev/ubda"

    @staticmethod
    def missing() -> str:
        for tool, package in (("gcc", "gcc libc6-dev"), ("linux.uml", "user-mode-linux")):
            if not shutil.which(tool):
                return f"{tool} is missing: apt-get install {package}"
        return vm_image.missing() or cgroups.missing()

    @staticmethod
    def golden() -> Path:
        return vm_image.golden(kernel())

    def _power_on(self) -> subprocess.Popen[bytes]:
        disks = [f"ubd{number}={path}" for number, path in enumerate(self.disks)]
        more = [*([f"initrd={self.initrd}"] if self.initrd else []), *self.arguments]
        words = [f"mem={self.memory}", *QUIET, f"lab={self.share}", f"root={self.root}", "rw", *more, *disks]
        return self._spawn("linux.uml", *words, preload=str(vm_image.shim()))


def kernel() -> vm_image.Kernel:
    """The installed one."""
    release = max(path.name for path in MODULES.iterdir())

    def modules(directory: Path) -> None:
        ignored = shutil.ignore_patterns(*NO_MODULES)
        shutil.copytree(MODULES / release, directory / release, symlinks=True, ignore=ignored)

    return vm_image.Kernel("uml", release, (MOUNT,), modules)
