# What the programs of this directory share. @HELD@ is where the sandbox has it, @ROOT@ the root that they look at.
held='@HELD@'
root='@ROOT@'
PATH=/usr/sbin:/usr/bin:/sbin:/bin # whatever the caller's

# record WORD…: one request, exactly: how many words, then each of them, all ended by NUL.
# One write(2) up to 8 KiB; the lock is for longer ones.
record() {
	{ flock 9 && printf '%s\0' "$#" "$@" >&9; } 9>>"$held/log" && return
	echo "${0##*/}: error: snapbreaker could not record this request" >&2
	exit 1
}

# refuse WHAT: one line that no rule of the breaker takes for harmless.
refuse() {
	echo "${0##*/}: error: $1 is not possible in snapbreaker's sandbox: it needs the running systemd" >&2
	exit 1
}

# only_looks ACTION: whether such an action of an init script says something of files, and nothing to a daemon.
only_looks() {
	case $1 in
	configtest | config-test | check* | test* | *status* | show* | list* | help | usage | version | info) return 0 ;;
	esac
	return 1
}
