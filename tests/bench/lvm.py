"""`bench lvm`: a checkpoint and a rollback beside bare `lvcreate` and `lvconvert --merge`, in a VM."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.bench.in_vm import CHANGE, NOTE, InVm, Side, own_sides, tables
from tests.bench.measure import heading
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_zfs import disks

VOLUMES = ("/b1", "/b2", "/b3")
POOL = "lvcreate -qq --type thin-pool -L 900m --poolmetadatasize 8m -n pool g"
MAKE = {"thin": "lvcreate -qq -V 200m --thinpool pool -n $name g", "classic": "lvcreate -qq -y -L 200m -n $name g"}
PREPARE = """
vgcreate -q g /dev/ubdb; {pool}
for top in "$@"; do
	name=${{top#/}}; {make}; mke2fs -q -t ext4 /dev/g/$name; mkdir $top; mount /dev/g/$name $top
done
"""
SIZE = {"thin": "", "classic": "-L 100m"}
PRICE = "needs the volume unmounted, and keeps nothing of what it takes away"
BARE = ("lvcreate -s", "lvconvert --merge")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=2000, help="files on each volume")
    parser.add_argument("--kind", choices=sorted(MAKE), default="thin", help="of the volumes")


def bench(options: Namespace, scratch: Path) -> str:
    if reason := LvmVm.missing():
        raise SystemExit(reason)
    kind = options.kind
    prepare = PREPARE.format(pool=POOL if kind == "thin" else ":", make=MAKE[kind])
    merge = "umount /b1; lvconvert -qq -i 1 --merge g/s; mount /dev/g/b1 /b1"
    sides = {
        BARE[0]: Side(f"sync -f /b1; lvcreate -qq -s {SIZE[kind]} -n s g/b1"),
        BARE[1]: Side(merge, CHANGE),
        **own_sides(VOLUMES),
    }
    vm = InVm(LvmVm.create(scratch, None, disks(scratch, 2 << 30)), VOLUMES, options.files)
    found, scale = vm.measured(prepare, sides, options.rounds)
    facts = f"{kind} volumes of {options.files:,} files, a twentieth of them replaced"
    note = NOTE.format(bare=BARE[1], price=PRICE)
    shown = tables(found, scale, len(VOLUMES), BARE)
    return f"{heading('LVM', facts, f'{options.rounds} rounds')}\n{shown}\n\n{note}"
