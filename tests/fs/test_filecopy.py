"""The filecopy backend on real filesystems: exact under rest, true under load, clear when it cannot be."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from snapbreaker.backend import Creation, Stored
from snapbreaker.errors import CheckpointError
from snapbreaker.files.diff import Proof, diff
from snapbreaker.files.entry import Aspect
from snapbreaker.files.live import LiveTree
from snapbreaker.files.tree import Content
from snapbreaker.linux.inode import FLAG_IMMUTABLE, get_flags, set_flags
from snapbreaker.volumes import discover
from snapbreaker_backends.filecopy import FilecopyBackend
from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.lab import hostile
from tests.lab.databases import Redis, Sqlite
from tests.lab.loopfs import LoopFilesystem

BACKEND = FilecopyBackend()


class Volumes:
    """Like the core: a vault at the top of the mount, a record outside of the scope."""

    def __init__(self, records: Path) -> None:
        self.records, self.number = records, 0

    def __call__(self, root: Path, keep: list[str] | None = None, content: list[str] | None = None) -> Stored:
        scope = discover([str(root)], keep or [], [], content or [])
        volume, policy = scope.volumes[0], scope.policies[0]
        self.number += 1
        vault = Path(volume.vault_base) / "7-test" / str(self.number)
        vault.mkdir(parents=True)
        record = self.records / str(self.number)
        record.mkdir()
        assert not BACKEND.availability(volume).reasons
        data = BACKEND.create(volume, Creation("7-test", str(vault), str(record), policy))
        return Stored(volume, str(vault), str(record), policy, data)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def differences(stored: Stored, proof: Proof | None = None) -> dict[bytes, int]:
    used = proof or Proof.from_dict(stored.data["proof"])
    with BACKEND.open(stored) as old, LiveTree(stored.volume.root, stored.policy) as live:
        return {change.path: change.aspects for change in diff(old, live, stored.policy, used)}


def content_of(stored: Stored, path: bytes) -> bytes:
    with BACKEND.open(stored) as tree:
        entry = tree.lookup(path)
        assert entry is not None
        content: Content = tree.content(entry)
        data = bytearray(content.size)
        for extent in content.extents:
            data[extent.offset : extent.offset + extent.length] = os.pread(
                content.fd, extent.length, extent.source
            )
        content.close()
        return bytes(data)


@contextmanager
def process(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program that says when it is ready."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child
        finally:
            child.kill()


def test_every_kind_of_file_is_recorded_exactly(filesystem: LoopFilesystem, checkpoint: Volumes) -> None:
    root = filesystem.path / "root"
    hostile.seed(root)
    before = comparer.snapshot(root)
    stored = checkpoint(root)
    assert comparer.differences(before, comparer.snapshot(root)) == []
    assert differences(stored) == {}
    assert differences(stored, Proof.none()) == {}
    hostile.mutate(root)
    found = differences(stored)
    assert found
    assert differences(stored, Proof.none()) == found


def test_content_holes_and_links(filesystem: LoopFilesystem, checkpoint: Volumes) -> None:
    root = filesystem.path / "root"
    root.mkdir()
    contents = {b"empty": b"", b"tiny": b"x", b"small": os.urandom(5000), b"large": os.urandom(3_000_001)}
    contents |= {b"odd\n\xff": os.urandom(70_000), b"block": os.urandom(1 << 16)}
    for name, data in contents.items():
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(data)
    with open(root / "sparse", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    os.link(root / "large", root / "link")
    time.sleep(0.05)  # what has just been changed would be copied twice
    stored = checkpoint(root)
    for name, data in contents.items():
        assert content_of(stored, name) == data
    assert content_of(stored, b"sparse") == bytes(50 << 20) + b"end"
    pack = os.stat(Path(stored.vault) / "content.pack")
    assert pack.st_size < 4_000_000, "holes are not stored, links are stored once"
    if filesystem.fstype != "ext4":
        assert stored.data["cloned"]
        assert stored.data["bytes"] < 1 << 20
    (root / "large").write_bytes(b"changed in place"[:4])
    assert content_of(stored, b"large") == contents[b"large"]


def test_a_changed_copy_is_refused(ext4: LoopFilesystem, checkpoint: Volumes) -> None:
    (ext4.path / "file").write_text("x")
    stored = checkpoint(ext4.path)
    manifest, pack = Path(stored.record) / "manifest", Path(stored.vault) / "content.pack"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-40] + whole[-39:])
    with pytest.raises(CheckpointError):
        BACKEND.open(stored)
    manifest.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    with pytest.raises(CheckpointError, match="damaged"):
        BACKEND.open(stored)
    manifest.write_bytes(whole)
    BACKEND.open(stored).close()
    with open(pack, "ab") as file:
        file.write(b"!")
    with pytest.raises(CheckpointError, match="pack_size"):
        BACKEND.open(stored)
    pack.unlink()
    with pytest.raises(CheckpointError, match="was given back, or is lost"):
        BACKEND.open(stored)
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    assert os.listdir(stored.vault) == os.listdir(stored.record) == []


def test_no_room_is_told_with_both_numbers(make_filesystem: MakeFilesystem, checkpoint: Volumes) -> None:
    filesystem = make_filesystem("ext4", 64 << 20)
    (filesystem.path / "file").write_bytes(os.urandom(36 << 20))
    before = comparer.snapshot(filesystem.path)
    with pytest.raises(CheckpointError, match=r"needs 36\.0 MiB, .* has \d+\.\d MiB"):
        checkpoint(filesystem.path)
    after = comparer.snapshot(filesystem.path)
    assert [line for line in comparer.differences(before, after) if "mtime" not in line] == []


def fill(path: Path) -> None:
    """Until the filesystem is full, but for what a few directories take."""
    with open(path, "wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        file.truncate(file.tell() - (4 << 20))


def test_full_in_the_middle_of_the_copy(make_filesystem: MakeFilesystem, checkpoint: Volumes) -> None:
    """Where data is shared no room is asked for beforehand; small files are not shared."""
    filesystem = make_filesystem("xfs", 320 << 20)
    for number in range(3000):
        (filesystem.path / f"file-{number}").write_bytes(os.urandom(30_000))
    fill(filesystem.path / "fill")
    with pytest.raises(CheckpointError, match=r"needs .* has "):
        checkpoint(filesystem.path)
    number = checkpoint.number
    vault, record = filesystem.path / f".snapbreaker/7-test/{number}", checkpoint.records / str(number)
    BACKEND.discard(discover([str(filesystem.path)]).volumes[0], str(vault), str(record))
    assert os.listdir(vault) == os.listdir(record) == []


APPENDS = """
import sys, time
file = open(sys.argv[1], "ab", buffering=0)
print("ready", flush=True)
while True:
    file.write(b"0123456789" * 1000)
    time.sleep(0.0005)
"""


def test_growing_file_is_recorded_as_of_one_instant(filesystem: LoopFilesystem, checkpoint: Volumes) -> None:
    (filesystem.path / "data").mkdir()
    path = filesystem.path / "data/growing"
    with process(APPENDS, path):
        stored = checkpoint(filesystem.path)
        time.sleep(0.05)
        found = differences(stored)
    assert found[b"data/growing"] & Aspect.CONTENT
    recorded = content_of(stored, b"data/growing")
    assert len(recorded) % 10_000 == 0
    assert path.read_bytes().startswith(recorded)
    assert stored.data["frozen"] > 0
    assert len(stored.data["frozen_writers"]) == 1


REOPENS = """
import sys, time, os
n = 0
while True:
    n += 1
    if n == 2:
        print("ready", flush=True)
    with open(sys.argv[1], "r+b" if n > 1 else "wb", buffering=0) as file:
        file.write(b"%09d\\n" % n * 3000)
"""


def test_file_that_is_opened_and_changed_all_the_time(filesystem: LoopFilesystem, checkpoint: Volumes) -> None:
    path = filesystem.path / "file"
    with process(REOPENS, path):
        for _ in range(3):
            stored = checkpoint(filesystem.path)
            lines = content_of(stored, b"file").splitlines()
            assert len(lines) == 3000
            assert len(set(lines)) == 1


MAPS = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
memory = mmap.mmap(fd, 1 << 20)
os.close(fd)
print("ready", flush=True)
n = 0
while True:
    n += 1
    for offset in range(0, 1 << 20, 4096):
        memory[offset:offset + 8] = n.to_bytes(8, "big")
    time.sleep(0.0002)
"""


def test_mapped_file_is_seen_and_its_change_is_not_taken_for_unchanged(
    filesystem: LoopFilesystem, checkpoint: Volumes
) -> None:
    (filesystem.path / "data").mkdir()
    path = filesystem.path / "data/mapped"
    with process(MAPS, path):
        stored = checkpoint(filesystem.path)
        time.sleep(0.1)
        assert b"data/mapped" in differences(stored)
    data = content_of(stored, b"data/mapped")
    numbers = [int.from_bytes(data[offset : offset + 8], "big") for offset in range(0, len(data), mmap.PAGESIZE)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] - numbers[-1] <= 1, "one instant: at most one round was going on"


def test_growing_log_of_class_keep_content_freezes_nobody(ext4: LoopFilesystem, checkpoint: Volumes) -> None:
    (ext4.path / "log").mkdir()
    with process(APPENDS, ext4.path / "log/growing"):
        stored = checkpoint(ext4.path, content=[str(ext4.path / "log")])
        assert differences(stored) == {}
    assert stored.data["frozen"] == 0
    assert content_of(stored, b"log/growing").startswith(b"0123456789")


@pytest.mark.parametrize("kind", [Sqlite, Redis])
def test_databases_are_of_one_instant(
    filesystem: LoopFilesystem, checkpoint: Volumes, kind: type[Sqlite] | type[Redis], tmp_path: Path
) -> None:
    """What was recorded of the database's directory is written out elsewhere, and is consistent there."""
    directory = filesystem.path / "data"
    directory.mkdir()
    with kind(directory):
        made = []
        for _ in range(7):
            time.sleep(0.1)
            made.append(checkpoint(filesystem.path))
    counts = []
    for number, stored in enumerate(made):
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        with BACKEND.open(stored) as tree:
            files = [entry.path for entry in tree.walk(b"data") if entry.is_file]
        for path in files:
            (copy / os.fsdecode(path).partition("/")[2]).parent.mkdir(parents=True, exist_ok=True)
            (copy / os.fsdecode(path).partition("/")[2]).write_bytes(content_of(stored, path))
        counts.append(kind(copy).count())
    assert counts == sorted(counts)
    assert counts[0] > 0
    assert all(0 < stored.data["frozen"] < 2 for stored in made)  # some ms on a machine that is not overloaded


def test_unreadable_and_unfreezable_are_named(ext4: LoopFilesystem, checkpoint: Volumes) -> None:
    path = ext4.path / "output"
    with open(path, "w"), pytest.raises(CheckpointError, match=r"snapbreaker itself has .*output open") as caught:
        checkpoint(ext4.path)
    assert "--keep" in caught.value.hint
    with open(path, "w"):
        stored = checkpoint(ext4.path, keep=[str(path)])
    assert stored.data["frozen"] == 0


def test_immutable_files_are_copied(ext4: LoopFilesystem, checkpoint: Volumes) -> None:
    path = ext4.path / "sealed"
    path.write_text("content")
    fd = os.open(path, os.O_RDONLY)
    set_flags(fd, FLAG_IMMUTABLE)
    try:
        stored = checkpoint(ext4.path)
        assert content_of(stored, b"sealed") == b"content"
        with BACKEND.open(stored) as tree:
            entry = tree.lookup(b"sealed")
            assert entry is not None
            assert tree.details(entry).flags & FLAG_IMMUTABLE
    finally:
        set_flags(fd, get_flags(fd) & ~FLAG_IMMUTABLE)
        os.close(fd)


def test_nested_subvolumes_are_copied_too(btrfs: LoopFilesystem, checkpoint: Volumes) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", "create", btrfs.path / "nested"], check=True)
    (btrfs.path / "nested/file").write_bytes(os.urandom(200_000))
    stored = checkpoint(btrfs.path)
    assert differences(stored, Proof.none()) == {}
    (btrfs.path / "nested/file").write_text("other")
    assert differences(stored)[b"nested/file"] & Aspect.CONTENT


def test_reasons_and_notes(ext4: LoopFilesystem, xfs: LoopFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = discover([str(ext4.path)]).volumes[0]
    notes = BACKEND.availability(volume).notes
    assert "hard links" in notes[0]
    assert "`checkpoint create` copies at most" in notes[1]
    with monkeypatch.context() as context:
        context.setattr("snapbreaker_backends.filecopy.backend.unavailable", lambda mountpoint: "no leases")
        notes = BACKEND.availability(volume).notes
        assert "each checkpoint copies at most" in notes[0]
        assert notes[1].endswith("no leases")
    assert "reflink" in BACKEND.availability(discover([str(xfs.path)]).volumes[0]).notes[0]
    subprocess.run(["mount", "-o", "remount,ro", ext4.path], check=True)
    assert "read-only" in BACKEND.availability(volume).reasons[0].text
    subprocess.run(["mount", "-o", "remount,rw", ext4.path], check=True)
