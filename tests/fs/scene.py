"""A small tree and a change of it that take a restore through every kind of step it has."""

from __future__ import annotations

import os
from pathlib import Path

from tests import comparer
from tests.lab import inodes, subvolumes
from tests.lab.hostile_attributes import acl, capability

Facts = dict[bytes, comparer.Facts]


def seed(root: Path) -> None:
    for name in ("directory/inner", "gone/below", "becomes-file", "locked"):
        (root / name).mkdir(parents=True)
    for name in (
        "directory/edited",
        "directory/inner/replaced",
        "gone/below/file",
        "becomes-file/child",
        "link-1",
    ):
        (root / name).write_text(f"before: {name}")
    (root / "becomes-directory").write_text("was a file")
    os.link(root / "link-1", root / "link-2")
    os.link(root / "link-1", root / "link-3")
    (root / "symlink").symlink_to("link-1")
    os.mkfifo(root / "fifo\n\udcff", 0o640)
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(300_000)
        file.write(b"in the middle")
    (root / "attributes").write_text("metadata only")
    os.setxattr(root / "attributes", "security.capability", capability(10))
    os.setxattr(root / "attributes", "user.colour", b"blue")
    os.setxattr(root / "directory", "system.posix_acl_default", acl(1, 7))
    (root / "locked/fixed").write_text("before")
    inodes.add_flags(root / "locked/fixed", inodes.IMMUTABLE)
    inodes.add_flags(root / "locked", inodes.IMMUTABLE)
    try:
        subvolumes.create(root / "volume")
    except OSError:
        (root / "volume").mkdir()
    else:
        subvolumes.create(root / "volume/nested")
        (root / "volume/nested/file").write_text("before")
    (root / "volume/file").write_text("before")


def mutate(root: Path) -> None:
    (root / "directory/edited").write_text("after")
    (root / "directory/inner/new").write_text("after")
    (root / "directory/inner/replaced").write_text("after, longer than before")
    (root / "gone/below/file").unlink()
    (root / "gone/below").rmdir()
    (root / "gone").rmdir()
    (root / "becomes-file/child").unlink()
    (root / "becomes-file").rmdir()
    (root / "becomes-file").write_text("is a file")
    (root / "becomes-directory").unlink()
    (root / "becomes-directory/new").mkdir(parents=True)
    (root / "becomes-directory/new/file").write_text("after")
    (root / "link-2").unlink()
    (root / "link-3").unlink()
    (root / "link-3").write_text("alone")
    (root / "symlink").unlink()
    (root / "symlink").symlink_to("elsewhere")
    (root / "fifo\n\udcff").chmod(0o600)
    with open(root / "sparse", "r+b") as file:
        file.write(b"no hole here")
    (root / "attributes").chmod(0o755)
    os.chown(root / "attributes", 3, 4)
    os.removexattr(root / "attributes", "user.colour")
    inodes.remove_flags(root / "locked", inodes.IMMUTABLE)
    inodes.remove_flags(root / "locked/fixed", inodes.IMMUTABLE)
    (root / "locked/fixed").write_text("after")
    (root / "locked/extra").write_text("after")
    inodes.add_flags(root / "locked/extra", inodes.APPEND)
    inodes.add_flags(root / "locked", inodes.APPEND)
    (root / "volume/file").write_text("after")
    if (root / "volume/nested").exists():
        subvolumes.delete(root / "volume/nested")
        subvolumes.create(root / "volume/made")
        (root / "volume/made/file").write_text("after")


def contents(facts: Facts) -> set[str]:
    return {fact.digest for fact in facts.values() if fact.kind == "file"}


def strays(now: Facts, before: Facts, after: Facts) -> list[bytes]:
    """Paths that hold neither what was there before nor what was there after the change."""
    found = []
    for path, fact in now.items():
        allowed = {
            (side[path].kind, side[path].digest, side[path].target) for side in (before, after) if path in side
        }
        if (fact.kind, fact.digest, fact.target) not in allowed:
            found.append(path)
    return found + sorted((before.keys() & after.keys()) - now.keys())
