"""Taking a volume back as a whole while the machine runs, ahead of the file engine, where its backend can do that.

settle → compare → mark → compare → revert → verify. Whatever it does not bring back, the file engine does
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from snapbreaker import selection
from snapbreaker.backend import Capability, Revert
from snapbreaker.bystanders import Split
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.errors import RestoreError, SnapbreakerError
from snapbreaker.files.live import LiveTree
from snapbreaker.goal import Goal


class Whole:
    """One volume. ``note`` is for the report. Where ``goal`` is less than all of it nothing is done.

    Raises SnapbreakerError, OSError where an earlier one was cut off and cannot be brought to an end.
    """

    def __init__(self, volume: VolumeRecord, goal: Goal) -> None:
        backend = selection.load(volume.backend)
        self._stored = volume.stored
        able = Capability.REVERT in backend.capabilities
        if able:
            backend.settle(self._stored)
        self._backend = backend if able and not (goal.undo or goal.paths) else None
        self._marked = Revert(False)
        self.note = ""

    def mark(self, octets: Callable[[], int]) -> bool:
        """Whether all has to be compared again; until the first ``revert``. ``octets``: see ``Backend.mark``."""
        if self._backend is not None:
            try:
                self._marked = self._backend.mark(self._stored, octets())
            except (OSError, SnapbreakerError):  # the file engine does without
                self._give_up()
        return self._backend is not None and self._marked.done

    def revert(self, split: Split, live: LiveTree) -> bool:
        """Whether ``split``, which is all that was found in ``live`` since ``mark``, is back. Only once.

        RestoreError: it is, but something else is shown.
        """
        backend, self._backend = self._backend, None
        if backend is None:
            return False
        if not split.back or split.stays or not self._marked.done:
            backend.settle(self._stored)
            self.note = self._marked.note if split.back else ""
            return False
        try:
            live.forget()  # we use it, too
            how = backend.revert(self._stored, split.back)
        except RestoreError:  # the file engine would believe what is shown
            raise
        except (OSError, SnapbreakerError) as error:
            backend.settle(self._stored)
            how = Revert(False, f"it goes back path by path: {error}")
        if how.done:
            vault.unreserve(self._stored.vault)  # that of the checkpoint came back with the rest
        self.note = how.note
        return how.done

    def _give_up(self) -> None:
        if self._backend is not None:
            self._backend.settle(self._stored)
        self._backend = None
