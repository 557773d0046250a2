"""Unified diffs: what patch(1) makes of them, odd content, and that no text takes long."""

from __future__ import annotations

import io
import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapbreaker.files.diff import diff
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.report.diffstat import Stats
from snapbreaker.report.textdiff import LARGE, text_diff, unified

TEXT = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"\xff\r\n"]), max_size=30).map(b"".join)


def sides(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    return tmp_path / "old", tmp_path / "new"


def shown(old: Path, new: Path) -> bytes:
    with LiveTree(str(old)) as a, LiveTree(str(new)) as b:
        found = list(diff(a, b, Policy(), Proof.none()))
        return b"".join(line for change in found for line in text_diff("/srv", change, a, b))


def patched(old: bytes, hunks: bytes) -> bytes:
    """What the hunks make of ``old``, by the rules of the format alone."""
    lines, made, at, last = io.BytesIO(old).readlines(), list[bytes](), 0, b""
    for line in hunks.split(b"\n")[:-1]:
        mark, text = line[:1], line[1:] + b"\n"
        if mark == b"@":
            start, _, length = line.split()[1][1:].partition(b",")
            first = int(start) - (length != b"0")
            made += lines[at:first]
            at = first
        elif mark == b"\\":
            if last != b"-":
                made[-1] = made[-1].removesuffix(b"\n")
        elif mark == b"+":
            made.append(text)
        else:
            assert lines[at].rstrip(b"\n") == text.rstrip(b"\n")
            made += [lines[at]] if mark == b" " else []
            at += 1
        last = mark
    return b"".join(made + lines[at:])


@settings(max_examples=300, deadline=None)
@given(old=TEXT, new=TEXT, cut=st.integers(0, 3))
def test_hunks_make_the_one_of_the_other(old: bytes, new: bytes, cut: int) -> None:
    old, new = old[: len(old) - (cut & 1)], new[: len(new) - (cut >> 1)]
    assert patched(old, b"".join(unified(old, new))) == new


def test_as_git_writes_it() -> None:
    old = b"".join(b"%d\n" % number for number in range(20))
    new = old.replace(b"10\n", b"ten\n").removesuffix(b"\n")
    assert b"".join(unified(old, new)).splitlines() == [
        *(b"@@ -8,7 +8,7 @@", b" 7", b" 8", b" 9", b"-10", b"+ten", b" 11", b" 12", b" 13"),
        *(b"@@ -17,4 +17,4 @@", b" 16", b" 17", b" 18", b"-19", b"+19", b"\\ No newline at end of file"),
    ]


@pytest.mark.parametrize("kind", ["reversed", "alike"])
def test_no_text_takes_long(kind: str) -> None:
    lines = [b"%d\n" % (number if kind == "reversed" else number % 3) for number in range(30_000)]
    began = time.monotonic()
    hunks = b"".join(unified(b"".join(lines), b"".join(reversed(lines))))
    assert time.monotonic() - began < 5
    assert patched(b"".join(lines), hunks) == b"".join(reversed(lines))


@pytest.mark.real_commands
def test_patch_takes_it_back(tmp_path: Path) -> None:
    old, new = sides(tmp_path)
    for side, text in ((old, b"one\ntwo\nthree"), (new, b"one\n2\nthree\n")):
        (side / "changed").write_bytes(text)
        (side / "latin").write_bytes(b"caf\xe9\n" + text)
    (old / "gone").write_text("was here\n")
    (new / "made").write_text("is here\n")
    text = shown(old, new).replace(b"/srv/", b"/")
    subprocess.run(["patch", "-R", "-p1", "-d", new], input=text, check=True, stdout=subprocess.DEVNULL)
    assert {path.name: path.read_bytes() for path in new.iterdir()} == {
        path.name: path.read_bytes() for path in old.iterdir()
    }


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    old, new = sides(tmp_path)
    for side, byte in ((old, b"a"), (new, b"b")):
        (side / "binary").write_bytes(b"\0" + byte)
        (side / "large").write_bytes(byte * (LARGE + 1))
    lines = shown(old, new).splitlines()
    assert lines == [
        b"Binary files a/srv/binary and b/srv/binary differ (2 B, 2 B)",
        b"Large files a/srv/large and b/srv/large differ (262 kB, 262 kB)",
    ]


def test_other_kinds(tmp_path: Path) -> None:
    old, new = sides(tmp_path)
    (old / "link").symlink_to("there")
    (new / "link").symlink_to("elsewhere")
    (old / "became").write_text("a file\n")
    (new / "became").symlink_to("a-link")
    (old / "fifo").write_text("")
    os.mkfifo(new / "fifo")
    (new / "directory").mkdir()
    (new / "a\nname\udcff").write_text("x\n")
    assert shown(old, new).splitlines() == [
        *(b"--- /dev/null", b"+++ b/srv/a\\nname\\xff", b"@@ -0,0 +1 @@", b"+x"),
        *(b"--- a/srv/became", b"+++ /dev/null", b"@@ -1 +0,0 @@", b"-a file"),
        *(b"--- /dev/null", b"+++ b/srv/became", b"@@ -0,0 +1 @@", b"+a-link", b"\\ No newline at end of file"),
        *(b"--- a/srv/link", b"+++ b/srv/link", b"@@ -1 +1 @@"),
        *(b"-there", b"\\ No newline at end of file", b"+elsewhere", b"\\ No newline at end of file"),
    ]


def test_stat(tmp_path: Path) -> None:
    old, new = sides(tmp_path)
    for side in (old, new):
        (side / "etc").mkdir()
    (old / "etc/grew").write_text("1")
    (new / "etc/grew").write_text("1234")
    (old / "gone").write_text("12")
    (new / "etc/one").write_text("12345")
    os.link(new / "etc/one", new / "etc/two")
    stats = Stats()
    with LiveTree(str(old)) as a, LiveTree(str(new)) as b:
        for change in diff(a, b, Policy(), Proof.none()):
            if change.path not in (b"", b"etc"):  # their mtimes
                stats.add("/srv", change)
    assert [tuple(getattr(each, name) for name in each.__slots__) for each in stats] == [
        ("/srv/etc", 2, 1, 0, 8, 0),
        ("/srv/gone", 0, 0, 1, 0, 2),
    ]
    assert list(stats.lines())[-1].split() == ["2", "1", "1", "8", "B", "2", "B", "in", "all"]
