"""dpkg's database, read as it lies on disk: dpkg(1) FILES, deb-control(5).

Not through dpkg-query: it is one of the programs that a command may break, and its answer would be the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.linux.locks import holder_text, is_locked

DATABASE = "/var/lib/dpkg"
STATUS = DATABASE + "/status"
UPDATES = DATABASE + "/updates"  # changes that dpkg has not merged into the status file yet
LOCKS = (
    DATABASE + "/lock-frontend",
    DATABASE + "/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
_SOUND = ("installed", "config-files", "not-installed")  # the others are half-way: dpkg(1) "Package states"


@dataclass(frozen=True, slots=True)
class Package:
    """``name`` with its architecture as dpkg shows it, its selection (install, hold …), flag and state."""

    name: str
    version: str
    selection: str
    flag: str
    state: str

    @property
    def sound(self) -> bool:
        return self.flag == "ok" and self.state in _SOUND

    def __str__(self) -> str:
        shown = f"{self.version} {self.state}".strip()
        return shown if self.selection == "install" else f"{shown}, {self.selection}"


def read(path: str = "") -> dict[str, Package]:
    """All packages that the status file (STATUS) has anything to say of. Raises OSError."""
    with open(path or STATUS, "rb") as file:
        text = file.read()
    return {package.name: package for stanza in text.split(b"\n\n") if (package := _package(stanza))}


def _package(stanza: bytes) -> Package | None:
    fields = dict(_wanted(stanza))
    if "Package" not in fields or "Status" not in fields:
        return None
    name, architecture = fields["Package"], fields.get("Architecture", "all")
    words = [*fields["Status"].split(), "", "", ""]
    shown = name if architecture == "all" else f"{name}:{architecture}"
    return Package(shown, fields.get("Version", ""), words[0], words[1], words[2])


def _wanted(stanza: bytes) -> Iterator[tuple[str, str]]:
    for line in stanza.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon and name in (b"Package", b"Status", b"Version", b"Architecture"):
            yield name.decode("ascii"), os.fsdecode(value.strip())


def unsound(found: dict[str, Package]) -> list[Package]:
    """What `dpkg --audit` would name: packages that are neither installed nor gone."""
    return [package for package in found.values() if not package.sound]


def journal() -> list[str]:
    """Files of updates/: a dpkg that was killed leaves them, and the next one merges them."""
    try:
        return sorted(name for name in os.listdir(UPDATES) if name.isdigit())
    except FileNotFoundError:
        return []


def held_locks() -> list[str]:
    """Which of dpkg's and apt's locks another process holds now. None is taken: apt would fail on it."""
    return [path for path in LOCKS if _locked(path)]


def _holder(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return "somebody"
    try:
        return holder_text(fd)
    finally:
        os.close(fd)


def _locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False  # nobody has ever made it
    try:
        return is_locked(fd)
    finally:
        os.close(fd)


def refuse_unsound() -> None:
    """Raise CheckpointError where dpkg is at work, or has not finished something."""
    if locked := held_locks():
        who = _holder(locked[0])
        raise CheckpointError(
            f"a package manager is at work: {locked[0]} is locked by {who}", "wait until it has ended"
        )
    if bad := unsound(read()):
        names = ", ".join(f"{package.name} ({package.state})" for package in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise CheckpointError(
            f"packages are not in order: {names}{more}", "dpkg --audit says more; dpkg --configure -a may mend it"
        )
    if journal():
        raise CheckpointError(f"dpkg was interrupted: {UPDATES} is not empty", "dpkg --configure -a")
