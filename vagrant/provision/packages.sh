#!/bin/sh
# packages.sh KIND: what a box of this kind needs, and what the acceptance tests use.
set -eu
common="acl attr e2fsprogs libcap2-bin python3"
case $1 in
ext4) more= ;;
btrfs) more="btrfs-progs" ;;
lvm) more="lvm2 thin-provisioning-tools" ;;
zfs)
	more="linux-headers-$(dpkg --print-architecture) zfs-dkms zfsutils-linux"
	# ZFS is in Debian's contrib.
	echo "deb http://deb.debian.org/debian $(. /etc/os-release && echo "$VERSION_CODENAME") contrib" \
		>/etc/apt/sources.list.d/contrib.list
	;;
*)
	echo "packages.sh: no kind of box: $1" >&2
	exit 2
	;;
esac
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # a list
apt-get -qq install -y --no-install-recommends $common $more
