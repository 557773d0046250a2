# shellcheck shell=sh
# Sourced by the scripts of the boxes.
set -eu

# The disk on which there is nothing; $1, if given, instead.
empty_disk() {
	if [ -n "${1-}" ]; then
		echo "$1"
		return
	fi
	for disk in $(lsblk --nodeps --noheadings --paths --output NAME --exclude 1,2,7,11); do
		[ "$(lsblk --noheadings --output NAME "$disk" | wc -l)" = 1 ] || continue
		[ -z "$(blkid --probe "$disk" || true)" ] || continue
		[ "$(findmnt --noheadings --output SOURCE /)" != "$disk" ] || continue
		echo "$disk"
		return
	done
	echo "no empty disk: lsblk" >&2
	return 1
}

# copy_root NEW: all that lies on the filesystem of / to what is mounted at NEW and below.
copy_root() {
	cp --archive --one-file-system /. "$1"
}

# fstab_line NEW SPEC POINT TYPE OPTIONS: one more line, with the standard options of all filesystems.
fstab_line() {
	printf '%s %s %s %s 0 0\n' "$2" "$3" "$4" "$5" >>"$1/etc/fstab"
}

# boot_from NEW: the disk that the machine boots from now starts the system at NEW. A machine that is given its kernel
# from outside has no boot loader.
boot_from() {
	command -v grub-install >/dev/null || return 0
	first=$(lsblk --inverse --noheadings --paths --list --output NAME,TYPE "$(findmnt --noheadings --output SOURCE /)" |
		awk '$2 == "disk" { print $1 }')
	for place in dev proc sys run; do
		mount --rbind "/$place" "$1/$place"
		mount --make-rslave "$1/$place"
	done
	chroot "$1" update-initramfs -u
	chroot "$1" grub-install "$first"
	chroot "$1" update-grub
	for place in dev proc sys run; do umount --recursive "$1/$place"; done
}
