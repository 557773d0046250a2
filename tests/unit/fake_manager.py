"""A systemd that notes what it is asked for."""

from __future__ import annotations

from typing import Any

from snapbreaker.linux.systemd import Unit

TIMER = "apt-daily.timer"


class FakeManager:
    """systemd with one timer; ``refuses`` to start it."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.started = refuses, [""][:0]
        self.system, self.isolated = "running", [""][:0]
        self.states: dict[int, tuple[str, str, str]] = {}

    def connect(self) -> FakeManager:
        return self

    def __enter__(self) -> FakeManager:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def units(self) -> dict[str, Unit]:
        return {TIMER: Unit(TIMER, "loaded", "active" if self.started else "inactive", "dead", "/")}

    def enablement(self, _: str) -> str:
        return "enabled"

    def start(self, units: list[str]) -> dict[str, str]:
        if self.refuses:
            return dict.fromkeys(units, self.refuses)
        self.started += units
        return {}

    stop = restart = start

    def settle(self, *_: Any) -> bool:
        return True

    def reload(self) -> None:
        pass

    def state(self) -> str:
        return self.system

    def isolate(self, target: str) -> None:
        self.isolated.append(target)

    def job_states(self) -> dict[int, tuple[str, str, str]]:
        return self.states
