"""Whether units are well: nothing fails that had not failed before, nothing is started over and over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from snapbreaker import commands
from snapbreaker.errors import SnapbreakerError
from snapbreaker.held.action import Action
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import Manager, SystemdError, Unit
from snapbreaker.system.units import FAILED, counts

LONGEST = 600.0  # s for one job: a start may take 90 s by default, and some minutes where a package says so
_LINES, _LENGTH = 6, 200  # of a unit's journal that an issue shows, and of each line


class Health:
    """``before``: the units that are not well, and were not before the run's services came."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.before: frozenset[str] = frozenset()

    @classmethod
    def connect(cls) -> Health:
        """Raises SystemdError."""
        return cls(Manager.connect())

    def close(self) -> None:
        self.manager.close()

    def bad(self) -> list[str]:
        """Units that have failed, or wait to be started again since they did."""
        units = self.manager.units()
        return [name for name, unit in units.items() if counts(name, units) and _is_bad(unit)]

    def running(self, names: Iterable[str]) -> bool:
        """Whether any of the units is up."""
        units = self.manager.units()
        return any(units[name].running for name in self._full(names) if name in units)

    def forget_removed(self, names: Iterable[str]) -> None:
        """A unit that is gone could not run what its file said for its end; that is no failure."""
        for name in self._full(names):
            with suppress(SystemdError):
                path = self.manager.properties(name).get("FragmentPath") or ""
                if not path or not os.path.exists(path):
                    self.manager.reset_failed(name)

    def settled(self, plan: Sequence[Action], seconds: float) -> Issue | None:
        """Let the jobs end, then watch for ``seconds``; what is not well by then."""
        names = self._full(name for action in plan for name in action.units)
        if not self.manager.settle(names, LONGEST):
            waiting = sorted({unit for unit, _ in self.manager.jobs().values()} & set(names))
            return self._told(waiting[0] if waiting else "systemd", f"has not come up within {LONGEST:g} s")
        starts = self._starts(names)
        self.manager.wait(lambda: bool(self._newly_bad()), seconds)
        if found := self._newly_bad():
            return self._told(found[0], "failed after it was started")
        again = [name for name, count in self._starts(names).items() if count > starts.get(name, count)]
        return self._told(again[0], "ends and is started again and again") if again else None

    def issue(self, action: Action, said: str) -> Issue:
        """Why ``action`` failed; ``said`` is what systemctl(1) had to say."""
        named = self._full(action.units)
        found = [*(name for name in self._newly_bad() if name in named), *named, *self._newly_bad()]
        first = (said.strip() or "it said nothing").splitlines()[0]
        return self._told(found[0] if found else action.verb, f"does not {action.verb}: {first}")

    def _newly_bad(self) -> list[str]:
        return [name for name in self.bad() if name not in self.before]

    def _starts(self, names: Iterable[str]) -> Mapping[str, int]:
        """How often systemd has started each by itself."""
        found = {}
        for name in names:
            if name.endswith(".service"):
                with suppress(SystemdError):
                    found[name] = int(self.manager.properties(name, "Service").get("NRestarts", 0))
        return found

    def _full(self, names: Iterable[str]) -> list[str]:
        """Their names in memory: aliases are resolved, patterns left out."""
        found: dict[str, None] = {}
        for name in names:
            with suppress(SystemdError):
                found[str(self.manager.properties(name)["Id"])] = None
        return list(found)

    def _told(self, unit: str, what: str) -> Issue:
        lines = self._journal(unit)
        shown = f"; its journal ends: {' / '.join(lines)}" if lines else ""
        return Issue(
            IssueType.CHECK, f"{unit} {what}{shown}", "services", source=f"journal:{unit}", time=time.time()
        )

    def _journal(self, unit: str) -> list[str]:
        words = ("--boot", f"--unit={unit}", f"--lines={_LINES}", "--no-pager", "--quiet", "--output=cat")
        try:
            said = commands.run(["journalctl", *words], check=False, timeout=20).stdout
        except SnapbreakerError:
            return []
        return [line[:_LENGTH] for line in said.splitlines()]


def _is_bad(unit: Unit) -> bool:
    return unit.active == FAILED or unit.sub == "auto-restart"
