"""Putting what finishes, at every boot, what a run left undone in place, and taking it away again."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from snapbreaker import commands, selection
from snapbreaker.backend import Backend
from snapbreaker.errors import CheckpointError
from snapbreaker.linux import systemd, udev
from snapbreaker.linux.durable import write_file
from snapbreaker.linux.systemd import Manager
from snapbreaker.system import boot_files
from snapbreaker.system.boot_files import NAME

DIRECTORY = Path("/etc/systemd/system")
WANTS = DIRECTORY / "sysinit.target.wants"
_INITRAMFS = Path("/etc/initramfs-tools")
HOOK = _INITRAMFS / "scripts/local-bottom/snapbreaker"
TAKES_RULES = _INITRAMFS / "hooks/snapbreaker"


def program() -> str:
    """What was executed as snapbreaker, as a path that will do at boot. Raises CheckpointError."""
    started = sys.argv[0]
    path = os.path.abspath(started)
    if os.path.basename(path) == "__main__.py" or not os.access(path, os.X_OK):
        raise CheckpointError(
            f"{started} is no program that can be started at boot", "scripts/bundle /usr/local/bin/snapbreaker"
        )
    return path


def install(store: Path) -> list[str]:
    """Put the unit in place and enable it; the paths that were written. Raises CheckpointError, OSError."""
    if not systemd.booted():
        raise CheckpointError("systemd is not PID 1 here", "run `snapbreaker recover` at boot by other means")
    text = boot_files.unit(store, program())
    path, link = DIRECTORY / NAME, WANTS / NAME
    write_file(str(path), text.encode())
    path.chmod(0o644)
    WANTS.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(path)
    _reload()
    rules = udev.keep("".join(one.udev_rules for one in _backends()))
    return [str(path), str(link), *rules, *_install_hooks(store)]


def _install_hooks(store: Path) -> list[str]:
    """Into the initramfs, where initramfs-tools makes it; that takes some seconds."""
    texts = {HOOK: hook(store), TAKES_RULES: boot_files.takes(udev.FOR_GOOD)}
    written = [path for path in texts if path.parent.is_dir()]
    for path in written:
        path.write_text(texts[path])
        path.chmod(0o755)
    if written and commands.installed("update-initramfs"):
        commands.run(["update-initramfs", "-u"], timeout=600)
    return [str(path) for path in written]


def hook(store: Path) -> str:
    """Its text, with what every backend has to say there."""
    backends = _backends()
    lines = ("".join(one.first_aid for one in backends), "".join(one.in_reach for one in backends))
    return boot_files.hook(store, *lines)


def _backends() -> list[Backend]:
    return [selection.load(name) for name in selection.loadable()]


def knows(first_aid: str) -> bool:
    """Whether the hook for the initramfs holds these lines. Raises OSError."""
    return not first_aid or (HOOK.exists() and first_aid in HOOK.read_text())


def remove() -> list[str]:
    """Take it away again; the paths that were removed."""
    removed = []
    for path in (WANTS / NAME, DIRECTORY / NAME, udev.FOR_GOOD, HOOK, TAKES_RULES):
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(str(path))
    if removed and systemd.booted():
        _reload()
    return removed


def missing(store: Path) -> str:
    """What keeps a run that is cut off by a reboot from being finished then; empty when nothing does."""
    if not systemd.booted():
        return ""
    try:
        text = (DIRECTORY / NAME).read_text()
    except OSError:
        return "not installed"
    if not (WANTS / NAME).is_symlink():
        return "not enabled"
    if f"--store {store} recover" not in text:
        return "installed for another store"
    executed = text.partition("/bin/sh -c '")[2].partition(" ")[0]
    return "" if os.access(executed, os.X_OK) else f"its program {executed} is not there"


def _reload() -> None:
    with Manager.connect() as manager:
        manager.reload()
