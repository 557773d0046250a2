#!/bin/sh
# acceptance.sh: what snapbreaker promises, tried on the machine itself. For a machine that can be thrown away: run by
# vagrant/accept in a box, and by tests/vm/test_vagrant.py in the test lab. It stops at the first promise that is broken.
set -eu
export LANG=C.UTF-8
work=$(mktemp -d /run/acceptance.XXXXXX)
name=snapbreaker-acceptance

say() { echo "acceptance: $*"; }

# expect CODE WORD…: `snapbreaker WORD…` ends with this exit code.
expect() {
	wanted=$1
	shift
	code=0
	snapbreaker "$@" >"$work/out" 2>&1 </dev/null || code=$?
	if [ "$code" != "$wanted" ]; then
		cat "$work/out"
		say "BROKEN: snapbreaker $* ended with $code, not $wanted"
		exit 1
	fi
}

# same WHAT FILE FILE
same() {
	diff -u "$2" "$3" >"$work/diff" && return
	cat "$work/diff"
	say "BROKEN: $1"
	exit 1
}

# The machine, seen without snapbreaker: metadata and content of files, packages, services.
look() {
	{
		find /etc /usr /opt /srv /home /root /boot /var/lib/dpkg -xdev -name .snapbreaker -prune -o \
			-type d -printf '%p %y %m %U:%G %T@\n' -o -printf '%p %y %m %U:%G %s %T@ %l\n' | sort
		find /etc /opt /srv /home /root /var/lib/dpkg -xdev -name .snapbreaker -prune -o -type f -print0 |
			sort -z | xargs -0 sha256sum
		dpkg-query -W
		systemctl list-units --type=service --state=active --plain --no-legend | awk '{ print $1 }' |
			grep -Ev '^(systemd-|user@|user-runtime-dir@|apt-daily|packagekit)' | sort
	} >"$1"
}

package() {
	root=$work/package
	mkdir -p "$root/DEBIAN" "$root/lib/systemd/system" "$root/etc/$name" "$root/usr/share/$name"
	cat >"$root/DEBIAN/control" <<-END
		Package: $name
		Version: 1
		Architecture: all
		Maintainer: nobody <nobody@example.org>
		Description: a service, a file of its configuration, and a user
	END
	cat >"$root/DEBIAN/postinst" <<-END
		#!/bin/sh -e
		useradd --system --no-create-home $name
		systemctl daemon-reload
		systemctl enable --quiet --now $name.service
	END
	chmod 755 "$root/DEBIAN/postinst"
	printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' \
		>"$root/lib/systemd/system/$name.service"
	echo "/etc/$name/main.conf" >"$root/DEBIAN/conffiles"
	echo "setting=1" >"$root/etc/$name/main.conf"
	seq 1 1000 | split --lines 5 - "$root/usr/share/$name/file-"
	dpkg-deb --build --root-owner-group "$root" "$work/$name.deb" >/dev/null
}

package
cat >"$work/change" <<END
set -e
dpkg -i $work/$name.deb
echo changed >>/etc/issue
chmod 700 /srv
mv /etc/hosts /etc/hosts.moved
END
look "$work/before"

say "doctor"
expect 0 doctor
cat "$work/out"

say "a change with an issue is undone, and proved"
expect 1 run -- sh -c ". $work/change; echo 'ERROR: enough'; sleep 60"
look "$work/now"
same "something is not as it was" "$work/before" "$work/now"

say "a change without one stays"
expect 0 run -- sh -c ". $work/change"
look "$work/changed"
systemctl is-active --quiet "$name" || { say "BROKEN: the service of the package does not run" && exit 1; }

say "it can be undone afterwards, and be brought back"
expect 0 rollback --last --yes
look "$work/now"
same "something is not as it was" "$work/before" "$work/now"
expect 0 rollback --last --redo --yes
look "$work/now"
same "something is not as it was" "$work/changed" "$work/now"
expect 0 rollback --last --yes

say "snapbreaker is killed with all that belongs to it in the middle of dpkg"
expect 0 install-service
look "$work/before"
systemd-run --quiet --collect --unit "$name-run" --property KillMode=control-group \
	snapbreaker run -- sh -c ". $work/change; sleep 300"
count=0
until systemctl is-active --quiet "$name"; do
	count=$((count + 1))
	[ $count -lt 600 ] || { say "BROKEN: the change was never made" && exit 1; }
	sleep 0.1
done
systemctl kill --signal=KILL "$name-run"
# One of the processes that watch each other may be alive, and roll back; else recover does.
count=0
until snapbreaker recover >"$work/out" 2>&1; do
	count=$((count + 1))
	[ $count -lt 100 ] || { cat "$work/out" && say "BROKEN: recover" && exit 1; }
	sleep 0.1
done
look "$work/now"
same "something is not as it was" "$work/before" "$work/now"

rm -r "$work"
say "all promises were kept"
