"""The Debian that the container lab boots: systemd, logind, D-Bus, and services that really start."""

from __future__ import annotations

from tests.lab import debian

MACHINE_ID = "5eed0000000040008000000000000001"
INCLUDE = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "udev", "kmod", "procps", "iproute2"),
    *("apt", "apt-utils", "at", "curl", "python3", "sudo"),
    *("acl", "attr", "btrfs-progs", "e2fsprogs", "libcap2-bin", "xfsprogs"),
)
REPOSITORY = ("nginx-light", "redis-server", "cron", "git", "sqlite3", "postgresql", "openssh-server")
FILES = {
    "etc/machine-id": (0o444, f"{MACHINE_ID}\n"),
    "etc/hostname": (0o644, "lab\n"),
    # sudo warns of a host name that does not resolve.
    "etc/hosts": (0o644, "127.0.0.1 localhost lab\n::1 localhost\n"),
    "etc/default/locale": (0o644, "LANG=C.UTF-8\n"),
    "etc/resolv.conf": (0o644, ""),
}
MASKED = (
    # There is no terminal.
    *("console-getty.service", "getty.target"),
    # They would work on their own while a test compares.
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "systemd-tmpfiles-clean.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "xfs_scrub_all.timer"),
    # They would mount what belongs to the kernel of the machine that the tests run on.
    *("dev-hugepages.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
)
RECIPE = debian.Recipe("system", INCLUDE, REPOSITORY, FILES, MASKED)
