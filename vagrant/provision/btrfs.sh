#!/bin/sh
# btrfs.sh [DISK]: the system moves to btrfs on an empty disk; / is the subvolume @, /home is @home, as Ubuntu has it.
. "${0%/*}/lib.sh"
disk=$(empty_disk "${1-}")
new=/run/new-root
mkdir "$new"
mkfs.btrfs --quiet --label system "$disk"
mount "$disk" "$new"
btrfs --quiet subvolume create "$new/@"
btrfs --quiet subvolume create "$new/@home"
umount "$new"
mount --options subvol=@,noatime "$disk" "$new"
mkdir "$new/home"
mount --options subvol=@home,noatime "$disk" "$new/home"

copy_root "$new"
: >"$new/etc/fstab"
spec=UUID=$(blkid --match-tag UUID --output value "$disk")
fstab_line "$new" "$spec" / btrfs subvol=@,noatime
fstab_line "$new" "$spec" /home btrfs subvol=@home,noatime
boot_from "$new"
umount --recursive "$new"
rmdir "$new"
