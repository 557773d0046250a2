"""What a machine says of itself by its own tools: the judge of packages, units, accounts and ports.

Shares nothing with snapbreaker, which reads the same facts from files and from PID 1.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from tests.lab.machine import Machine

# What comes and goes by itself: logins, and what serves them.
_LOGINS = re.compile(r"session-|user@|user-runtime-dir@|run-u|systemd-(hostnamed|timedated|localed)")


@dataclass(frozen=True, slots=True)
class Facts:
    packages: str  # with selections, holds among them
    audit: str
    units: dict[str, str]
    enabled: dict[str, str]
    failed: str
    users: str
    groups: str
    ports: list[str]

    def differences(self, other: Facts) -> dict[str, object]:
        """What ``other`` says otherwise."""
        mine, theirs = asdict(self), asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    @property
    def held(self) -> list[str]:
        """Packages on hold."""
        return [line.split()[0] for line in self.packages.splitlines() if " hold ok " in line]


def facts(machine: Machine) -> Facts:
    return Facts(
        packages=said(machine, "dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\\n"),
        audit=said(machine, "dpkg", "--audit"),
        units=_units(said(machine, "systemctl", "list-units", "--all", "--plain", "--no-legend", "--no-pager")),
        enabled=_states(said(machine, "systemctl", "list-unit-files", "--no-legend", "--no-pager")),
        failed=said(machine, "systemctl", "list-units", "--failed", "--no-legend"),
        users=said(machine, "getent", "passwd"),
        groups=said(machine, "getent", "group"),
        ports=sorted(
            " ".join(line.split()[i] for i in (0, 4)) for line in said(machine, "ss", "-Hlntu").splitlines()
        ),
    )


def processes(machine: Machine) -> list[str]:
    """Command lines of everything that is no part of a login, of this look, or of systemd's own helpers."""
    listed = said(machine, "ps", "-eo", "unit,args", "--no-headers")
    lines = [line.split(None, 1) for line in listed.splitlines()]
    return sorted(f"{unit} {args}" for unit, args in lines if not _LOGINS.match(unit) and unit != "-")


def said(machine: Machine, *argv: str) -> str:
    result = machine.run(*argv, session=False)
    assert result.returncode in (0, 1), result.stderr
    return result.stdout


def _units(listing: str) -> dict[str, str]:
    """Services, sockets, timers and paths that are up or failed."""
    found = {}
    for line in listing.splitlines():
        name, _load, active, _sub = line.split()[:4]
        kind = name.rpartition(".")[2]
        counts = kind in ("service", "socket", "timer", "path") and active in ("active", "failed")
        if counts and not _LOGINS.match(name):
            found[name] = active
    return found


def _states(listing: str) -> dict[str, str]:
    rows = [line.split() for line in listing.splitlines()]
    return {row[0]: row[1] for row in rows if not _LOGINS.match(row[0])}


# Lifetimes, counters, and whether the other end of a cable is there.
_PASSING = re.compile(
    r" (valid_lft|preferred_lft|expires) \S+| (packets|bytes) \d+|\[\d+:\d+\]| # handle \d+"
    r"| tentative|NO-CARRIER,|,LOWER_UP"
)
# What the kernel makes of a link some time after it is up, and what is everybody's.
_LINES = re.compile(
    r"^(#.*|net\.\S*(neigh|conntrack_count|random)\S* = .*|.*\bfe80:.*|.*multicast ff00:.*)$", re.MULTILINE
)


def kernel(machine: Machine) -> list[str]:
    """The state of its network and its names, a line for each fact; by ip(8), sysctl(8), nft(8), iptables(8)."""
    commands = {
        "links": "ip -d -o link | sed 's/ link.ether.*//; s/^[0-9]*: //; s/ state .*//'",
        "addresses": "ip -o addr | sed 's/^[0-9]*: //'",
        "routes": "ip route show table all; ip -6 route show table all",
        "rules": "ip rule; ip -6 rule",
        "settings": "sysctl -a 2>/dev/null | grep ^net",
        "tables": "nft -s list ruleset",
        "iptables": "iptables-save; ip6tables -S",
        "names": "hostname; domainname",
    }
    found = []
    for what, command in commands.items():
        text = _LINES.sub("", _PASSING.sub("", said(machine, "sh", "-c", command)))
        found += [f"{what}: {line}" for line in text.splitlines() if line.strip()]
    return sorted(found)
