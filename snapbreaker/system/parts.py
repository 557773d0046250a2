"""Which parts of the system a scope holds: only they are recorded, reconciled and verified."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.linux import systemd
from snapbreaker.paths import is_below, relative
from snapbreaker.system import packages
from snapbreaker.system.kernel.place import here
from snapbreaker.volumes import Scope

UNIT_FILES = ("/etc/systemd/system", "/usr/lib/systemd/system")
ACCOUNTS, BOOT = "/etc", "/boot"


@dataclass(frozen=True, slots=True)
class Parts:
    """``packages``: the dpkg database is in scope; ``services``: all unit files are, and systemd is PID 1.

    ``boot``: what lies in /boot is, and so the boot sectors that belong to it are compared too. ``kernel``: all
    that configures the machine is, which the kernel's state belongs to (and we are in no chroot).
    """

    packages: bool = False
    services: bool = False
    accounts: bool = False
    boot: bool = False
    kernel: bool = False

    def __bool__(self) -> bool:
        return self.packages or self.services

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, scope: Scope) -> Parts:
        """What of this machine the volumes of ``scope`` restore."""
        return cls(
            packages=os.path.isfile(packages.STATUS) and _restores(scope, [packages.DATABASE]),
            services=systemd.booted() and os.geteuid() == 0 and _restores(scope, UNIT_FILES),
            accounts=_restores(scope, [ACCOUNTS]),
            kernel=os.geteuid() == 0 and _restores(scope, (*UNIT_FILES, ACCOUNTS)) and here(),
            boot=os.path.isdir(BOOT) and os.geteuid() == 0 and _restores(scope, [BOOT]),
        )


def _restores(scope: Scope, directories: Sequence[str]) -> bool:
    return all(_restored(scope, os.path.realpath(directory)) for directory in directories)


def _restored(scope: Scope, directory: str) -> bool:
    for volume, policy in zip(reversed(scope.volumes), reversed(scope.policies), strict=True):
        if is_below(directory, volume.root):
            return _class(policy, relative(directory, volume.root)) is PathClass.RESTORE
    return False


def _class(policy: Policy, path: str) -> PathClass:
    return policy.of(os.fsencode(path))
