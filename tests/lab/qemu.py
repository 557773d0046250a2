"""VMs of qemu with Debian's own kernel 6.1, which has fanotify permission events and no FAN_PRE_ACCESS.

The processor is emulated: 15 s to boot, and about twice the time for everything. NVMe and ext4 are built into
Debian's kernel for clouds, so that it needs no initramfs.
"""

from __future__ import annotations

import functools
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache, cgroups, vm_image
from tests.lab.errors import LabError
from tests.lab.vm import Vm

PACKAGE = "linux-image-cloud-amd64"
DEPENDS = re.compile(r"\blinux-image-(\S+-cloud-amd64) \(= (\S+)\)")
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")  # where Debian 12's qemu-system-common has it
MOUNT = ("modprobe virtio_pci", "mount -t virtiofs lab /run/lab")
MACHINE = (
    *("-machine", "q35", "-accel", "tcg", "-cpu", "max"),
    *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
)
SHARE = ("-device", "vhost-user-fs-pci,chardev=share,tag=lab")
# The machine that the tests run on may not let virtiofsd raise its limits.
SERVE = ("-o", "cache=none", "-o", "sandbox=chroot", "--rlimit-nofile=0")
QUIET = ("console=ttyS0", "quiet", "panic=-1", "systemd.show_status=0", "net.ifnames=0")


@dataclass(slots=True)
class Qemu(Vm):
    """``disks`` are ``/dev/nvme0n1``, ``/dev/nvme1n1`` …"""

    root: str = "/dev/nvme0n1"

    @staticmethod
    def missing() -> str:
        if not shutil.which("qemu-system-x86_64") or not VIRTIOFSD.exists():
            return f"qemu-system-x86_64 or {VIRTIOFSD} is missing: apt-get install qemu-system-x86"
        if not _known():
            return f"{PACKAGE} is not known: apt-get update"
        return vm_image.missing() or cgroups.missing()

    @staticmethod
    def golden() -> Path:
        return vm_image.golden(kernel())

    def _power_on(self) -> subprocess.Popen[bytes]:
        self._serve_share()
        boot = ["-kernel", str(_image()), *(["-initrd", str(self.initrd)] if self.initrd else [])]
        words = ["-append", " ".join([f"root={self.root}", "rw", *QUIET, *self.arguments])]
        # virtiofsd reads requests in the memory of the VM.
        memory = ["-m", self.memory, "-object", f"memory-backend-memfd,id=memory,size={self.memory},share=on"]
        share = ["-numa", "node,memdev=memory", "-chardev", f"socket,id=share,path={self._socket}", *SHARE]
        disks = [word for number, path in enumerate(self.disks) for word in _disk(number, path)]
        return self._spawn("qemu-system-x86_64", *MACHINE, *boot, *words, *memory, *share, *disks)

    @property
    def _socket(self) -> Path:
        return self.session / f"{self.name}.socket"

    def _serve_share(self) -> None:
        """virtiofsd serves ``share`` to the one VM that connects, and ends with it."""
        self._socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self._socket))
            listening.listen()
            fd = listening.fileno()
            options = ["-o", f"source={self.share}", *SERVE]
            self.helpers.append(self._spawn(VIRTIOFSD, f"--fd={fd}", *options, fds=[fd]))


def kernel() -> vm_image.Kernel:
    """What Debian's package for clouds is now; downloaded, not installed."""
    release, _version = _known()

    def modules(directory: Path) -> None:
        unpacked = directory / "package"
        _run("dpkg-deb", "-x", _package(), unpacked)
        (unpacked / "lib/modules" / release).rename(directory / release)
        shutil.rmtree(unpacked)

    return vm_image.Kernel("qemu", release, MOUNT, modules)


def _disk(number: int, path: Path) -> tuple[str, ...]:
    drive = f"file={path},format=raw,if=none,id=disk{number},cache=unsafe"
    return ("-drive", drive, "-device", f"nvme,drive=disk{number},serial=disk{number}")


@functools.cache
def _known() -> tuple[str, ...]:
    """The release and version of the kernel that apt would install; empty when it knows none."""
    show = ["apt-cache", "show", "--no-all-versions", PACKAGE]
    found = DEPENDS.search(subprocess.run(show, capture_output=True, text=True).stdout)
    return found.groups() if found else ()


def _package() -> Path:
    def download(work: Path, result: Path) -> None:
        options = ["-o", "APT::Sandbox::User=root"]
        _run("apt-get", *options, "download", f"linux-image-{_known()[0]}", cwd=work)
        next(work.glob("*.deb")).rename(result)

    return cache.made_once("kernel-package", _known(), download)


def _image() -> Path:
    def extract(work: Path, result: Path) -> None:
        _run("dpkg-deb", "-x", _package(), work)
        next(work.glob("boot/vmlinuz-*")).rename(result)

    return cache.made_once("kernel-image", _known(), extract)


def _run(*argv: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=cwd)
    if done.returncode:
        raise LabError(f"{' '.join(map(str, argv))} ended with {done.returncode}: {done.stderr.strip()}")
