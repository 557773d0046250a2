"""Filesystems on logical volumes, thin and classic, on a machine that the tests of a file share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from subprocess import CompletedProcess

from tests.lab.vm_judge import COMPARE
from tests.lab.vm_lvm import LvmVm

GROUPS = """
udevadm settle --timeout=30 || :
vgcreate -q fat /dev/ubdb; vgcreate -q thin /dev/ubdc
lvcreate -q --type thin-pool -L 700m --poolmetadatasize 8m -n pool thin
"""
MAKE = {
    "classic": "lvcreate -qq -y -W y -L {size} -n {name} fat",
    "thin": "lvcreate -qq -y -V 400m --thinpool pool -n {name} thin",
}
MKFS = {"ext4": "mke2fs -q -t ext4 -b 4096", "xfs": "mkfs.xfs -q -m bigtime=1", "btrfs": "mkfs.btrfs -q"}
SIZE = {"ext4": "160m", "xfs": "320m", "btrfs": "160m"}  # mkfs.xfs(8) makes none that is smaller
GROUP = {"classic": "fat", "thin": "thin"}
_numbers = itertools.count(1)


@dataclass(slots=True)
class Volume:
    """A filesystem on a logical volume, at ``/vN``, on a machine that other tests use too."""

    vm: LvmVm
    number: int
    kind: str

    @property
    def path(self) -> str:
        return f"/v{self.number}"

    @property
    def group(self) -> str:
        return GROUP[self.kind]

    @property
    def device(self) -> str:
        return f"/dev/{self.group}/{self.name}"

    @property
    def name(self) -> str:
        return f"data--{self.number}"

    def save(self) -> None:
        self.vm.sh(f"sync; {COMPARE} save {self.path} /root/before{self.number}")

    def differences(self) -> str:
        done = self.vm.run("sh", "-c", f"{COMPARE} diff {self.path} /root/before{self.number}")
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def run(self, script: str, *options: str) -> CompletedProcess[str]:
        command = ("sh", "-ec", f"cd {self.path}; {script}")
        return self.vm.snapbreaker("run", "--scope", self.path, *options, "--", *command, timeout=120)

    def tripped(self, script: str, status: int = 1, *options: str) -> CompletedProcess[str]:
        done = self.run(f"{script}; echo Error: it failed", *options)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def snapshots(self) -> list[str]:
        listed = f"lvs --noheadings -o lv_name -S 'origin={self.name} && vg_name={self.group}'"
        return self.vm.sh(listed).split()


def made(vm: LvmVm, kind: str, fstype: str = "ext4") -> Volume:
    volume = Volume(vm, next(_numbers), kind)
    make = MAKE[kind].format(name=volume.name, size=SIZE[fstype])
    vm.sh(
        f"{make}; {MKFS[fstype]} {volume.device}; mkdir {volume.path}; mount {volume.device} {volume.path};"
        f"echo before >{volume.path}/file; mkdir {volume.path}/app"
    )
    volume.save()
    return volume


def gone(volume: Volume) -> None:
    vm = volume.vm
    vm.sh(
        'for id in $(snapbreaker checkpoint list --json | sed -n \'s/.*"id": *"\\([^"]*\\)".*/\\1/p\'); do'
        " snapbreaker checkpoint delete --force $id; done"
    )
    assert volume.snapshots() == []
    vm.sh(f"umount {volume.path}; lvremove -qq -y {volume.group}/{volume.name}")
