"""`bench zfs`: a checkpoint and a rollback of two datasets beside bare `zfs`, in a VM of user-mode Linux."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.bench.in_vm import measured
from tests.bench.measure import compared, heading
from tests.lab.vm_zfs import ZfsVm, disks

# Runs in the VM: prints, for each of the ways, seconds by the clock and of the processors, by round.
SIDES = r"""
files, rounds = int(sys.argv[1]), int(sys.argv[2])
SETS = ("tank/b", "tank/b/child")
def change():
    for path in ("/b", "/b/child"):
        for number in range(0, files, 2):
            with open(f"{path}/new", "wb") as file:
                file.write(os.urandom(1 << 14))
            os.rename(f"{path}/new", f"{path}/{number}")
def rolled_back():
    made = run("snapbreaker", "-q", "checkpoint", "create", "--scope", "/b")
    change()
    os.sync()
    back = run("snapbreaker", "-q", "rollback", "--last", "--whole", "--force", "--yes")
    run("snapbreaker", "-q", "checkpoint", "delete", *checkpoints())
    return made, back
subprocess.run("zpool create -f tank /dev/ubdb; zfs create -o mountpoint=/b tank/b; zfs create tank/b/child",
               shell=True, check=True)
for path in ("/b", "/b/child"):
    for number in range(files):
        with open(f"{path}/{number}", "wb") as file:
            file.write(os.urandom(1 << 14))
names = ("zfs snapshot -r", "snapbreaker checkpoint create", "zfs rollback", "snapbreaker rollback",
         "path by path")
found = {name: [] for name in names}
for _ in range(rounds):
    os.sync()
    found["zfs snapshot -r"].append(took(run("sync", "-f", "/b"), run("zfs", "snapshot", "-r", "tank/b@bare")))
    change()
    os.sync()
    found["zfs rollback"].append(took(*(run("zfs", "rollback", f"{one}@bare") for one in SETS)))
    run("zfs", "destroy", "-r", "tank/b@bare")
    made, back = rolled_back()
    found["snapbreaker checkpoint create"].append(took(made))
    found["snapbreaker rollback"].append(took(back))
    in_use = [open(f"{path}/1") for path in ("/b", "/b/child")]
    found["path by path"].append(took(rolled_back()[1]))
    for file in in_use:
        file.close()
print(json.dumps(found))
"""
NOTE = """\
Times are the VM's, whose kernel is an ordinary process: its system calls take several times as long as the
machine's. snapbreaker's include its own start, and a second comparison of everything after the rollback, which
`zfs rollback` does without; that keeps nothing of what it takes away. *Path by path* is snapbreaker's with a file
of each dataset held open.
"""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=2000, help="files in each of the two datasets")


def bench(options: Namespace, scratch: Path) -> str:
    if reason := ZfsVm.missing():
        raise SystemExit(reason)
    found = measured(ZfsVm.create(scratch, None, disks(scratch, 1 << 30)), SIDES, options.files, options.rounds)
    facts = (
        f"two datasets of {options.files:,} files of 16 KiB, half of them replaced",
        f"{options.rounds} rounds",
        f"load at the end {os.getloadavg()[0]:.1f}",
    )
    create = {name: found[name] for name in ("snapbreaker checkpoint create", "zfs snapshot -r")}
    restore = {name: found[name] for name in ("snapbreaker rollback", "path by path", "zfs rollback")}
    tables = "\n\n".join(compared(sides, [], {}) for sides in (create, restore))
    return f"{heading('ZFS', *facts)}\n{tables}\n\n{NOTE}"
