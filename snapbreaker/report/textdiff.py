"""What became of text: a unified diff as git and diff(1) write it, made here since no program may be at hand."""

from __future__ import annotations

import io
from collections.abc import Iterator
from difflib import SequenceMatcher

from snapbreaker.files.content import beginning
from snapbreaker.files.entry import Aspect, Change, Entry
from snapbreaker.files.tree import Tree
from snapbreaker.report.model import absolute
from snapbreaker.report.wording import path_text, size_text

LARGE = 256 << 10  # bytes; of a larger file only that it differs is said
EFFORT = 4_000_000  # lines of one side times lines of the other; beyond that no common lines are looked for
CONTEXT = 3
NOWHERE = b"/dev/null"
CUT_OFF = b"\\ No newline at end of file\n"

Opcode = tuple[str, int, int, int, int]


def text_diff(root: str, change: Change, old: Tree, new: Tree) -> Iterator[bytes]:
    """The lines, each with its newline, that say what became of the text of one path; none where it has none.

    The text of a symbolic link is its target. A path that became something else is shown as removed and added.
    Content that is binary, large or cannot be read now is said in one line.
    """
    path = path_text(absolute(root, change.path)).encode("utf-8", "surrogateescape")
    before, after = _Side(old, change.old), _Side(new, change.new)
    nothing = _Side(new, None)
    if change.aspects & Aspect.TYPE:
        yield from _compared(path, before, nothing)
        yield from _compared(path, nothing, after)
    elif change.aspects & (Aspect.ADDED | Aspect.REMOVED | Aspect.CONTENT | Aspect.TARGET):
        yield from _compared(path, before, after)


def unified(old: bytes, new: bytes) -> Iterator[bytes]:
    """The hunks that make ``new`` of ``old``, each line with its newline."""
    a, b = io.BytesIO(old).readlines(), io.BytesIO(new).readlines()
    for group in _Matcher(a, b).get_grouped_opcodes(CONTEXT):
        first, last = group[0], group[-1]
        yield b"@@ -%s +%s @@\n" % (_span(first[1], last[2]), _span(first[3], last[4]))
        for tag, a_start, a_end, b_start, b_end in group:
            if tag == "equal":
                yield from _marked(b" ", a[a_start:a_end])
                continue
            yield from _marked(b"-", a[a_start:a_end])
            yield from _marked(b"+", b[b_start:b_end])


class _Matcher(SequenceMatcher[bytes]):
    """What is equal at both ends is not looked at: with it a long file would take very long."""

    def __init__(self, a: list[bytes], b: list[bytes]) -> None:
        shorter = min(len(a), len(b))
        head = next((i for i in range(shorter) if a[i] != b[i]), shorter)
        rest = shorter - head
        tail = next((i for i in range(rest) if a[-1 - i] != b[-1 - i]), rest)
        self._head, self._tail, self._lengths = head, tail, (len(a), len(b))
        super().__init__(None, a[head : len(a) - tail], b[head : len(b) - tail], autojunk=False)

    def get_opcodes(self) -> list[Opcode]:  # type: ignore[override]
        head, (a, b) = self._head, self._lengths
        a_end, b_end = a - self._tail, b - self._tail
        if (a_end - head) * (b_end - head) > EFFORT:
            middle: list[Opcode] = [("replace", head, a_end, head, b_end)]
        else:
            middle = [(tag, *(head + at for at in spans)) for tag, *spans in super().get_opcodes()]  # type: ignore[misc]
        ends: list[Opcode] = [("equal", 0, head, 0, head), ("equal", a_end, a, b_end, b)]
        return [code for code in (ends[0], *middle, ends[1]) if code[1] < code[2] or code[3] < code[4]]


class _Side:
    """One path on one side."""

    def __init__(self, tree: Tree, entry: Entry | None) -> None:
        self._tree, self._entry = tree, entry
        self.there = entry is not None and (entry.is_file or entry.is_link)
        self.size = entry.size if entry is not None else 0

    def read(self) -> bytes:
        """Raises OSError when it is no longer what it was."""
        if self._entry is None or not self.there:
            return b""
        if self._entry.is_link:
            return self._tree.details(self._entry).target
        return beginning(self._tree, self._entry, self._entry.size) if self.size else b""


def _compared(path: bytes, before: _Side, after: _Side) -> Iterator[bytes]:
    old = b"a" + path if before.there else NOWHERE
    new = b"b" + path if after.there else NOWHERE
    if not (before.there or after.there):
        return
    sizes = f"({size_text(before.size)}, {size_text(after.size)})".encode()
    if max(before.size, after.size) > LARGE:
        yield b"Large files %s and %s differ %s\n" % (old, new, sizes)
        return
    try:
        was, now = before.read(), after.read()
    except OSError as error:
        yield b"Files %s and %s cannot be compared now: %s\n" % (old, new, (error.strerror or "?").encode())
        return
    if b"\0" in was or b"\0" in now:
        yield b"Binary files %s and %s differ %s\n" % (old, new, sizes)
        return
    for number, line in enumerate(unified(was, now)):
        if not number:
            yield b"--- %s\n+++ %s\n" % (old, new)
        yield line


def _marked(mark: bytes, lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line.endswith(b"\n"):
            yield mark + line
        else:
            yield mark + line + b"\n"
            yield CUT_OFF


def _span(start: int, end: int) -> bytes:
    """Lines count from 1; where there is none, the one before is named."""
    length = end - start
    return b"%d" % (start + 1) if length == 1 else b"%d,%d" % (start + (length > 0), length)
