"""Names and places: odd names, long paths, directories that move."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

ODD = (
    b"new\nline",
    b"\xff\xfe not UTF-8 \x80",
    b"-rf",
    b" lead and trail ",
    b"back\\slash",
    b"\x1b[31mred",
    b"quote'\"",
    "é".encode() * 127,
    b"x" * 255,
    b"*",
)
# Siblings whose order differs when "/" is compared as a byte: a/x, a-b, a.b
TRAPS = (b"a", b"a-b", b"a.b", b"a b", b"a\x01")
STEP = b"d" * 200
DEPTH = 30  # 6,030 bytes, PATH_MAX is 4,096


def seed(root: Path) -> None:
    names = root / "names"
    names.mkdir()
    for name in ODD:
        for directory in (b"edited", b"removed"):
            place = os.path.join(bytes(names), directory)
            os.makedirs(place, exist_ok=True)
            _write(os.path.join(place, name), b"before " + name)
    for name in TRAPS:
        place = os.path.join(bytes(names), b"traps", name)
        os.makedirs(place)
        _write(os.path.join(place, b"file"), name)
    (root / "deep").mkdir()
    _deep(root / "deep", b"kept", b"before")
    _deep(root / "deep", b"gone", b"before")
    _seed_moves(root / "moves")


def mutate(root: Path) -> None:
    names = os.fsencode(root / "names")
    for name in ODD:
        _write(os.path.join(names, b"edited", name), b"after")
        os.mkdir(os.path.join(names, b"made-" + name[:200]))
        os.unlink(os.path.join(names, b"removed", name))
    shutil.rmtree(os.path.join(names, b"traps", b"a"))
    _write(os.path.join(names, b"traps", b"a"), b"a file now")
    _write(os.path.join(names, b"traps", b"a.b", b"more"), b"new")
    _deep(root / "deep", b"kept", b"after!")
    _deep(root / "deep", b"made", b"new")
    _remove_deep(root / "deep", b"gone")
    _move(root / "moves")


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _deep(top: Path, name: bytes, content: bytes) -> None:
    """Make (or write again) a file that no single path can name."""
    fd = os.open(top, os.O_DIRECTORY)
    for step in (name, *[STEP] * DEPTH):
        with contextlib.suppress(FileExistsError):
            os.mkdir(step, dir_fd=fd)
        below = os.open(step, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open(b"bottom", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=fd)
    os.write(file, content)
    os.close(file)
    os.close(fd)


def _remove_deep(top: Path, name: bytes) -> None:
    fds = [os.open(top, os.O_DIRECTORY)]
    steps = [name, *[STEP] * DEPTH]
    for step in steps:
        fds.append(os.open(step, os.O_DIRECTORY, dir_fd=fds[-1]))
    os.unlink(b"bottom", dir_fd=fds[-1])
    for step in reversed(steps):
        os.close(fds.pop())
        os.rmdir(step, dir_fd=fds[-1])
    os.close(fds.pop())


def _seed_moves(top: Path) -> None:
    for place in ("within", "across/from", "across/to", "cycle/a", "cycle/b", "cycle/c", "swap/one", "swap/two"):
        directory = top / place / "content"
        directory.mkdir(parents=True)
        (directory / "file").write_text(place)
    (top / "inverted/outer/inner").mkdir(parents=True)
    (top / "inverted/outer/inner/file").write_text("inner")
    crowd = top / "crowd"
    crowd.mkdir()
    for number in range(300):
        (crowd / f"{number}").write_text(f"{number}")
    (top / "escape").mkdir()
    (top / "escape/file").write_text("in scope")


def _move(top: Path) -> None:
    (top / "within").rename(top / "renamed")
    (top / "across/from/content").rename(top / "across/to/arrived")
    for old, new in (("a", "spare"), ("b", "a"), ("c", "b"), ("spare", "c")):
        (top / "cycle" / old).rename(top / "cycle" / new)
    for old, new in (("one", "spare"), ("two", "one"), ("spare", "two")):
        (top / "swap" / old).rename(top / "swap" / new)
    # What was inside is now around it.
    (top / "inverted/outer/inner").rename(top / "inverted/spare")
    (top / "inverted/outer").rename(top / "inverted/spare/outer")
    (top / "inverted/spare").rename(top / "inverted/outer")
    shutil.rmtree(top / "crowd")
    # A directory becomes a way out of the scope, to a file of the same name.
    shutil.rmtree(top / "escape")
    (top / "escape").symlink_to(top.parent.parent / "outside")
