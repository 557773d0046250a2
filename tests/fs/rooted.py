"""A filesystem whose subvolume ``@`` is mounted like a root, and again after each "boot"."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

from snapbreaker.backend import Creation, Stored
from snapbreaker.files import ops
from snapbreaker.volumes import discover
from snapbreaker_backends.btrfs import BtrfsBackend, exchange
from tests import comparer
from tests.lab.loopfs import LoopFilesystem

BACKEND = BtrfsBackend()
KILLED = 77
FILL = """
btrfs -q subvolume create @; btrfs -q subvolume set-default @
cd @; mkdir -p etc var/log var/lib/store
echo old >etc/file; ln etc/file etc/link; echo old >var/log/messages; echo old >var/lib/store/state
btrfs -q subvolume create home; echo old >home/file; btrfs -q subvolume create home/inner
echo old >home/inner/file; btrfs -q subvolume create home/sealed; echo old >home/sealed/file
btrfs -q property set home/sealed ro true
btrfs -q subvolume create keptsub; echo old >keptsub/file; mkdir -p var/lib/machines
btrfs -q subvolume create var/lib/machines/one; echo old >var/lib/machines/one/file
find . -exec touch -h -d '2025-01-01 00:00:01' {} + 2>/dev/null || true
"""
KEPT = ("var/log", "var/lib/store", "var/lib/machines", "keptsub")


class Root:
    """A filesystem whose ``@`` is its default subvolume, mounted as nobody names it."""

    def __init__(self, filesystem: LoopFilesystem, named: Path | None = None) -> None:
        self.path, self.device, self.named = filesystem.path, filesystem.device, named
        self.sh(FILL)
        self.reboot()

    def sh(self, script: str) -> str:
        done = subprocess.run(["sh", "-ec", script], cwd=self.path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reboot(self) -> None:
        self.boot("@" if self.named else "")
        if self.named:
            self.named.write_text(f"{self.device} {self.path} btrfs noatime,subvol=@ 0 0\n")

    def boot(self, subvolume: str) -> None:
        """The one that was named by hand, or the default."""
        held = os.open(self.device, os.O_RDONLY)  # the loop device would be gone
        subprocess.run(["umount", self.path], check=True)
        options = f"noatime,subvol={subvolume}" if subvolume else "noatime"
        subprocess.run(["mount", "-o", options, self.device, self.path], check=True)
        os.close(held)

    def other_takes_over(self, script: str) -> None:
        """As tools for snapshots do it: the root steps aside, a copy of it takes its name, and is the default."""
        self.sh(
            f"""
            mkdir ../top; mount -o subvolid=5 {self.device} ../top; cd ../top
            mv @ aside; btrfs -q subvolume snapshot aside @; btrfs -q subvolume set-default @
            (cd @; {script})
            cd ..; umount top; rmdir top
            """
        )

    def checkpoint(self, name: str = "7-test", keep: Collection[str] = KEPT) -> Stored:
        scope = discover([str(self.path)], [str(self.path / one) for one in keep])
        volume, policy = scope.volumes[0], scope.policies[0]
        vault = Path(volume.vault_base) / name / "0"
        vault.mkdir(parents=True, mode=0o700)
        data = BACKEND.create(volume, Creation(name, str(vault), "/nonexistent", policy))
        return Stored(volume, str(vault), "/nonexistent", policy, data)

    def look(self) -> dict[bytes, comparer.Facts]:
        return comparer.snapshot(self.path, exclude=[os.fsencode(name) for name in KEPT])

    def kept(self) -> str:
        return self.sh(
            "cat var/log/messages var/lib/store/state var/lib/machines/*/file keptsub/file; ls var/lib/store"
        )

    def top_level(self) -> list[str]:
        return self.sh(f"btrfs subvolume list {self.path} | sed 's/.* path //'").splitlines()


def schedule(stored: Stored) -> None:
    exchange.schedule(stored, f"{stored.vault}/snap")


def killed(work: Callable[[], object], when: Callable[[str], bool]) -> bool:
    """``work`` in a process that dies ahead of the change for which ``when`` is true; False where it did not."""
    if (child := os.fork()) == 0:
        code = 70

        def before(operation: str, _name: bytes) -> None:
            if when(operation):
                os._exit(KILLED)

        ops.before = before
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def killed_before(name: str, work: Callable[[], object]) -> bool:
    return killed(work, lambda operation: operation == name)


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """``work`` in a process that dies ahead of its change number ``step``; False when it came to its end."""
    numbers = itertools.count(1)
    return killed(work, lambda _: next(numbers) == step)
