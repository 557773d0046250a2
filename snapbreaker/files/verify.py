"""Proof that a tree is what was recorded, or the list of what is not."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection

from snapbreaker.dataclass import dataclass
from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Aspect, Change, Details, Entry
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Tree

_KINDS = {
    stat.S_IFREG: "regular file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not what was recorded; ``text`` says to a person in what respects, in one line."""

    path: bytes
    aspects: int
    text: str


def verify(
    old: Tree,
    live: Tree,
    policy: Policy,
    proof: Proof,
    touched: Collection[bytes],
    below: bytes = b"",
) -> list[Difference]:
    """Compare everything at and below ``below`` again; empty when ``live`` is as ``old``.

    What was restored (``touched`` paths and their parents) is judged by its bytes, or by the blocks that it shares
    with what was kept, never by its metadata. Raises OSError when something cannot be read.
    """
    changes = diff(old, live, policy, proof, below, touched=touched)
    return [Difference(change.path, change.aspects, describe(change, old, live)) for change in changes]


def describe(change: Change, old: Tree, new: Tree) -> str:
    """In what respects ``change`` differs: ``mode 0600 instead of 0644, content differs``."""
    if change.old is None:
        return "not in the checkpoint"
    if change.new is None:
        return "missing"
    a, b, aspects = change.old, change.new, change.aspects
    texts = [text(a, b) for aspect, text in _FROM_ENTRIES.items() if aspects & aspect]
    if aspects & _IN_DETAILS:
        texts += _details_texts(aspects, old.details(a), _details_now(new, b))
    return ", ".join(texts)


def _details_now(new: Tree, entry: Entry) -> Details:
    try:
        return new.details(entry)
    except OSError:  # it changed once more; that it differs is known
        return Details()


def _details_texts(aspects: int, old: Details, new: Details) -> list[str]:
    texts = []
    if aspects & Aspect.TARGET:
        texts.append(f"points to {os.fsdecode(new.target)!r} instead of {os.fsdecode(old.target)!r}")
    if aspects & Aspect.XATTRS:
        names = sorted({os.fsdecode(name) for name, _ in set(old.xattrs) ^ set(new.xattrs)})
        texts.append(f"extended attributes differ: {' '.join(names)}")
    if aspects & Aspect.FLAGS and old.flags != new.flags:
        texts.append(f"inode flags {new.flags:#x} instead of {old.flags:#x}")
    if aspects & Aspect.FLAGS and old.read_only != new.read_only:
        texts.append("read-only subvolume" if new.read_only else "writable subvolume")
    if aspects & Aspect.PROJECT:
        texts.append(f"project {new.project} instead of {old.project}")
    return texts


def _type_text(a: Entry, b: Entry) -> str:
    return f"{kind_of(b)} instead of {kind_of(a)}"


def _content_text(a: Entry, b: Entry) -> str:
    return "content differs" if a.size == b.size else f"size {b.size} instead of {a.size}"


def _links_text(a: Entry, b: Entry) -> str:
    if a.nlink == b.nlink:
        return "other hard links"
    return f"{b.nlink} hard links instead of {a.nlink}; names outside the scope may hold what the command wrote"


def kind_of(entry: Entry) -> str:
    """What ``entry`` is, in words."""
    return "subvolume" if entry.subvolume else _KINDS.get(stat.S_IFMT(entry.mode), "unknown type")


def _device(entry: Entry) -> str:
    return f"{os.major(entry.rdev)}:{os.minor(entry.rdev)}"


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds}.{rest:09d}"


_IN_DETAILS = Aspect.TARGET | Aspect.XATTRS | Aspect.FLAGS | Aspect.PROJECT
_FROM_ENTRIES: dict[int, Callable[[Entry, Entry], str]] = {
    Aspect.TYPE: _type_text,
    Aspect.CONTENT: _content_text,
    Aspect.SPARSE: lambda a, b: "holes differ",
    Aspect.DEVICE: lambda a, b: f"device {_device(b)} instead of {_device(a)}",
    Aspect.MODE: lambda a, b: f"mode {stat.S_IMODE(b.mode):04o} instead of {stat.S_IMODE(a.mode):04o}",
    Aspect.OWNER: lambda a, b: f"owner {b.uid}:{b.gid} instead of {a.uid}:{a.gid}",
    Aspect.MTIME: lambda a, b: f"mtime {_time(b.mtime_ns)} instead of {_time(a.mtime_ns)}",
    Aspect.LINKS: _links_text,
}
