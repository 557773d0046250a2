#!/bin/sh
# zfs.sh [DISK]: /srv becomes a dataset of a pool on an empty disk; / stays as it is.
. "${0%/*}/lib.sh"
disk=$(empty_disk "${1-}")
modprobe zfs
zpool create -o ashift=12 -O compression=lz4 -O acltype=posixacl -O xattr=sa -O atime=off -O mountpoint=/srv data "$disk"
zfs create data/app
