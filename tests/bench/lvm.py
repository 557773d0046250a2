"""`bench lvm`: a checkpoint and a rollback beside bare `lvcreate` and `lvconvert --merge`, in a VM."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.bench.in_vm import measured
from tests.bench.measure import compared, heading
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_zfs import disks

# Runs in the VM: prints, for each of the ways, seconds by the clock and of the processors, by round.
SIDES = r"""
files, rounds, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SIZE = [] if kind == "thin" else ["-L", "100m"]
def change():
    for number in range(0, files, 20):
        with open("/b/new", "w") as file:
            file.write(f"after {number}")
        os.rename("/b/new", f"/b/{number}")
MAKE = {"thin": "lvcreate -qq --type thin-pool -L 600m -n pool g; lvcreate -qq -V 400m --thinpool pool -n b g",
        "classic": "lvcreate -qq -y -L 400m -n b g"}
MKFS = "mke2fs -q -t ext4 /dev/g/b; mkdir -p /b; mount /dev/g/b /b"
subprocess.run(f"vgcreate -q g /dev/ubdb; {MAKE[kind]}; {MKFS}", shell=True, check=True)
for number in range(files):
    with open(f"/b/{number}", "w") as file:
        file.write(f"before {number}")
names = ("lvcreate -s", "snapbreaker checkpoint create", "lvconvert --merge", "snapbreaker rollback")
found = {name: [] for name in names}
for _ in range(rounds):
    os.sync()
    snapshot = ("lvcreate", "-qq", "-s", *SIZE, "-n", "s", "g/b")
    found["lvcreate -s"].append(took(run("sync", "-f", "/b"), run(*snapshot)))
    change()
    os.sync()
    merge = ("lvconvert", "-qq", "-i", "1", "--merge", "g/s")
    found["lvconvert --merge"].append(took(run("umount", "/b"), run(*merge), run("mount", "/dev/g/b", "/b")))
    made = run("snapbreaker", "-q", "checkpoint", "create", "--scope", "/b")
    found["snapbreaker checkpoint create"].append(took(made))
    change()
    os.sync()
    back = run("snapbreaker", "-q", "rollback", "--last", "--whole", "--force", "--yes")
    found["snapbreaker rollback"].append(took(back))
    run("snapbreaker", "-q", "checkpoint", "delete", *checkpoints())
print(json.dumps(found))
"""
NOTE = """\
Times are the VM's, whose kernel is an ordinary process: its system calls take several times as long as the
machine's. snapbreaker's include its own start, and a second comparison of everything after the rollback, which
`lvconvert --merge` does without; that needs the volume unmounted, and keeps nothing of what it takes away.
"""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=2000, help="files on the volume")
    parser.add_argument("--kind", choices=["thin", "classic"], default="thin", help="of the volume")


def bench(options: Namespace, scratch: Path) -> str:
    if reason := LvmVm.missing():
        raise SystemExit(reason)
    found = measured(
        LvmVm.create(scratch, None, disks(scratch, 1 << 30)), SIDES, options.files, options.rounds, options.kind
    )
    volume = f"a {options.kind} volume of {options.files:,} files, a twentieth of them replaced"
    create = {name: found[name] for name in ("snapbreaker checkpoint create", "lvcreate -s")}
    restore = {name: found[name] for name in ("snapbreaker rollback", "lvconvert --merge")}
    tables = "\n\n".join(compared(sides, [], {}) for sides in (create, restore))
    return f"{heading('LVM', volume, f'{options.rounds} rounds')}\n{tables}\n\n{NOTE}"
