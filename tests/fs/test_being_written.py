"""Files that are being written when their checkpoint is made: what comes back is of that instant."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.checkpointed import Checkpointed
from tests.lab.loopfs import LoopFilesystem

APPENDS = """
import sys, time
with open(sys.argv[1], "ab", buffering=0) as file:
    number = 0
    while True:
        file.write(b"%08d\\n" % number)
        number += 1
        if number == 100:
            print("ready", flush=True)
        time.sleep(0.0002)
"""
MAPS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
    for word in (b"first", b"again"):
        memory[100:105] = word
        print("ready", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def writer(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, which has said that it is ready."""
    argv = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def checkpoint(filesystem: LoopFilesystem, tmp_path: Path) -> Iterator[Checkpointed]:
    root = filesystem.path / "scope"
    (root / "d").mkdir(parents=True)
    for number in range(50):
        (root / f"d/{number}").write_text("before")
    checkpoint = Checkpointed(root, tmp_path)
    yield checkpoint
    checkpoint.discard()


def test_a_file_that_grows_meanwhile(checkpoint: Checkpointed) -> None:
    """Whole lines, all that were there before, none that came after; everything else exactly."""
    log = checkpoint.root / "log"
    log.touch()
    before = checkpoint.facts()
    with writer(APPENDS, log):
        smallest = log.stat().st_size
        checkpoint.begin()
        largest = log.stat().st_size
    log.unlink()
    outcome = checkpoint.halt()
    assert outcome.verified, [(one.failures, one.differences) for one in outcome.volumes]
    lines = log.read_bytes()
    assert smallest <= len(lines) <= largest
    assert lines == b"".join(b"%08d\n" % number for number in range(len(lines) // 9))
    found = comparer.differences(before, checkpoint.facts())
    assert [line for line in found if not line.startswith("b'log'")] == []


def test_a_page_that_was_dirty_then_and_is_written_again(checkpoint: Checkpointed) -> None:
    """Without a sync in between the second write through the mapping would not move the ctime."""
    path = checkpoint.root / "mapped"
    path.write_bytes(bytes(8192))
    with writer(MAPS, path) as process:
        assert process.stdin
        assert process.stdout
        checkpoint.begin()
        before = checkpoint.facts()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert path.read_bytes()[100:105] == b"again"
    outcome = checkpoint.halt()
    assert outcome.verified, [(one.failures, one.differences) for one in outcome.volumes]
    assert comparer.differences(before, checkpoint.facts()) == []
    assert path.read_bytes()[100:105] == b"first"
