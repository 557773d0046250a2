"""The files as the snapshots show them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.tree import Tree
from snapbreaker.files.wrapped import unwrapped
from snapbreaker_backends.btrfs.candidates import Since, candidates, is_another


class SnapshotTree(LiveTree):
    """One tree of several snapshots: each nested subvolume is read from its own.

    ``tops`` are descriptors of the tops of the snapshots by relative path, the volume's root among them (``b""``)
    when it is the top of a subvolume. They belong to the tree from then on. ``sealed`` are the subvolumes that
    were read-only themselves, which a read-only snapshot cannot show. ``inside`` is where the volume's root lies
    in its subvolume, ``since`` tells of each subvolume when it was snapshotted.
    """

    def __init__(
        self,
        root: bytes,
        policy: Policy,
        skip: Collection[bytes],
        tops: Mapping[bytes, int],
        sealed: Collection[bytes],
        inside: bytes,
        since: Mapping[bytes, Since],
    ) -> None:
        self._inside, self._since = inside, since
        nested = {path: fd for path, fd in tops.items() if path}
        self._top = tops.get(b"", -1)
        self._tops = dict(tops)
        self._sealed = frozenset(sealed)
        super().__init__(root, policy, skip=skip, subvolumes=nested)

    def details(self, entry: Entry) -> Details:
        found = super().details(entry)
        return found._replace(read_only=entry.path in self._sealed) if entry.subvolume else found

    def candidates(self, live: Tree) -> Collection[bytes] | None:
        return candidates(self, live, self._inside, self._since) if isinstance(live, LiveTree) else None

    def shares_numbers(self, new: Tree) -> bool:
        """Not where one of the subvolumes is another now: each counts its inodes from the same number on."""
        live = unwrapped(new)
        return not isinstance(live, LiveTree) or not any(is_another(live, *one) for one in self._since.items())

    def subvolume_fd(self, path: bytes) -> int | None:
        """The top of the read-only snapshot of the subvolume at ``path``; the caller closes it."""
        fd = self._tops.get(path)
        return None if fd is None else os.dup(fd)

    def close(self) -> None:
        if self._top >= 0:
            os.close(self._top)
        self._top, self._tops = -1, {}
        super().close()
