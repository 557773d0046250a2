"""Disks with the VM's Debian on another root filesystem, made in a VM by the scripts of the Vagrant boxes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab import cache, system, uml, vm_image
from tests.lab.debian import Recipe
from tests.lab.errors import LabError
from tests.lab.uml import Uml

PROVISION = Path(__file__).resolve().parents[2] / "vagrant/provision"
LIBRARY = PROVISION / "lib.sh"
ARGUMENTS = {"btrfs": ("rootfstype=btrfs", "rootflags=subvol=@")}


def disk(session: Path, kind: str, size: str = vm_image.SIZE, recipe: Recipe = system.RECIPE) -> Path:
    """A disk with the Debian of ``recipe``, filled by ``provision/KIND.sh``; made when the cache has none (half a
    minute).
    """
    script = PROVISION / f"{kind}.sh"
    golden = vm_image.golden(uml.kernel(), recipe)
    key = [script.read_text(), LIBRARY.read_text(), size, str(golden)]

    def make(_work: Path, result: Path) -> None:
        subprocess.run(["truncate", "-s", size, result], check=True)
        vm = Uml.create(session, golden)
        vm.disks.append(result)
        try:
            vm.boot()
            for file in (LIBRARY, script):
                vm.put(file, f"/run/provision/{file.name}")
            done = vm.run("sh", f"/run/provision/{script.name}", timeout=300)
            if done.returncode:
                raise LabError(f"{script.name} ended with {done.returncode}: {done.stdout}{done.stderr}")
            vm.power_off()
        finally:
            vm.disks.remove(result)
            vm.close()

    return cache.made_once(f"vm-{kind}", key, make)


def create(session: Path, kind: str, recipe: Recipe = system.RECIPE) -> Uml:
    """A VM, not booted, on a copy of such a disk."""
    return Uml.create(session, disk(session, kind, recipe=recipe), arguments=ARGUMENTS[kind])
