# Sourced with $scripts set: cd to the clone's root and sets $venv, the development environment, made or brought up to
# date when pyproject.toml or the pins are newer than it.
cd "${scripts:?}/.." || exit 1
venv=.venv

make_venv() {
	python=
	for candidate in python3 /usr/bin/python3; do
		"$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
		python=$candidate
		break
	done
	if [ -z "$python" ]; then
		install_packages python3-venv
		python=/usr/bin/python3
	fi
	[ -x "$venv/bin/pip" ] || "$python" -m venv --clear "$venv" || return 1
	sed 's/ --hash.*//' scripts/requirements.txt >"$venv/constraints.txt"
	"$venv/bin/pip" install -qq --disable-pip-version-check --root-user-action=ignore \
		--constraint "$venv/constraints.txt" --editable '.[dev]' && touch "$venv/stamp"
}

# Debian packages of those named that are missing; only root can add them.
install_packages() {
	missing=
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "not root: install$missing for the tests that need them" >&2
		return 0
	fi
	echo "installing$missing" >&2
	# The machine's package lists may be missing or old.
	apt_install $missing 2>/dev/null || { apt-get -qq update && apt_install $missing; }
}

# RUNLEVEL=1: what a package brings as a service is not started.
apt_install() {
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

mkdir -p .env
exec 9>.env/lock
flock 9
if ! [ "$venv/stamp" -nt pyproject.toml ] || ! [ "$venv/stamp" -nt scripts/requirements.txt ]; then
	echo "preparing $venv" >&2
	make_venv || {
		echo "$venv could not be made" >&2
		exit 1
	}
fi
exec 9>&-
