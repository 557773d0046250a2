"""Unit files that live until the next boot: masks, links, settings made with ``--runtime`` (systemd.unit(5))."""

from __future__ import annotations

import base64
import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress

DIRECTORIES = ("/run/systemd/system", "/run/systemd/system.control")
_LINK, _FILE, _DIRECTORY = "link ", "file ", "directory"


def read() -> dict[str, str]:
    """Every path at and below DIRECTORIES with what it holds, in a form that ``put_back`` understands.

    A directory only when it is empty: that there are others, what is in them says.
    """
    found: dict[str, str] = {}
    for top in DIRECTORIES:
        for directory, names, files in os.walk(top):
            if not names and not files:
                found[directory] = _DIRECTORY
            for name in [*files, *(name for name in names if os.path.islink(os.path.join(directory, name)))]:
                path = os.path.join(directory, name)
                with suppress(OSError):
                    if content := _content(path):
                        found[path] = content
    return found


def put_back(wanted: dict[str, str], only: Collection[str] | None = None) -> set[str]:
    """Make it what ``wanted`` says; the paths that had to be changed. Of other paths than ``only`` all stay.

    Raises OSError.
    """
    now = read()
    different = {path for path in wanted.keys() | now.keys() if wanted.get(path) != now.get(path)}
    if only is not None:
        different &= set(only)
    needed = {above for path in wanted for above in (path, *_above(path))}
    for path in sorted(different - wanted.keys(), reverse=True):
        _remove(path)
        for above in _above(path):
            if above in needed or not _remove(above):
                break
    for path in sorted(different & wanted.keys()):
        _make(path, wanted[path])
    return different


def _above(path: str) -> Iterator[str]:
    """The directories above ``path``, up to the one of DIRECTORIES."""
    while path not in DIRECTORIES and path != "/":
        path = os.path.dirname(path)
        yield path


def _content(path: str) -> str:
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        return _LINK + os.readlink(path)
    if not stat.S_ISREG(facts.st_mode):
        return ""
    with open(path, "rb") as file:
        data = base64.b64encode(file.read()).decode("ascii")
    return f"{_FILE}{stat.S_IMODE(facts.st_mode):o} {data}"


def _make(path: str, content: str) -> None:
    if content == _DIRECTORY:
        if not os.path.isdir(path) or os.path.islink(path):
            _remove(path)
        os.makedirs(path, mode=0o755, exist_ok=True)
        return
    _remove(path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if content.startswith(_LINK):
        os.symlink(content.removeprefix(_LINK), path)
        return
    mode, _, data = content.removeprefix(_FILE).partition(" ")
    with open(path, "wb") as file:
        file.write(base64.b64decode(data))
        os.fchmod(file.fileno(), int(mode, 8))


def _remove(path: str) -> bool:
    """Whether it is gone. A directory only when it is empty: what else is in it is somebody else's."""
    with suppress(FileNotFoundError):
        if not os.path.isdir(path) or os.path.islink(path):
            os.unlink(path)
            return True
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False
    return True
