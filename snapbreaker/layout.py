"""Where things lie on a Linux system: hier(7), file-hierarchy(7). What a scope leaves out by default, and why."""

from __future__ import annotations

# Neither recorded nor touched. Journals belong to journald, which has them open and rotates them by itself.
KEPT = ("/run", "/tmp", "/var/log/journal", "/var/tmp")

# What the kernel and programs show of themselves.
INTERFACES = ("/dev", "/proc", "/run", "/sys")

# Where services of the machine mount by themselves: images, containers, packages.
MANAGED = (
    "/snap",
    *("/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/lib/snapd"),
    *("/var/lib/incus", "/var/lib/lxc", "/var/lib/lxcfs", "/var/lib/lxd", "/var/snap"),
)

# What was written there stays, since the story of a failed run is told there.
LOGS = ("/var/log",)

# What is read before the root is mounted, and what of the root belongs to it.
BOOT = ("/boot", "/efi")
MODULES = ("/usr/lib/modules", "/lib/modules")

# A filesystem mounted at or below one of these holds a part of the system. Others (/mnt, /media …) hold data:
# they are to be named with --scope.
SYSTEM = ("/boot", "/efi", "/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var")
