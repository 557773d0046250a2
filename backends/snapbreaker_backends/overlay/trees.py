"""What a sandboxed run goes back to: the untouched volume, or what was displaced when its changes were applied."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Self

from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.displaced import Displaced
from snapbreaker.files.entry import Change, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.tree import Content, Tree
from snapbreaker.files.wrapped import Wrapped


class Untouched(Wrapped):
    """The live volume as its own checkpoint: it differs nowhere."""

    def candidates(self, live: Tree) -> Collection[bytes]:
        return ()

    def close(self) -> None:
        self._tree.close()


class Nothing(ChangeTree):
    """Nothing was applied yet; but making slots may have moved some directories' times (``records``)."""

    def content(self, entry: Entry) -> Content:
        return self.live_content(entry)


class Reversal(Displaced):
    """What was displaced. Logs that were there before are none of it: others have written on since."""

    _policy = Policy()

    @classmethod
    def of(cls, vault: str, attempt: int, live: LiveTree) -> Self:
        tree = cls.open(vault, attempt, live)
        tree._policy = live.policy
        return tree

    def changes(self, live: Tree, below: bytes = b"") -> Iterator[Change]:
        for change in super().changes(live, below):
            grown = change.old is not None and change.new is not None and not change.new.is_dir
            if not (grown and self._policy.of(change.path) is PathClass.KEEP_CONTENT):
                yield change
