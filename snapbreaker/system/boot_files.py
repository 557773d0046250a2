"""The texts of what finishes, early at every boot, what a run left undone: a unit of systemd (systemd.unit(5),
bootup(7)) and a hook for the initramfs (initramfs-tools(7)).
"""

from __future__ import annotations

import shlex
from pathlib import Path

from snapbreaker.checkpoint.lock import lock_file
from snapbreaker.checkpoint.states import NEVER_STARTED, SETTLED, State
from snapbreaker.errors import CheckpointError

NAME = "snapbreaker-recover.service"

# Before whatever writes to the filesystems, or reads what a run may have changed: what runs early either waits for
# sysinit.target or is named here. Not systemd-sysusers.service: filesystems are mounted after it, and systemd
# drops this unit where it finds a cycle. What it adds to /etc/passwd goes back with the rest.
_UNIT = """\
[Unit]
Description=Finish what a snapbreaker run left undone
DefaultDependencies=no
# The second: the power went while records were on their way from a volume that had been replaced.
ConditionPathExistsGlob=|{store}/*/state.json
ConditionPathExists=|/.snapbreaker
RequiresMountsFor={store}
After=local-fs.target systemd-remount-fs.service
Before=sysinit.target shutdown.target
Before=systemd-tmpfiles-setup.service systemd-journal-flush.service
Before=systemd-random-seed.service systemd-update-utmp.service systemd-machine-id-commit.service ldconfig.service
Conflicts=shutdown.target
IgnoreOnIsolate=yes

[Service]
Type=oneshot
# 0, 3, 4 and 5 are snapbreaker's own words, which only a process that takes the lock says: a shell runs an
# interpreter of zero bytes, as a power cut leaves it, with success. Else the run has broken what it
# runs on: then its copy.
ExecStart=/bin/sh -c '{program} --store {store} recover; code=$$?; \\
    [ ! -e {lock} ] || case $$code in 0|3|4|5) exit $$code;; esac; exec {store}/lifeboat/recover'
SuccessExitStatus=4 5
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity

[Install]
WantedBy=sysinit.target
"""


# initramfs-tools(7): run once the root is mounted at $rootmnt. A run that was cut off while the C library was half
# unpacked leaves a root that cannot execute anything, systemd included; one that broke fstab(5) or a unit file
# leaves one that does not get as far as the unit above. Only what klibc's and busybox's programs can do.
_HOOK = """\
#!/bin/sh
# Written by `snapbreaker install-service`: puts the files of a run that was cut off back, before they are used.
[ "$1" != prereqs ] || exit 0
{first_aid}boot=$rootmnt{store}/lifeboat/boot
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
mounted=
for pair in proc:proc sysfs:sys devtmpfs:dev tmpfs:run; do
	mount -t "${{pair%:*}}" "${{pair%:*}}" "$rootmnt/${{pair#*:}}" && mounted="${{pair#*:}} $mounted"
done
{in_reach}rootmnt=$rootmnt sh "$boot"
for place in $mounted; do umount "$rootmnt/$place"; done
[ "$readonly" != y ] || mount -o remount,ro "$ROOT" "$rootmnt"
"""


# initramfs-tools(7): run when the initramfs is made.
_TAKES = """\
#!/bin/sh
# Written by `snapbreaker install-service`: snapshots do not pass for what they are of.
[ "$1" != prereqs ] || exit 0
mkdir -p "$DESTDIR/lib/udev/rules.d"
[ ! -e {path} ] || cp -p {path} "$DESTDIR/lib/udev/rules.d/"
"""


def takes(path: Path) -> str:
    """The text of the hook that takes these rules of udev(7) into the initramfs."""
    return _TAKES.format(path=path)


def unit(store: Path, program: str) -> str:
    """The unit's text. Raises CheckpointError for a path that cannot be written there."""
    for path in (str(store), program):
        if shlex.quote(path) != path or "%" in path:
            raise CheckpointError(f"{path!r} cannot be named in a unit file", "use a path of plain characters")
    return _UNIT.format(store=store, program=program, lock=lock_file())


def hook(store: Path, first_aid: str = "", in_reach: str = "") -> str:
    """The text of the hook for the initramfs; ``first_aid`` and ``in_reach``: see ``Backend``."""
    patterns = "|".join(f'*\'"state": "{state}"\'*' for state in State if state not in SETTLED | NEVER_STARTED)
    return _HOOK.format(store=store, patterns=patterns, first_aid=first_aid, in_reach=in_reach)
