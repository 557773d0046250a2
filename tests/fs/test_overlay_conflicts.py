"""Others change files under a sandbox: a conflict where the command changed them too, before any is touched."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from snapbreaker.commit import Committed
from snapbreaker.files.proof import Proof
from snapbreaker.issue import Issue
from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.fs.sandboxed import Sandboxed
from tests.lab.loopfs import LoopFilesystem

Change = Callable[[Path], object]


def seed(root: Path) -> None:
    for name in ("changed", "removed", "renamed-over", "replaced", "tree/deep/file", "directory/one", "calm"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"before: {name}")
    time.sleep(0.02)


def change(root: Path) -> None:
    with open(root / "changed", "a") as file:
        file.write("and more")
    (root / "removed").unlink()
    (root / "new").write_text("renamed over it")
    (root / "new").rename(root / "renamed-over")
    (root / "replaced").unlink()
    (root / "replaced").write_text("ours")
    shutil.rmtree(root / "tree")
    (root / "directory/one").write_text("ours")
    (root / "added").write_text("ours")


def renamed_to(name: str) -> Change:
    """A file that is older than the sandbox gets the name."""
    return lambda root: (root / "calm").rename(root / name)


CONFLICTS: dict[str, Change] = {
    "changed": lambda root: (root / "changed").write_text("theirs"),
    "replaced": lambda root: (root / "replaced").unlink(),
    "removed": lambda root: (root / "removed").unlink(),
    "renamed-over": lambda root: (root / "renamed-over").chmod(0o600),
    "tree/deep/file": lambda root: (root / "tree/deep/file").write_text("theirs"),
    "tree/deep": lambda root: (root / "tree/deep/new").write_text("theirs"),
    "added": lambda root: (root / "added").write_text("theirs"),
    "directory": lambda root: (root / "directory").chmod(0o700),
    "directory/one": lambda root: os.setxattr(root / "directory/one", "user.x", b"theirs"),
}
OLD_FILES = {"changed": renamed_to("changed"), "added": renamed_to("added")}
PEACEFUL: dict[str, Change] = {
    "a name less beside": lambda root: (root / "calm").unlink(),
    "a name beside": lambda root: (root / "directory/two").write_text("theirs"),
    "another file": lambda root: (root / "calm").write_text("theirs"),
    "nothing": lambda root: None,
}


@pytest.fixture
def run(filesystem: LoopFilesystem, tmp_path: Path) -> Sandboxed:
    root = filesystem.path / "scope"
    seed(root)
    return begun(root, tmp_path)


def begun(root: Path, home: Path) -> Sandboxed:
    run = Sandboxed(root, home)
    run.begin()
    run.inside(lambda: change(root))
    return run


def refused(run: Sandboxed, path: str) -> None:
    theirs = comparer.snapshot(run.root)
    how = run.commit()
    assert isinstance(how, Issue)
    assert how.rule == "conflict"
    assert f"{run.root}/{path}".rstrip("/") in how.reason
    assert comparer.differences(theirs, comparer.snapshot(run.root)) == []
    assert run.halt().verified
    assert comparer.differences(theirs, comparer.snapshot(run.root)) == []
    run.discard()


@pytest.mark.parametrize("name", ["directory", "above"])
def test_an_old_directory_came_there(filesystem: LoopFilesystem, tmp_path: Path, name: str) -> None:
    """With the same owner, mode and names: all in it is older than the sandbox."""
    root = filesystem.path / "scope"
    for top in (name, "other"):
        (root / top / "below").mkdir(parents=True)
        (root / top / "below/file").write_text(top)
    time.sleep(0.02)
    run = Sandboxed(root, tmp_path)
    run.begin()
    inside = root / name / ("below/new" if name == "above" else "new")
    run.inside(inside.touch)
    (root / name).rename(root / "away")
    (root / "other").rename(root / name)
    refused(run, name)


@pytest.mark.parametrize("path", CONFLICTS)
def test_conflict(run: Sandboxed, path: str) -> None:
    CONFLICTS[path](run.root)
    refused(run, path)


def swapped(directory: Path) -> None:
    """Another one in its place, all of it older than the sandbox but the directory itself."""
    directory.rename(directory.with_name("away"))
    directory.with_name("other").rename(directory)


@pytest.mark.parametrize("name", ["renamed-over", "replaced"])
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_what_was_replaced_is_gone(
    make_filesystem: MakeFilesystem, tmp_path: Path, fstype: str, name: str
) -> None:
    """Nothing that is left shows that there was something: others beside it may be removed."""
    root = make_filesystem(fstype).path / "scope"
    seed(root)
    run = begun(root, tmp_path)
    (root / "calm").unlink()
    (root / name).rename(root / "directory/moved")
    refused(run, name)


def test_removals_cannot_be_watched(
    filesystem: LoopFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a directory in which others removed something may have lost anything."""
    from snapbreaker.sandbox import removals

    def refuse(*_: object) -> int:
        raise PermissionError

    root = filesystem.path / "scope"
    seed(root)
    monkeypatch.setattr(removals, "fanotify_init", refuse)
    run = begun(root, tmp_path)
    (root / "calm").unlink()
    refused(run, "added")


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("which", ["directory", "", "above"])
def test_another_directory_came_there(
    make_filesystem: MakeFilesystem, tmp_path: Path, fstype: str, which: str
) -> None:
    """One with the same metadata, and files that are older than the sandbox."""
    top = make_filesystem(fstype).path / "above"
    root = top / "scope"
    seed(root)
    at = {"directory": root / "directory", "": root, "above": top}[which]
    shutil.copytree(at, at.with_name("other"))
    time.sleep(0.02)
    run = begun(root, tmp_path)
    swapped(at)
    refused(run, which if which == "directory" else "")


@pytest.mark.parametrize("path", OLD_FILES)
def test_an_old_file_came_there(run: Sandboxed, path: str) -> None:
    OLD_FILES[path](run.root)
    refused(run, path)


def test_the_clock_was_set(run: Sandboxed) -> None:
    """Nobody knows then what is older than the sandbox."""
    run.made.meta.volumes[:] = [replace(volume, proof=Proof.none()) for volume in run.made.meta.volumes]
    refused(run, "changed")


@pytest.mark.parametrize("name", PEACEFUL)
def test_no_conflict(run: Sandboxed, name: str) -> None:
    PEACEFUL[name](run.root)
    theirs = comparer.snapshot(run.root)
    assert isinstance(run.commit(), Committed)
    run.close()
    assert (run.root / "added").read_text() == "ours"
    assert not (run.root / "tree").exists()
    assert run.undo().verified
    now = comparer.snapshot(run.root)
    assert [line for line in comparer.differences(theirs, now) if "mtime_ns" not in line] == []
    run.discard()


def test_others_come_while_it_is_staged(run: Sandboxed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last look is after everything was staged, and right before the first path changes."""
    from snapbreaker.files import staging

    whole = staging.Staging.run

    def slow(self: staging.Staging, *args: object) -> None:
        whole(self, *args)  # type: ignore[arg-type]
        (run.root / "changed").write_text("theirs")

    monkeypatch.setattr(staging.Staging, "run", slow)
    how = run.commit()
    monkeypatch.undo()
    assert isinstance(how, Issue)
    assert how.rule == "conflict"
    assert (run.root / "changed").read_text() == "theirs"
    assert (run.root / "removed").exists()
    assert run.halt().verified
    assert (run.root / "changed").read_text() == "theirs"
    run.discard()
