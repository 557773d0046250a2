#!/bin/sh
# lvm.sh [DISK]: the system moves to ext4 on a thin volume of an empty disk. A quarter of the disk stays free.
. "${0%/*}/lib.sh"
disk=$(empty_disk "${1-}")
new=/run/new-root
mkdir "$new"
vgcreate --quiet system "$disk"
lvcreate --quiet --type thin-pool --extents 75%VG --name pool system
size=$(lvs --noheadings --units m --nosuffix --options lv_size system/pool | cut -d. -f1)
lvcreate --quiet --thin --virtualsize "$((size))m" --name root system/pool
mke2fs -q -t ext4 -L root /dev/system/root
mount --options noatime /dev/system/root "$new"

copy_root "$new"
: >"$new/etc/fstab"
fstab_line "$new" /dev/system/root / ext4 noatime,errors=remount-ro
boot_from "$new"
umount --recursive "$new"
rmdir "$new"
