# The way from unshare(1) to /sbin/init, in namespaces of its own; what an initramfs does on a machine.
# usage: rootmnt=DIR sh stage.sh DEVICE FSTYPE OPTIONS [HOOK…], with the console as standard error
set -eu
device=$1 fstype=$2 options=$3
console=$(readlink /proc/self/fd/2)
shift 3
# The host's own mount of it was copied with the mount namespace.
umount "$rootmnt"
mount -t "$fstype" -o "$options" "$device" "$rootmnt"

# The environment is that of initramfs-tools(7). A hook may mount another root at $rootmnt; one that fails does not
# keep the machine from booting.
for hook in "$@"; do
	ROOT=$device ROOTFSTYPE=$fstype ROOTFLAGS=$options "$hook" || echo "stage: $hook ended with $?" >&2
done

cd "$rootmnt"
mount -t proc proc proc
# Kernel settings are the host's too, those of the network excepted.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
if [ -e proc/sysrq-trigger ]; then
	mount --bind proc/sysrq-trigger proc/sysrq-trigger
	mount -o remount,bind,ro proc/sysrq-trigger
fi
mount -t sysfs -o ro,nosuid,noexec,nodev sysfs sys
mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid,size=16m tmpfs dev
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
# Each boot has an id of its own, as on a machine.
cat proc/sys/kernel/random/uuid >run/boot-id
chmod 444 run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
rm run/boot-id

(
	umask 0
	cd dev
	for node in null:3 zero:5 full:7 random:8 urandom:9; do
		mknod -m 666 "${node%:*}" c 1 "${node#*:}"
	done
	mknod -m 666 tty c 5 0
	mkdir -m 755 pts
	mkdir -m 1777 shm
	mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts pts
	mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs shm
	ln -s pts/ptmx ptmx
	ln -s /proc/self/fd fd
	ln -s fd/0 stdin
	ln -s fd/1 stdout
	ln -s fd/2 stderr
	# The device of the root, by which tools reach all of its filesystem.
	mknod -m 660 "${device#/dev/}" b "$((0x$(stat -c %t "$device")))" "$((0x$(stat -c %T "$device")))"
	: >console
	mount --bind "$console" console
)

# Both at the same place (pivot_root(2)): no directory is needed for the old root.
pivot_root . .
umount -l .
cd /
exec env -i container=lab TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/sbin/init --show-status=yes --log-target=journal
