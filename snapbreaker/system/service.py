"""The systemd unit that finishes, early at every boot, what a run left undone: systemd.unit(5), bootup(7)."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from snapbreaker import commands
from snapbreaker.checkpoint.lock import lock_file
from snapbreaker.checkpoint.states import NEVER_STARTED, SETTLED, State
from snapbreaker.errors import CheckpointError
from snapbreaker.linux import systemd
from snapbreaker.linux.systemd import Manager

NAME = "snapbreaker-recover.service"
DIRECTORY = Path("/etc/systemd/system")
WANTS = DIRECTORY / "sysinit.target.wants"

# Before whatever writes to the filesystems, or reads what a run may have changed: what runs early either waits for
# sysinit.target or is named here. Not systemd-sysusers.service: filesystems are mounted after it, and systemd
# drops this unit where it finds a cycle. What it adds to /etc/passwd goes back with the rest.
_UNIT = """\
[Unit]
Description=Finish what a snapbreaker run left undone
DefaultDependencies=no
ConditionPathExistsGlob={store}/*/state.json
RequiresMountsFor={store}
After=local-fs.target systemd-remount-fs.service
Before=sysinit.target shutdown.target
Before=systemd-tmpfiles-setup.service systemd-journal-flush.service
Before=systemd-random-seed.service systemd-update-utmp.service systemd-machine-id-commit.service ldconfig.service
Conflicts=shutdown.target
IgnoreOnIsolate=yes

[Service]
Type=oneshot
# 0, 3 and 4 are snapbreaker's own words, which only a process that takes the lock says: a shell runs an
# interpreter of zero bytes, as a power cut leaves it, with success. Else the run has broken what it runs on: then
# its copy.
ExecStart=/bin/sh -c '{program} --store {store} recover; code=$$?; \\
    [ ! -e {lock} ] || case $$code in 0|3|4) exit $$code;; esac; exec {store}/lifeboat/recover'
SuccessExitStatus=4
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity

[Install]
WantedBy=sysinit.target
"""


# initramfs-tools(7): run once the root is mounted at $rootmnt. A run that was cut off while the C library was half
# unpacked leaves a root that cannot execute anything, systemd included; one that broke fstab(5) or a unit file
# leaves one that does not get as far as the unit above. Only what klibc's and busybox's programs can do.
HOOK = Path("/etc/initramfs-tools/scripts/local-bottom/snapbreaker")
_HOOK = """\
#!/bin/sh
# Written by `snapbreaker install-service`: the files of a run that was cut off go back before anything uses them.
[ "$1" != prereqs ] || exit 0
boot=$rootmnt{store}/lifeboat/boot
[ -x "$boot" ] || exit 0
unfinished() {{
	for file in "$rootmnt{store}"/*/state.json; do
		[ -r "$file" ] || continue
		while read -r line; do
			case $line in {patterns}) return 0 ;; esac
		done <"$file"
	done
	return 1
}}
unfinished || exit 0
echo "snapbreaker: a run was cut off: its files go back before the boot"
mount -o remount,rw "$ROOT" "$rootmnt"
mount -t proc proc "$rootmnt/proc"
mount -t tmpfs tmpfs "$rootmnt/run"
rootmnt=$rootmnt sh "$boot"
umount "$rootmnt/run"
umount "$rootmnt/proc"
[ "$readonly" != y ] || mount -o remount,ro "$ROOT" "$rootmnt"
"""


def unit(store: Path, program: str) -> str:
    """The unit's text. Raises CheckpointError for a path that cannot be written there."""
    for path in (str(store), program):
        if shlex.quote(path) != path or "%" in path:
            raise CheckpointError(f"{path!r} cannot be named in a unit file", "use a path of plain characters")
    return _UNIT.format(store=store, program=program, lock=lock_file())


def hook(store: Path) -> str:
    """The text of the hook for the initramfs."""
    patterns = "|".join(f'*\'"state": "{state}"\'*' for state in State if state not in SETTLED | NEVER_STARTED)
    return _HOOK.format(store=store, patterns=patterns)


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
    text = unit(store, program())
    path, link = DIRECTORY / NAME, WANTS / NAME
    path.write_text(text)
    path.chmod(0o644)
    WANTS.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(path)
    _reload()
    return [str(path), str(link), *_install_hook(store)]


def _install_hook(store: Path) -> list[str]:
    """Into the initramfs, where initramfs-tools makes it; that takes some seconds."""
    if not HOOK.parent.is_dir():
        return []
    HOOK.write_text(hook(store))
    HOOK.chmod(0o755)
    if commands.installed("update-initramfs"):
        commands.run(["update-initramfs", "-u"], timeout=600)
    return [str(HOOK)]


def remove() -> list[str]:
    """Take it away again; the paths that were removed."""
    removed = []
    for path in (WANTS / NAME, DIRECTORY / NAME, HOOK):
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
