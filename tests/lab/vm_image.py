"""Disk images for VMs: the Debian of ``tests/lab/system.py`` with the modules of a kernel and an agent."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache, debian, system
from tests.lab.errors import LabError

SIZE = "3G"
UNIT = """[Unit]
Description=commands of the lab
[Service]
ExecStartPre=mkdir -p /run/lab
{mount}
ExecStart=python3 -I /run/lab/agent.py /run/lab
Delegate=yes
[Install]
WantedBy=multi-user.target
"""
# They take seconds of each boot, and find nothing in a VM.
MASKED = (
    *("e2scrub_reap.service", "systemd-pstore.service", "modprobe@drm.service", "modprobe@efi_pstore.service"),
    *("systemd-binfmt.service", "getty@tty1.service", "serial-getty@tty0.service", "systemd-random-seed.service"),
    *("systemd-udev-settle.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
    *("dbus-org.freedesktop.timesync1.service", "systemd-timesyncd.service"),
)
TRIGGER = """[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=block --subsystem-match=misc \
--subsystem-match=net
"""
FILES = {
    "etc/hostname": (0o644, "vm\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost vm\n::1 localhost\n"),
    "etc/fstab": (0o644, ""),
    "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": (0o644, TRIGGER),
}
# No test in a VM asks for it, and each checkpoint of a root on ext4 copies it: UML has no permission events.
LEFT_OUT = (
    *("debs/*.deb", "var/cache/apt/*.bin", "usr/lib/udev/hwdb.bin", "usr/lib/udev/hwdb.d/*"),
    *("usr/share/perl/*", "usr/lib/*/perl/*", "usr/lib/*/gconv/*", "usr/lib/*/libicu*", "usr/lib/python3*/test"),
    *("usr/share/zoneinfo/*", "usr/share/bash-completion/*", "usr/share/lintian/*"),
)
VERSION = 3


@dataclass(frozen=True, slots=True)
class Kernel:
    """What an image is made for.

    ``mount``: commands there that mount the host's directory at ``/run/lab``. ``modules(directory)`` makes
    ``directory/RELEASE`` with its modules.
    """

    name: str
    release: str
    mount: tuple[str, ...]
    modules: Callable[[Path], None]

    def unit(self) -> str:
        return UNIT.format(mount="\n".join(f"ExecStartPre={command}" for command in self.mount))


def missing() -> str:
    """What keeps this machine from making one, with the remedy; empty when nothing does."""
    if not shutil.which("mke2fs"):
        return "mke2fs is missing: apt-get install e2fsprogs"
    return debian.missing()


def golden(kernel: Kernel, recipe: debian.Recipe = system.RECIPE, size: str = SIZE) -> Path:
    """The image of an ext4 with the root of ``recipe``, made when the cache has none (some 10 s)."""
    key = [recipe.key(), FILES, kernel.unit(), MASKED, LEFT_OUT, size, kernel.release, VERSION]

    def make(work: Path, result: Path) -> None:
        root = work / "root"
        fill(root, kernel, recipe)
        _run("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-L", "root", "-d", root, result, size)

    debian.golden(recipe)
    return cache.made_once(f"vm-{kernel.name}-{recipe.name}", key, make)


def fill(root: Path, kernel: Kernel, recipe: debian.Recipe = system.RECIPE) -> None:
    """Make the root tree of a VM in the new directory ``root``, for an image of any kind."""
    debian.unpack(root, recipe)
    _leave_out(root)
    (root / "usr/lib/modules").mkdir(exist_ok=True)
    kernel.modules(root / "usr/lib/modules")
    debian.chroot(root, "depmod", kernel.release)
    for name, (mode, text) in {**FILES, "etc/systemd/system/lab.service": (0o644, kernel.unit())}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
    units = root / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "lab.service").symlink_to("../lab.service")


def _leave_out(root: Path) -> None:
    for pattern in LEFT_OUT:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def shim() -> Path:
    """The library without which user-mode Linux panics on new processors (``umlshim.c``)."""
    source = Path(__file__).with_name("umlshim.c")
    flags = ("-O2", "-shared", "-fPIC", "-Wall")
    key = [source.read_text(), flags]
    return cache.made_once("umlshim", key, lambda _work, result: _run("gcc", *flags, source, "-o", result))


def _run(*argv: str | Path) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise LabError(f"{' '.join(map(str, argv))} ended with {result.returncode}: {result.stderr.strip()}")
