"""The btrfs backend on a real filesystem."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from snapbreaker.backend import Capability, Creation, Stored, Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.diff import Proof, diff
from snapbreaker.files.entry import Aspect
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.linux import btrfs as ioctls
from snapbreaker.volumes import discover
from snapbreaker_backends.btrfs import BtrfsBackend, enumeration
from snapbreaker_backends.btrfs.view import SnapshotTree
from tests import comparer
from tests.lab import inodes
from tests.lab.loopfs import LoopFilesystem

BACKEND = BtrfsBackend()
ODD = b"odd\n\xff"


def subvolume(path: Path | bytes) -> None:
    parent, name = os.path.split(os.fsencode(path))
    fd = os.open(parent, os.O_RDONLY)
    ioctls.create_subvolume(fd, name)
    os.close(fd)


def remove_subvolume(path: Path | bytes) -> None:
    parent, name = os.path.split(os.fsencode(path))
    fd = os.open(parent, os.O_RDONLY)
    ioctls.delete_subvolume(fd, name)
    os.close(fd)


def checkpoint(root: Path, keep: list[str] | None = None, number: int = 0) -> Stored:
    """Like the core: a vault at the top of the mount, a record outside of the scope."""
    scope = discover([str(root)], keep or [])
    volume, policy = scope.volumes[0], scope.policies[0]
    vault = Path(volume.vault_base) / "7-test" / str(number)
    vault.mkdir(parents=True)
    assert not BACKEND.availability(volume).reasons
    data = BACKEND.create(volume, Creation("7-test", str(vault), "/nonexistent", policy))
    return Stored(volume, str(vault), "/nonexistent", policy, data)


def differences(stored: Stored, proof: Proof | None = None) -> dict[bytes, int]:
    skip = [os.fsencode(os.path.relpath(path, stored.volume.root)) for path in stored.volume.skip]
    live = LiveTree(stored.volume.root, stored.policy, skip=skip)
    with BACKEND.open(stored) as old, live:
        used = proof or Proof.from_dict(stored.data["proof"])
        return {change.path: change.aspects for change in diff(old, live, stored.policy, used)}


@pytest.fixture
def tree(btrfs: LoopFilesystem) -> Path:
    """Subvolumes nested in a directory, in each other, one read-only, one with an odd name."""
    root = btrfs.path
    (root / "directory/file").parent.mkdir()
    (root / "directory/file").write_text("one")
    subvolume(root / "directory/inner")
    (root / "directory/inner/file").write_text("two")
    subvolume(os.fsencode(root / "directory/inner") + b"/" + ODD)
    with open(os.fsencode(root / "directory/inner") + b"/" + ODD + b"/deep", "w") as file:
        file.write("three")
    subvolume(root / "sealed")
    (root / "sealed/file").write_text("four")
    fd = os.open(root / "sealed", os.O_RDONLY)
    ioctls.set_read_only(fd, True)
    os.close(fd)
    return root


def test_view_equals_the_tree_and_every_change_is_seen(tree: Path) -> None:
    stored = checkpoint(tree)
    assert differences(stored) == {}
    assert differences(stored, Proof.none()) == {}
    (tree / "directory/file").write_text("ONE")
    (tree / "directory/inner/file").unlink()
    with open(os.fsencode(tree / "directory/inner") + b"/" + ODD + b"/deep", "a") as file:
        file.write("!")
    subvolume(tree / "new")
    found = differences(stored)
    assert found[b"directory/file"] & Aspect.CONTENT
    assert found[b"directory/inner/file"] is Aspect.REMOVED
    assert found[b"directory/inner/" + ODD + b"/deep"] & Aspect.CONTENT
    assert found[b"new"] is Aspect.ADDED
    assert differences(stored, Proof.none()) == found


def test_deleted_subvolume_is_offered_as_a_subvolume(tree: Path) -> None:
    stored = checkpoint(tree)
    remove_subvolume(os.fsencode(tree / "directory/inner") + b"/" + ODD)
    remove_subvolume(tree / "directory/inner")
    found = differences(stored)
    assert found[b"directory/inner"] is Aspect.REMOVED
    assert found[b"directory/inner/" + ODD + b"/deep"] is Aspect.REMOVED
    with BACKEND.open(stored) as old:
        assert isinstance(old, SnapshotTree)
        fd = old.subvolume_fd(b"directory/inner")
        assert fd is not None
        assert sorted(os.listdir(fd)) == sorted(["file", os.fsdecode(ODD)])
        os.close(fd)
        assert old.subvolume_fd(b"directory") is None
        entry = old.lookup(b"sealed")
        assert entry is not None
        assert entry.subvolume
        top = old.subvolume_fd(b"")
        assert top is not None
        os.close(top)


def test_subvolumes_that_took_each_others_place(tree: Path) -> None:
    """Their files may have the same numbers, sizes and times: those prove nothing then."""
    files = [tree / name / "file" for name in ("one", "two")]
    for file in files:
        subvolume(file.parent)
        file.write_text(f"in {file.parent.name}")
    while len({file.stat().st_ctime_ns for file in files}) > 1:
        for file in files:
            os.utime(file, ns=(0, 0))
    assert len({(file.stat().st_ino, file.stat().st_size, file.stat().st_mtime_ns) for file in files}) == 1
    for directory in (tree / "one", tree / "two"):
        os.utime(directory, ns=(0, 0))
    stored = checkpoint(tree)
    for old, new in (("one", "spare"), ("two", "one"), ("spare", "two")):
        (tree / old).rename(tree / new)
    proof = Proof(1 << 62, True, Proof.take().clock_offset_ns, Proof.take().boot_id)
    found = differences(stored, proof)
    assert found[b"one/file"] & found[b"two/file"] & Aspect.CONTENT


def test_a_scope_below_the_top_of_a_subvolume(tree: Path) -> None:
    subvolume(tree / "elsewhere")
    stored = checkpoint(tree / "directory")
    assert len(stored.data["snapshots"]) == 3
    assert stored.data["inside"] == "directory"
    (tree / "elsewhere/file").write_text("not in scope")
    (tree / "directory/inner/added").write_text("")
    assert set(differences(stored)) == {b"directory/inner/added"[10:], b"inner"}


def test_kept_and_mounted_over_subvolumes_are_left_out(tree: Path) -> None:
    subvolume(tree / "kept")
    subvolume(tree / "covered")
    (tree / "covered/below").write_text("unseen")
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "covered"], check=True)
    try:
        stored = checkpoint(tree, keep=[str(tree / "kept")])
        assert [one["path"] for one in stored.data["snapshots"]] == [
            "",
            "directory/inner",
            os.fsdecode(b"directory/inner/" + ODD),
            "sealed",
        ]
        (tree / "kept/file").write_text("")
        (tree / "covered/file").write_text("")
        assert differences(stored) == {}
    finally:
        subprocess.run(["umount", tree / "covered"], check=True)


def test_only_a_part_of_the_subvolume_is_mounted(tree: Path) -> None:
    """A bind mount of a directory: the top of the subvolume is nowhere to be seen below it."""
    subvolume(tree / "top")
    (tree / "top/srv/app").mkdir(parents=True)
    (tree / "top/srv/app/file").write_text("one")
    (tree / "seen").mkdir()
    subprocess.run(["mount", "--bind", tree / "top/srv", tree / "seen"], check=True)
    try:
        stored = checkpoint(tree / "seen/app")
        assert stored.volume.mountpoint == str(tree / "seen")
        assert stored.data["inside"] == "srv/app"
        (tree / "seen/app/file").write_text("TWO")
        assert set(differences(stored)) == {b"file"}
        BACKEND.discard(stored.volume, stored.vault, stored.record)
    finally:
        subprocess.run(["umount", tree / "seen"], check=True)


def test_discard_removes_everything_and_again(tree: Path) -> None:
    before = comparer.snapshot(tree)
    stored = checkpoint(tree)
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    assert os.listdir(stored.vault) == []
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    os.removedirs(stored.vault)
    after = comparer.snapshot(tree)
    assert [line for line in comparer.differences(before, after) if "mtime" not in line] == []


@pytest.mark.parametrize("flag", [inodes.IMMUTABLE, inodes.APPEND])
def test_discard_of_a_snapshot_that_took_such_a_flag_along(tree: Path, flag: int) -> None:
    inner = tree / "directory/inner"
    inodes.add_flags(inner, flag)
    stored = checkpoint(tree)
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    assert os.listdir(stored.vault) == []
    assert inodes.flags(inner) & flag
    inodes.set_flags(inner, 0)


def test_discard_of_a_partly_made_checkpoint(tree: Path) -> None:
    stored = checkpoint(tree)
    fd = os.open(os.path.join(stored.vault, "snap"), os.O_RDONLY)
    ioctls.delete_subvolume(fd, b"2")
    os.close(fd)
    with pytest.raises(CheckpointError, match="not whole"):
        BACKEND.open(stored)
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    assert os.listdir(stored.vault) == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_snapshot_is_refused(tree: Path, number: int) -> None:
    stored = checkpoint(tree)
    snapshot = Path(stored.vault) / "snap" / str(number)
    fd = os.open(snapshot, os.O_RDONLY)
    ioctls.set_read_only(fd, False)
    with pytest.raises(CheckpointError, match="changed"):
        BACKEND.open(stored)
    (snapshot / "planted").write_text("")
    ioctls.set_read_only(fd, True)
    os.close(fd)
    with pytest.raises(CheckpointError, match="changed"):
        BACKEND.open(stored)


def test_an_untouched_snapshot_stays_valid_after_a_remount(tree: Path) -> None:
    stored = checkpoint(tree)
    subprocess.run(["mount", "-o", "remount,ro", tree], check=True)
    subprocess.run(["mount", "-o", "remount,rw", tree], check=True)
    (tree / "directory/file").write_text("later")
    os.sync()
    BACKEND.open(stored).close()


def swap_on(path: Path) -> bool:
    """A swap file where this machine can have one."""
    subprocess.run(["btrfs", "filesystem", "mkswapfile", "--size", "8m", path], capture_output=True)
    if not path.exists():
        path.touch()
        subprocess.run(["chattr", "+C", path], check=True)
        subprocess.run(["fallocate", "-l", "8M", path], check=True)
        path.chmod(0o600)
        subprocess.run(["mkswap", "-q", path], check=True)
    return subprocess.run(["swapon", path], capture_output=True).returncode == 0


def test_active_swap_file_is_a_reason_not_to(tree: Path) -> None:
    if not swap_on(tree / "swapfile"):
        pytest.skip("this kernel has no swap: needs CONFIG_SWAP")
    try:
        scope = discover([str(tree)])
        reasons = BACKEND.availability(scope.volumes[0]).reasons
        assert "swapfile" in reasons[0].text
        assert scope.policies[0].keeps(b"swapfile")
    finally:
        subprocess.run(["swapoff", tree / "swapfile"], check=True)
    assert BACKEND.availability(scope.volumes[0])


def test_active_swap_file_in_a_nested_subvolume(tree: Path) -> None:
    subvolume(tree / "swap")
    if not swap_on(tree / "swap/file"):
        pytest.skip("this kernel has no swap: needs CONFIG_SWAP")
    try:
        availability = BACKEND.availability(discover([str(tree)]).volumes[0])
        assert any("--keep" in note for note in availability.notes)
        with pytest.raises(CheckpointError, match="cannot snapshot") as caught:
            checkpoint(tree)
        assert "swapoff" in caught.value.hint
        stored = checkpoint(tree, keep=[str(tree / "swap")], number=1)
        assert differences(stored) == {}
    finally:
        subprocess.run(["swapoff", tree / "swap/file"], check=True)


def test_read_only_mount_and_other_filesystems_are_reasons(tree: Path, ext4: LoopFilesystem) -> None:
    volume = discover([str(tree)]).volumes[0]
    subprocess.run(["mount", "-o", "remount,ro", tree], check=True)
    reasons = BACKEND.availability(volume).reasons
    assert "read-only" in reasons[0].text
    assert "remount,rw" in reasons[0].remedy
    subprocess.run(["mount", "-o", "remount,rw", tree], check=True)
    reasons = BACKEND.availability(discover([str(ext4.path)]).volumes[0]).reasons
    assert reasons[0].text.endswith("ext4")


def test_capabilities() -> None:
    assert Capability.INSTANT in BACKEND.capabilities
    assert Capability.WHOLE in BACKEND.capabilities


def top_mtime(volume: Volume) -> int:
    return os.stat(volume.mountpoint).st_mtime_ns


def test_enumeration_by_the_library_agrees(tree: Path) -> None:
    if enumeration.btrfsutil is None:
        pytest.skip("btrfsutil is not importable: pip install 'snapbreaker[btrfs]' (needs libbtrfsutil-dev)")
    fd = os.open(tree, os.O_RDONLY)
    for leave_out in (lambda path: False, lambda path: path == b"directory/inner"):
        assert enumeration.nested_by_library(fd, leave_out) == ioctls.nested_subvolumes(fd, leave_out)
    os.close(fd)


def test_more_than_one_answer_of_the_kernel(btrfs: LoopFilesystem) -> None:
    """BTRFS_IOC_GET_SUBVOL_ROOTREF tells of 255 subvolumes at a time."""
    for number in range(300):
        subvolume(btrfs.path / f"s{number}")
    fd = os.open(btrfs.path, os.O_RDONLY)
    assert len(ioctls.nested_subvolumes(fd)) == 300
    os.close(fd)


def test_policy_is_part_of_the_view(tree: Path) -> None:
    stored = checkpoint(tree, keep=[str(tree / "directory/inner")])
    with BACKEND.open(stored) as old:
        assert [entry.path for entry in old.walk()] == [
            b"",
            b"directory",
            b"directory/file",
            b"sealed",
            b"sealed/file",
        ]
    assert isinstance(stored.policy, Policy)
