"""`bench zfs`: a checkpoint and a rollback of datasets beside bare `zfs`, in a VM of user-mode Linux."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.bench.in_vm import CHANGE, NOTE, InVm, Side, own_sides, tables
from tests.bench.measure import heading
from tests.lab.vm_zfs import ZfsVm, disks

VOLUMES = ("/b1", "/b2", "/b3")
PREPARE = 'zpool create -f tank /dev/ubdb; for top in "$@"; do zfs create -o mountpoint=$top tank$top; done'
PRICE = "destroys newer snapshots and keeps nothing of what it takes away"
BARE = ("zfs snapshot", "zfs rollback")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=2000, help="files in each of the datasets")


def bench(options: Namespace, scratch: Path) -> str:
    if reason := ZfsVm.missing():
        raise SystemExit(reason)
    sides = {
        BARE[0]: Side("sync -f /b1; zfs snapshot tank/b1@bare"),
        BARE[1]: Side("zfs rollback tank/b1@bare", CHANGE, "zfs destroy tank/b1@bare"),
        **own_sides(VOLUMES),
    }
    vm = InVm(ZfsVm.create(scratch, None, disks(scratch, 1 << 30)), VOLUMES, options.files)
    found, scale = vm.measured(PREPARE, sides, options.rounds)
    facts = (f"datasets of {options.files:,} files, a twentieth of them replaced", f"{options.rounds} rounds")
    shown = tables(found, scale, len(VOLUMES), BARE)
    return f"{heading('ZFS', *facts)}\n{shown}\n\n{NOTE.format(bare=BARE[1], price=PRICE)}"
