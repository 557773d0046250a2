"""Unit files that live until the next boot: masks, links, settings made with ``--runtime`` (systemd.unit(5))."""

from __future__ import annotations

import base64
import os
import shutil
import stat
from contextlib import suppress

DIRECTORIES = ("/run/systemd/system", "/run/systemd/system.control")
_LINK, _FILE, _DIRECTORY = "link ", "file ", "directory"


def read() -> dict[str, str]:
    """Every path at and below DIRECTORIES with what it holds, in a form that ``put_back`` understands."""
    found: dict[str, str] = {}
    for top in DIRECTORIES:
        for directory, names, files in os.walk(top):
            found[directory] = _DIRECTORY
            for name in [*files, *(name for name in names if os.path.islink(os.path.join(directory, name)))]:
                path = os.path.join(directory, name)
                with suppress(OSError):
                    found[path] = _content(path)
    return found


def put_back(wanted: dict[str, str]) -> bool:
    """Make it what ``wanted`` says; whether anything had to be changed. Raises OSError."""
    now = read()
    for path in sorted(now.keys() - wanted.keys(), reverse=True):
        _remove(path)
    different = [path for path in sorted(wanted) if now.get(path) != wanted[path]]
    for path in different:
        _make(path, wanted[path])
    return bool(different) or bool(now.keys() - wanted.keys())


def _content(path: str) -> str:
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        return _LINK + os.readlink(path)
    with open(path, "rb") as file:
        data = base64.b64encode(file.read()).decode("ascii")
    return f"{_FILE}{stat.S_IMODE(facts.st_mode):o} {data}"


def _make(path: str, content: str) -> None:
    if content == _DIRECTORY:
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


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
