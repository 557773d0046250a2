"""What a Debian package with a systemd service brings: the unit, and debhelper's parts of the maintainer scripts.

The texts follow dh_installsystemd(1): autoscripts ``postinst-systemd-enable``, ``postinst-systemd-restart``,
``prerm-systemd-restart``, ``postrm-systemd``, ``postrm-systemd-reload-only``.
"""

from __future__ import annotations

from collections.abc import Sequence

UNIT = """[Unit]
Description=test service {name}

[Service]
ExecStart={command}

[Install]
WantedBy=multi-user.target
"""
POSTINST = """if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] ||
	[ "$1" = abort-remove ]; then
	for unit in UNITS; do
		deb-systemd-helper unmask "$unit" >/dev/null || true
		if deb-systemd-helper --quiet was-enabled "$unit"; then
			deb-systemd-helper enable "$unit" >/dev/null || true
		else
			deb-systemd-helper update-state "$unit" >/dev/null || true
		fi
	done
	if [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		if [ -n "$2" ]; then action=restart; else action=start; fi
		deb-systemd-invoke $action UNITS >/dev/null || true
	fi
fi"""
PRERM = """if [ -d /run/systemd/system ] && [ "$1" = remove ]; then
	deb-systemd-invoke stop UNITS >/dev/null || true
fi"""
POSTRM = """if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = purge ] && [ -x /usr/bin/deb-systemd-helper ]; then
	deb-systemd-helper purge UNITS >/dev/null || true
fi"""


def unit(name: str, text: str) -> str:
    """The unit file: ``text`` itself when it is one, else one that runs the command ``text``."""
    return text if text.lstrip().startswith("[") else UNIT.format(name=name, command=text)


def scripts(services: Sequence[str]) -> dict[str, str]:
    """Maintainer scripts for ``services``; empty when there is none."""
    if not services:
        return {}
    units = " ".join(f"{name}.service" for name in services)
    texts = {"postinst": POSTINST, "prerm": PRERM, "postrm": POSTRM}
    return {name: text.replace("UNITS", units) for name, text in texts.items()}
