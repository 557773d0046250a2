"""Everything becomes something else, and hard links are split and joined."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path


def _directory(path: Path) -> None:
    (path / "below/further").mkdir(parents=True)
    (path / "below/file").write_text("in a directory")
    (path / "below/symlink").symlink_to("file")
    os.mkfifo(path / "below/fifo")


def _socket(path: Path) -> None:
    # By way of the parent: sun_path holds 108 bytes only.
    with socket.socket(socket.AF_UNIX) as server:
        fd = os.open(path.parent, os.O_DIRECTORY)
        server.bind(f"/proc/self/fd/{fd}/{path.name}")
        os.close(fd)


MAKE: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("a file"),
    "empty": lambda path: path.touch(),
    "directory": _directory,
    "symlink": lambda path: path.symlink_to("target"),
    "dangling": lambda path: path.symlink_to("/nowhere/at all"),
    "fifo": lambda path: os.mkfifo(path, 0o640),
    "socket": _socket,
    "character": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "block": lambda path: os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(240, 17)),
}


def seed(root: Path) -> None:
    kinds = root / "kinds"
    kinds.mkdir()
    (kinds / "target").write_text("target")
    for kind, make in MAKE.items():
        for other in MAKE:
            make(kinds / f"{kind}-to-{other}")
        make(kinds / f"{kind}-removed")
    _seed_links(root / "links")


def mutate(root: Path) -> None:
    kinds = root / "kinds"
    for kind in MAKE:
        for other, make in MAKE.items():
            _remove(kinds / f"{kind}-to-{other}")
            make(kinds / f"{kind}-to-{other}")
        _remove(kinds / f"{kind}-removed")
        MAKE[kind](kinds / f"{kind}-made")
    _change_links(root / "links")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _seed_links(top: Path) -> None:
    for directory in ("split", "join", "far/away", "odd"):
        (top / directory).mkdir(parents=True)
    (top / "split/a").write_text("one inode, four names")
    for name in ("split/b", "split/c", "far/away/d"):
        os.link(top / "split/a", top / name)
    for name in ("a", "b"):
        (top / "join" / name).write_text("equal content, two inodes")
    for group in ("regroup1", "regroup2", "gone", "edited"):
        (top / f"{group}-a").write_text(group)
        os.link(top / f"{group}-a", top / f"{group}-b")
    (top / "odd/symlink").symlink_to("x")
    os.mkfifo(top / "odd/fifo")
    os.mknod(top / "odd/device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    for name in ("symlink", "fifo", "device"):
        os.link(top / "odd" / name, top / "odd" / f"{name}-too", follow_symlinks=False)


def _change_links(top: Path) -> None:
    # The same content under each name, but no longer one inode.
    for name in ("split/b", "far/away/d"):
        (top / name).unlink()
        shutil.copy2(top / "split/a", top / name)
    (top / "join/b").unlink()
    os.link(top / "join/a", top / "join/b")
    # a1=b1, a2=b2 becomes a1=b2, a2=b1.
    (top / "regroup1-b").unlink()
    (top / "regroup2-b").unlink()
    os.link(top / "regroup1-a", top / "regroup2-b")
    os.link(top / "regroup2-a", top / "regroup1-b")
    for name in ("gone-a", "gone-b"):
        (top / name).unlink()
    (top / "edited-a").write_text("written through one of two names")
    os.link(top / "edited-a", top / "edited-c")
    for name in ("symlink", "fifo", "device"):
        (top / "odd" / f"{name}-too").unlink()
    (top / "odd/symlink-too").symlink_to("x")
    os.mkfifo(top / "odd/fifo-too")
