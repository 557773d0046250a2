"""A system on several filesystems that no container has: btrfs / with @home, ext4 /boot, a vfat ESP."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import partitions, vm_roots
from tests.lab.uml import Uml
from tests.lab.vm import Vm
from tests.vm.conftest import booted

COMPARER = "/usr/local/lib/comparer.py"
PLACES = {"root": "/", "home": "/home", "boot": "/boot", "esp": "/boot/efi"}
KEPT = ("dev", "proc", "run", "sys", "tmp", "var/tmp", "var/log", "var/lib/snapbreaker", "var/lib/systemd")
FSTAB = """
LABEL=boot /boot ext4 noatime 0 0
UUID=1234-ABCD /boot/efi vfat umask=0077 0 0
"""
FILL = """
mkdir -p /boot /usr/lib/modules/1.0/kernel
cat >>/etc/fstab; systemctl daemon-reload
mount /boot; mkdir -p /boot/efi; mount /boot/efi
for name in vmlinuz-1.0 initrd.img-1.0 grub/grub.cfg; do
	mkdir -p $(dirname /boot/$name); head -c 300000 /dev/urandom >/boot/$name
done
head -c 100000 /dev/urandom >/usr/lib/modules/1.0/kernel/vfat.ko
cd /boot/efi; mkdir -p EFI/BOOT EFI/debian "EFI/a long name with blanks.d"
head -c 900000 /dev/urandom >EFI/BOOT/BOOTX64.EFI; echo grub >EFI/debian/grub.cfg; echo csv >EFI/debian/BOOTX64.CSV
echo one >"EFI/a long name with blanks.d/and a file.with.dots"; echo read-only >EFI/debian/readonly
chmod a-w EFI/debian/readonly; : >EFI/empty
find /boot -exec touch -d '2025-11-05 12:00:01' {} +
sync
"""
CHANGE = r"""
set -e
echo 2 >/usr/lib/modules/1.0/kernel/vfat.ko; mkdir -p /usr/lib/modules/2.0; echo 2 >/usr/lib/modules/2.0/vfat.ko
rm /boot/vmlinuz-1.0; echo new >/boot/vmlinuz-2.0; echo new >/boot/grub/grub.cfg; echo new >/home/file
cd /boot/efi/EFI
printf X | dd of=BOOT/BOOTX64.EFI bs=1 seek=5 conv=notrunc status=none
touch -d '2025-11-05 12:00:01' BOOT/BOOTX64.EFI
mv debian/grub.cfg debian/GRUB.tmp; mv debian/GRUB.tmp debian/GRUB.CFG
rm -r "a long name with blanks.d"; mkdir new; echo x >new/file; rm empty; mkdir empty
mv debian/BOOTX64.CSV BOOT/; chmod u+w debian/readonly; echo more >>debian/readonly
mv debian Debian.1; mv Debian.1 DEBIAN
"""
END = "\necho 'ERROR: enough'; sleep 60"


@pytest.fixture
def machine(lab: Path) -> Iterator[Vm]:
    if reason := Uml.missing():
        pytest.skip(reason)
    boot, esp = lab / "boot.img", lab / "esp.img"
    for image, size in ((boot, 128), (esp, 64)):
        image.write_bytes(b"")
        subprocess.run(["truncate", "-s", f"{size}M", image], check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "boot", boot], check=True)
    subprocess.run(["mkfs.vfat", "-i", "1234ABCD", "-n", "ESP", esp], check=True, stdout=subprocess.DEVNULL)
    vm = vm_roots.create(lab, "btrfs")
    vm.disks += [boot, esp]
    try:
        booted(vm)
        done = vm.run("sh", "-exc", FILL, input=FSTAB.encode())
        assert done.returncode == 0, done.stderr
        vm.put(Path(comparer.__file__), COMPARER)
        yield vm
    finally:
        vm.close()


def save(vm: Vm) -> None:
    for name, place in PLACES.items():
        done = vm.run("python3", COMPARER, "save", place, f"/var/tmp/{name}", *KEPT)
        assert done.returncode == 0, done.stderr


def differences(vm: Vm) -> dict[str, str]:
    found = {}
    for name, place in PLACES.items():
        done = vm.run("python3", COMPARER, "diff", place, f"/var/tmp/{name}", *KEPT)
        assert done.returncode in (0, 1), done.stderr
        if done.returncode:
            found[place] = done.stdout
    return found


def test_all_go_back_together(machine: Vm) -> None:
    vm = machine
    listed = [json.loads(line) for line in vm.snapbreaker("doctor", "--json").stdout.splitlines()]
    chosen = {one["volume"]: one["chosen"] for one in listed if "volume" in one}
    assert chosen == {"/": "btrfs", "/home": "btrfs", "/boot": "filecopy", "/boot/efi": "filecopy"}
    save(vm)
    done = vm.snapbreaker("run", "--", "sh", "-c", CHANGE + END, timeout=120)
    print(done.stderr)
    assert done.returncode == 1, done.stdout + done.stderr
    assert differences(vm) == {}
    done = vm.snapbreaker("run", "--", "sh", "-c", CHANGE, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(differences(vm)) == set(PLACES.values())
    done = vm.snapbreaker("rollback", "--last", "--yes", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(vm) == {}


def test_the_root_is_replaced_at_boot_and_the_kernel_goes_back_at_once(machine: Vm) -> None:
    vm = machine
    done = vm.snapbreaker("install-service")
    assert done.returncode == 0, done.stderr
    save(vm)
    done = vm.snapbreaker("run", "--", "sh", "-c", CHANGE, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    done = vm.snapbreaker("rollback", "--last", "--at-boot", "--yes", timeout=120)
    assert done.returncode == 5, done.stdout + done.stderr
    assert set(differences(vm)) == {"/", "/home"}
    assert vm.run("cat", "/usr/lib/modules/2.0/vfat.ko").stdout == "2\n"  # of the kernel that runs now, perhaps
    done = vm.snapbreaker("rollback", "--last", "--call-off")
    assert done.returncode == 4
    assert "/boot went back already" in done.stderr
    vm.power_cut()
    assert vm.boot() == "running"
    assert differences(vm) == {}
    listed = json.loads(vm.snapbreaker("checkpoint", "list", "--json").stdout.splitlines()[-1])
    assert listed["state"] == "rolled-back"


def test_what_is_not_mounted_is_told(machine: Vm) -> None:
    assert machine.run("umount", "/boot/efi").returncode == 0
    assert "not protected: /boot/efi is in fstab, and not mounted" in machine.snapbreaker("doctor").stdout


def test_boot_sectors_go_back_with_boot(machine: Vm, lab: Path) -> None:
    """grub-install writes them; what the files in /boot are then must fit."""
    vm = machine
    vm.power_off()
    tables = [lab / "mbr.img", lab / "gpt.img"]
    partitions.mbr(tables[0], 16 << 20)
    partitions.gpt(tables[1], 16 << 20)
    vm.disks += tables
    assert vm.boot() == "running"
    sums = ("sha256sum", "/dev/ubdd", "/dev/ubde")
    before = vm.run(*sums)
    assert before.returncode == 0, before.stderr
    install = "for disk in d e; do head -c 440 /dev/urandom >/dev/ubd$disk; done\n"
    install += "head -c 40000 /dev/urandom | dd of=/dev/ubdd bs=512 seek=1 status=none\n"
    install += "head -c 40000 /dev/urandom >/dev/ubde1; sync; echo new >/boot/grub/grub.cfg"
    failed = vm.snapbreaker("run", "--", "sh", "-c", install + END, timeout=120)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert vm.run(*sums).stdout == before.stdout
    told = json.loads(vm.snapbreaker("report", "--last", "--format", "json").stdout)
    assert "boot sectors" in {one["what"] for one in told["compared"]}
    done = vm.snapbreaker("run", "--", "sh", "-c", install, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    after = vm.run(*sums).stdout
    assert after != before.stdout
    for words, wanted in ((), before.stdout), (("--redo",), after):
        back = vm.snapbreaker("rollback", "--last", *words, "--yes", timeout=120)
        assert back.returncode == 0, back.stdout + back.stderr
        assert vm.run(*sums).stdout == wanted
