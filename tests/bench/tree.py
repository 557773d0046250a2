"""A tree of many small files, and a change of many paths. Both depend on nothing but their numbers."""

from __future__ import annotations

import os
import random
from pathlib import Path

FILES_PER_DIRECTORY = 30
DIRECTORIES_PER_TOP = 100
YEAR_2024 = 1_704_067_200
BLOCK = random.Random(1).randbytes(1 << 20)


def path_of(number: int) -> str:
    directory = number // FILES_PER_DIRECTORY
    return f"t{directory // DIRECTORIES_PER_TOP:03}/d{directory % DIRECTORIES_PER_TOP:02}/f{number:07}"


def make(root: Path, files: int) -> None:
    """``files`` paths: 92 % regular files (2 KiB in the median, 9 KiB in the mean), 4 % links of either kind."""
    for number in range(files):
        path = root / path_of(number)
        if number % FILES_PER_DIRECTORY == 0:
            path.parent.mkdir(parents=True)
        if number % 25 == 7:
            path.symlink_to(f"f{number - 1:07}")
        elif number % 25 == 9:
            path.hardlink_to(root / path_of(number - 1))
        else:
            path.write_bytes(content(number))
        if number % 40 == 3:
            os.setxattr(path, "user.bench", b"%d" % number, follow_symlinks=False)
        if number % 10 == 5:
            os.chown(path, 1000, 1000, follow_symlinks=False)
    _settle_times(root)


def content(number: int) -> bytes:
    size = int(random.Random(number).lognormvariate(7.6, 1.7))
    start = number * 4099 % (len(BLOCK) // 2)
    return BLOCK[start : start + min(size, len(BLOCK) // 2)]


def change(root: Path, files: int, paths: int) -> None:
    """Change ``paths`` of the tree's paths, evenly spread, as an upgrade would.

    Three of ten are replaced by rename, two written in place, two deleted, one new; one has another mode and
    owner, one another xattr and time.
    """
    for step in range(paths):
        number = step * files // paths
        path = root / path_of(number)
        if path.is_symlink():
            path.unlink()
            path.symlink_to("elsewhere")
        else:
            _change_file(path, number, step % 10)


def _change_file(path: Path, number: int, kind: int) -> None:
    if kind < 3:
        new = path.with_name("new")
        new.write_bytes(content(number + 1) + b"replaced")
        new.rename(path)
    elif kind < 5:
        with path.open("r+b") as file:
            file.write(b"written in place")
    elif kind < 7:
        path.unlink()
    elif kind == 7:
        path.with_name(f"new-{number:07}").write_bytes(content(number))
    elif kind == 8:
        os.chmod(path, 0o600)
        os.chown(path, 1001, 1001)
    else:
        os.setxattr(path, "user.bench", b"changed")
        os.utime(path, (YEAR_2024, YEAR_2024))


def _settle_times(root: Path) -> None:
    """Modification times as of one long finished installation, directories last."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in (*names, "."):
            seconds = YEAR_2024 + sum(name.encode()) * 3607
            os.utime(os.path.join(directory, name), (seconds, seconds), follow_symlinks=False)
