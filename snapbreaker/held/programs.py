"""The programs that the sandbox has in the place of others, on disk and bound."""

from __future__ import annotations

import os
import pkgutil
import shutil
from collections.abc import Mapping

from snapbreaker.linux.systemd import Manager, booted
from snapbreaker.system.owners import is_session

INSIDE = "/run/snapbreaker"  # where the sandbox has what its programs read and write
SHARED, PROGRAMS, EMPTY = "shared", "programs", "empty"
LOG, UNITS = "log", "units"
_LIBRARY = ("held.sh", "units.sh", "answers.sh")
# What is replaced, by who is PID 1, and where it may be. The real ones are needed too, as copies.
_HOOKS = "lsb/init-functions.d"
_SYSTEMD = {
    "systemctl": ("/usr/bin", "/bin"),
    "systemd-tmpfiles": ("/usr/bin", "/bin"),
    "40-systemd": (f"/usr/lib/{_HOOKS}", f"/lib/{_HOOKS}"),
}
_SCRIPTS = {"service": ("/usr/sbin", "/sbin"), "invoke-rc.d": ("/usr/sbin", "/sbin")}


def prepare(directory: str) -> None:
    """Write the programs, the units' states of now and an empty log into ``directory``, which exists and is ours.

    Raises OSError, and SystemdError where systemd is PID 1 and does not answer.
    """
    write(directory, INSIDE, "")
    real = os.path.join(directory, SHARED, "real")
    for name, places in _replaced().items():
        for path in _present(name, places)[:1]:
            shutil.copy(path, os.path.join(real, name))
    if booted():
        _write(os.path.join(directory, SHARED, UNITS), _states(), 0o644)


def write(directory: str, inside: str, root: str) -> None:
    """The programs for a sandbox that has ``directory``/shared at ``inside``, and units below ``root``."""
    shared, programs = os.path.join(directory, SHARED), os.path.join(directory, PROGRAMS)
    for each in (shared, programs, os.path.join(shared, "real"), os.path.join(directory, EMPTY)):
        os.mkdir(each, 0o755)
        os.chmod(each, 0o755)  # whatever the umask: not only root asks for the state of a unit
    for name in (LOG, UNITS):
        _write(os.path.join(shared, name), b"", 0o644)
    for name in _LIBRARY:
        _write(os.path.join(shared, name), _shim(name, inside, root), 0o644)
    for name in (*_SYSTEMD, *_SCRIPTS):
        text = _shim("record" if name in _SCRIPTS else name, inside, root)
        _write(os.path.join(programs, name), text, 0o755)


def bindings(directory: str) -> list[tuple[str, str]]:
    """(file or directory of the host, path in the sandbox), to be bound in this order.

    No path in the sandbox has a symlink in it. Those below /run are mount points to be made there, all others
    exist. The first must be writable, the others need not be. dpkg cannot replace a file that is a mount point
    (link(2): EXDEV, rename(2): EBUSY). All are of the package systemd, which therefore cannot be upgraded in it;
    where init is another one, of init-system-helpers.
    """
    found = [(os.path.join(directory, SHARED), INSIDE)]
    if booted():
        found.append((os.path.join(directory, EMPTY), "/run/systemd/system"))
    for name, places in _replaced().items():
        found += [(os.path.join(directory, PROGRAMS, name), path) for path in _present(name, places)]
    return found


def _replaced() -> Mapping[str, tuple[str, ...]]:
    return _SYSTEMD if booted() else _SCRIPTS


def _present(name: str, places: tuple[str, ...]) -> list[str]:
    """Where the program is, each file once: /bin is a link to /usr/bin where the two are merged."""
    paths = (os.path.join(place, name) for place in places)
    return list(dict.fromkeys(os.path.realpath(path) for path in paths if os.path.exists(path)))


def _states() -> bytes:
    """A line for each unit in memory: its name, ACTIVE and SUB. Logins are left out: nobody is to act on them."""
    with Manager.connect() as manager:
        units = [unit for unit in manager.units().values() if unit.load == "loaded" and not is_session(unit.name)]
    return "".join(f"{unit.name} {unit.active} {unit.sub}\n" for unit in units).encode()


def _shim(name: str, inside: str, root: str) -> bytes:
    text = pkgutil.get_data("snapbreaker", f"held/shims/{name}")  # also from a zip file
    assert text is not None
    return text.replace(b"@HELD@", inside.encode()).replace(b"@ROOT@", root.encode())


def _write(path: str, data: bytes, mode: int) -> None:
    with open(path, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
