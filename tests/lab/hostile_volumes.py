"""btrfs subvolumes: made, deleted, moved, turned into directories and back. Nothing on other filesystems."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lab import subvolumes


def seed(root: Path) -> None:
    top = root / "volumes"
    top.mkdir()
    try:
        subvolumes.create(top / "edited")
    except OSError:  # not btrfs
        top.rmdir()
        return
    for name in ("deleted", "deleted/nested", "moved", "swap1", "swap2", "to-directory", "read-only", "thawed"):
        subvolumes.create(top / name)
    for directory in (*(path for path in top.iterdir()), top / "deleted/nested"):
        _fill(directory)
    (top / "to-subvolume").mkdir()
    _fill(top / "to-subvolume")
    for name in ("read-only", "thawed"):
        subvolumes.set_read_only(top / name, True)


def mutate(root: Path) -> None:
    top = root / "volumes"
    if not top.exists():
        return
    (top / "edited/file").write_text("after")
    (top / "edited/new").write_text("new")
    subvolumes.delete(top / "deleted/nested")
    subvolumes.delete(top / "deleted")
    (top / "moved").rename(root / "moved-volume")
    for old, new in (("swap1", "spare"), ("swap2", "swap1"), ("spare", "swap2")):
        (top / old).rename(top / new)
    subvolumes.delete(top / "to-directory")
    (top / "to-directory").mkdir()
    (top / "to-directory/file").write_text("in a plain directory")
    shutil.rmtree(top / "to-subvolume")
    subvolumes.create(top / "to-subvolume")
    (top / "to-subvolume/file").write_text("in a subvolume")
    subvolumes.set_read_only(top / "thawed", False)
    (top / "thawed/file").write_text("no longer read only")
    subvolumes.set_read_only(top / "edited", True)
    subvolumes.create(top / "made")
    subvolumes.create(top / "made/nested")
    (top / "made/nested/file").write_text("new")
    subvolumes.set_read_only(top / "made/nested", True)
    subvolumes.snapshot(top / "edited", top / "made-by-snapshot")


def _fill(directory: Path) -> None:
    (directory / "file").write_text(f"before, in {directory.name}")
    (directory / "directory").mkdir()
    (directory / "directory/below").write_text("below")
