"""Where things lie on a Linux system: hier(7), file-hierarchy(7). What a scope leaves out by default, and why."""

from __future__ import annotations

# Neither recorded nor touched. Journals belong to journald, which has them open and rotates them by itself.
KEPT = ("/run", "/tmp", "/var/log/journal", "/var/tmp")

# What the kernel and programs show of themselves.
INTERFACES = ("/dev", "/proc", "/run", "/sys")

# What was written there stays, since the story of a failed run is told there.
LOGS = ("/var/log",)

# A filesystem mounted at or below one of these holds a part of the system. Others (/mnt, /media …) hold data:
# they are to be named with --scope.
SYSTEM = ("/boot", "/efi", "/etc", "/home", "/opt", "/root", "/srv", "/usr", "/var")
