"""A tree of many files, as many bytes as a server's, and a change of many paths. Both depend on nothing but their
numbers.

160,000 paths are 5.56 GB (5,564,341,772 bytes): 92 % are regular files, 2 KiB in the median and 38 KB in the mean,
the largest 16 MiB; 4 % are symlinks, 4 % second names of files. Sizes are lognormal, as on installed systems.
"""

from __future__ import annotations

import os
import random
import shutil
from enum import Enum, auto
from functools import cache
from pathlib import Path

FILES_PER_DIRECTORY = 30
DIRECTORIES_PER_TOP = 100
LARGEST = 16 << 20  # bytes of a file
MEDIAN_LOG, SPREAD = 7.6, 2.45  # mu and sigma of the sizes in bytes
YEAR_2024 = 1_704_067_200
NEW = "new-%07d"  # the name of what is added


class Kind(Enum):
    """How a path is changed."""

    REPLACED = auto()
    WRITTEN = auto()  # in place
    DELETED = auto()
    NEW = auto()  # another one beside it
    MODE = auto()  # and owner
    XATTR = auto()  # and time
    SYMLINK = auto()  # another target


_KINDS = [Kind.REPLACED] * 3 + [Kind.WRITTEN] * 2 + [Kind.DELETED] * 2 + [Kind.NEW, Kind.MODE, Kind.XATTR]


def path_of(number: int) -> str:
    directory = number // FILES_PER_DIRECTORY
    return f"t{directory // DIRECTORIES_PER_TOP:03}/d{directory % DIRECTORIES_PER_TOP:02}/f{number:07}"


def other_name(number: int) -> int:
    """The file that is the same inode under another name; 0: none."""
    return {8: number + 1, 9: number - 1}.get(number % 25, 0)


def size_of(number: int) -> int:
    """Bytes of file ``number``; 0 where that is a link of either kind."""
    if number % 25 in (7, 9):
        return 0
    return min(int(random.Random(number).lognormvariate(MEDIAN_LOG, SPREAD)), LARGEST)


def make(root: Path, files: int, empty: bool = False) -> None:
    """``files`` paths below ``root``, which may exist; ``empty``: no file has content."""
    for number in range(files):
        path = f"{root}/{path_of(number)}"
        if number % FILES_PER_DIRECTORY == 0:
            os.makedirs(os.path.dirname(path))
        if number % 25 == 7:
            os.symlink(f"f{number - 1:07}", path)
        elif number % 25 == 9:
            os.link(f"{root}/{path_of(number - 1)}", path)
        else:
            _write(path, number, empty)
        if number % 40 == 3:
            os.setxattr(path, "user.bench", b"%d" % number, follow_symlinks=False)
        if number % 10 == 5:
            os.chown(path, 1000, 1000, follow_symlinks=False)
    _settle_times(root)


def _write(path: str, number: int, empty: bool = False, tail: bytes = b"") -> None:
    with open(path, "xb", buffering=0) as file:
        if not empty:
            start = number * 4099 % LARGEST
            file.write(_noise()[start : start + size_of(number)])
        if tail:
            file.write(tail)


@cache
def _noise() -> memoryview:
    """What all content is cut from: nothing in it can be compressed."""
    return memoryview(random.Random(1).randbytes(2 * LARGEST))


def change(root: Path, files: int, paths: int) -> None:
    """Change ``paths`` of the tree's paths, evenly spread, as an upgrade would.

    Three of ten are replaced by rename, two written in place, two deleted, one new; one has another mode and
    owner, one another xattr and time.
    """
    for step in range(paths):
        number = step * files // paths
        _change(root / path_of(number), number, kind_of(number, step))


def keep(root: Path, kept: Path, files: int, paths: int) -> None:
    """Keep what ``change`` is going to change, for ``tests.bench.bare``.

    ``files`` has a hard link of each path, or a copy of one that is changed in place, ``directories`` the tree's
    directories with their times, ``links`` a link of every file.
    """
    numbers = {step * files // paths: step for step in range(paths)}
    (kept / "files").mkdir(parents=True)
    for number in range(files):
        path, ino = root / path_of(number), os.lstat(root / path_of(number)).st_ino
        if number % FILES_PER_DIRECTORY == 0:
            directory = kept / "directories" / os.path.dirname(path_of(number))
            directory.mkdir(parents=True)
            shutil.copystat(path.parent, directory)
        if number in numbers:
            copied = kind_of(number, numbers[number]) in (Kind.WRITTEN, Kind.MODE, Kind.XATTR)
            _keep(path, kept / "files" / str(number), copied)
        if number % 25 not in (7, 9):
            os.makedirs(kept / "links" / str(ino >> 7), exist_ok=True)
            os.link(path, kept / "links" / str(ino >> 7) / str(ino))


def _keep(path: Path, kept: Path, copied: bool) -> None:
    if copied and not path.is_symlink():
        shutil.copy2(path, kept)
        os.chown(kept, path.stat().st_uid, path.stat().st_gid)
    else:
        os.link(path, kept, follow_symlinks=False)


def kind_of(number: int, step: int) -> Kind:
    """How the change of file ``number``, the one of this ``step``, changes it."""
    return Kind.SYMLINK if number % 25 == 7 else _KINDS[step % 10]


def _change(path: Path, number: int, kind: Kind) -> None:
    if kind is Kind.SYMLINK:
        path.unlink()
        path.symlink_to("elsewhere")
    elif kind is Kind.REPLACED:
        new = path.with_name("new")
        _write(str(new), number + 1, tail=b"replaced")
        new.rename(path)
    elif kind is Kind.WRITTEN:
        with path.open("r+b") as file:
            file.write(b"written in place")
    elif kind is Kind.DELETED:
        path.unlink()
    elif kind is Kind.NEW:
        _write(str(path.with_name(NEW % number)), number)
    elif kind is Kind.MODE:
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
