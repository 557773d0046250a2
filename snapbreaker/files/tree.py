"""What the engine needs of a tree of files: the live one, a snapshot, a manifest with its vault."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Self

from snapbreaker.dataclass import dataclass
from snapbreaker.files.bounds import Bounds
from snapbreaker.files.entry import Details, Entry
from snapbreaker.linux.clone import data_ranges


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes of a file at ``offset`` which lie at ``source`` in the file that stores them."""

    offset: int
    source: int
    length: int


class Content:
    """A regular file's bytes: open ``fd`` plus where its data lies; everything between is a hole.

    Without ``extents`` it is a plain file on ``device`` (st_dev), whose holes are looked for when they are first
    asked for. The receiver must call ``close()``; ``owned`` false means that the descriptor belongs to the tree.
    """

    __slots__ = ("_extents", "device", "fd", "owned", "plain", "size")

    def __init__(
        self, fd: int, size: int, extents: tuple[Extent, ...] | None = None, owned: bool = True, device: int = 0
    ) -> None:
        self.fd, self.size, self.owned, self.device = fd, size, owned, device
        self.plain = extents is None
        self._extents = extents

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Where the data lies, in order. Raises OSError."""
        if self._extents is None:
            ranges = data_ranges(self.fd, self.size)
            self._extents = tuple(Extent(start, start, end - start) for start, end in ranges)
        return self._extents

    def close(self) -> None:
        if self.owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Tree(ABC):
    """A tree of files, read only. All paths are relative bytes (see ``Entry.path``).

    ``quiet``: flags and project ids change there without a new ctime, so equal metadata says nothing of them.
    """

    quiet: bool = False

    @abstractmethod
    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        """All entries at and below ``below`` in the order of ``sort_key``, ``below`` itself first.

        Paths whose policy is *keep*, the vault and mount points' insides are left out.
        Raises OSError for anything that cannot be read: a tree is whole or not at all.
        """

    @abstractmethod
    def lookup(self, path: bytes) -> Entry | None:
        """The entry of one path, None when there is none. Never follows a symbolic link."""

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        """That part of a walk."""
        return (entry for entry in self.walk() if bounds.holds(entry.path))

    def parts(self, most: int) -> list[Bounds]:
        """The tree in up to ``most`` parts of about the same size, for ``walk_part``; one when it is small."""
        return [Bounds()]

    def learned(self) -> Any:
        """What reading has taught this process and others that go on with the tree must know, for ``learn``."""
        return None

    def learn(self, learned: Any) -> None:  # noqa: B027
        """Take over what a process has ``learned``."""

    def lookups(self, paths: Iterable[bytes]) -> Iterator[Entry | None]:
        """``lookup`` of many paths, which is quicker when those of one directory follow each other."""
        return map(self.lookup, paths)

    @abstractmethod
    def details(self, entry: Entry) -> Details:
        """Flags, project id, xattrs, link target."""

    def flags_and_project(self, entry: Entry) -> tuple[int, int]:
        """Those two of the ``details`` of a regular file or directory."""
        details = self.details(entry)
        return details.flags, details.project

    @abstractmethod
    def content(self, entry: Entry) -> Content:
        """The bytes of a regular file. Raises ContentLost where they are gone."""

    def read(self, entry: Entry) -> tuple[Details, Content]:
        """``details`` and ``content`` of a regular file at once, which is quicker where both are to be opened."""
        return self.details(entry), self.content(entry)

    def shares_numbers(self, new: Tree) -> bool:
        """Whether an inode number means the same file here and in ``new``, which is what this tree was made of."""
        return True

    def candidates(self, live: Tree) -> Collection[bytes] | None:
        """Paths at which ``live`` may differ from this tree, where that can be told without a walk; else None.
        Nothing that is left out by either. A directory of another inode may differ in all below it.
        """
        return None

    def stands_for(self, entry: Entry, other: Entry) -> bool:
        """Whether ``other``, of the live tree, is proven to be the very file of ``entry`` with the same
        content.
        """
        return False

    def spare_inode(self, entry: Entry) -> tuple[int, bytes] | None:
        """Directory and name of the regular file itself, where it has no other name any more and can be linked
        back into the live tree. Raises ContentLost.
        """
        return None

    def holds_inode(self, now: Entry) -> bool:
        """Whether the live file ``now`` is one that this tree shows, somewhere: it must not become another one."""
        return False

    def close(self) -> None:  # noqa: B027
        """Let go of descriptors."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
