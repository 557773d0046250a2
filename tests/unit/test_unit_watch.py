"""Units that fail in a run, as systemd's signals tell of them."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest

from snapbreaker.issue import Issue
from snapbreaker.linux.systemd import Unit
from snapbreaker.linux.systemd_signals import Changed, JobNew, JobRemoved, Signal, name_of
from snapbreaker.sources import units as unit_module
from snapbreaker.sources.journal import unit_name
from snapbreaker.sources.units import UnitWatch


class Manager:
    """PID 1 with what it says of units."""

    properties_of: ClassVar[dict[str, dict[str, Any]]] = {}
    known: ClassVar[dict[str, Unit]] = {}

    @classmethod
    def connect(cls) -> Manager:
        return cls()

    def units(self) -> dict[str, Unit]:
        return self.known

    def properties(self, name: str, kind: str = "Unit") -> dict[str, Any]:
        return self.properties_of.get(name, {})


class Told:
    fd = 0

    def __init__(self) -> None:
        self.signals: list[Signal] = []

    def read(self) -> list[Signal]:
        found, self.signals = self.signals, []
        return found


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **states: str) -> None:
        known = {}
        for name, state in states.items():
            active, _, sub = state.partition("/")
            unit = name.replace("_", ".")
            known[unit] = Unit(unit, "loaded", active, sub, "/")
        monkeypatch.setattr(Manager, "known", known)
        monkeypatch.setattr(Manager, "properties_of", {})
        monkeypatch.setattr(unit_module, "Manager", Manager)
        monkeypatch.setattr(unit_module, "Signals", Told)
        monkeypatch.setattr(unit_module, "SETTLE", 0.0)
        self.watch = UnitWatch()

    def verdicts(self, *signals: Signal) -> list[Issue | str]:
        self.watch._signals.signals += signals  # type: ignore[attr-defined]
        self.watch.hear()
        return self.watch.verdicts()


def to(state: str, unit: str = "app.service") -> Changed:
    active, _, sub = state.partition("/")
    return Changed(unit, "Unit", {"ActiveState": active, "SubState": sub})


def result(text: str, unit: str = "app.service") -> Changed:
    return Changed(unit, "Service", {"Result": text})


START, STARTED = JobNew(1, "app.service"), JobRemoved(1, "app.service", "done")
FAILED = (to("failed/failed"), result("exit-code"))


def test_one_that_the_run_starts_and_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    (issue,) = scene.verdicts(START, to("active/running"), STARTED, *FAILED)
    assert isinstance(issue, Issue)
    assert (issue.line, issue.source) == ("app.service: failed (exit-code)", "journal:app.service")
    assert scene.verdicts() == []  # told once
    assert scene.watch.touched("app.service")


def test_a_job_that_is_told_behind_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    before = time.monotonic()
    assert scene.verdicts(to("active/running"), START, STARTED) == []
    assert scene.watch.settled_at() >= before + unit_module.LINGER
    (issue,) = scene.verdicts(*FAILED)
    assert isinstance(issue, Issue)


def test_a_start_job_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    assert scene.verdicts(START, to("activating/start"), *FAILED) == []  # its job is not over
    (issue,) = scene.verdicts(JobRemoved(1, "app.service", "failed"))
    assert isinstance(issue, Issue)


def test_one_that_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is told first."""
    for signals in ((*FAILED, STARTED), (STARTED, *FAILED)):
        scene = Scene(monkeypatch, app_service="active/running")
        assert scene.verdicts(START, to("deactivating/stop-sigterm"), *signals) == []
        assert not scene.watch.touched("app.service")


def test_one_that_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, app_service="active/running")
    stop = (START, to("deactivating/stop-sigterm"), *FAILED)
    assert scene.verdicts(*stop, to("activating/start"), to("active/running"), STARTED) == []
    (issue,) = scene.verdicts(*FAILED)
    assert isinstance(issue, Issue)


def test_one_that_systemd_starts_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since before the run: no issue. Since the run: one, however often."""
    again = (JobNew(2, "app.service"), to("active/running"), JobRemoved(2, "app.service", "done"))
    # As systemd 252 tells it.
    failed = (result("exit-code"), to("failed/failed"), result("exit-code"), to("activating/auto-restart"))
    scene = Scene(monkeypatch, app_service="activating/auto-restart")
    for _ in range(3):
        assert [v for v in scene.verdicts(*again, *failed) if isinstance(v, Issue)] == []
    scene = Scene(monkeypatch)
    (issue,) = scene.verdicts(START, to("active/running"), STARTED, *failed, *again)
    assert isinstance(issue, Issue)
    assert scene.verdicts(*failed, *again) == []


def test_one_that_ends_well_and_is_started_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    ended = (result("success"), to("inactive/dead"), result("success"), to("activating/auto-restart"))
    assert scene.verdicts(START, to("active/running"), STARTED, *ended) == []
    assert scene.watch.settled_at() <= time.monotonic() + unit_module.LINGER


def test_one_of_a_timer_and_one_that_just_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, app_timer="active/waiting")
    monkeypatch.setattr(Manager, "properties_of", {"app.service": {"TriggeredBy": ["app.timer"]}})
    assert scene.verdicts(START, to("activating/start"), STARTED, *FAILED) == [
        "app.service failed; a timer or the like had started it"
    ]
    scene = Scene(monkeypatch, app_service="active/running")
    (text,) = scene.verdicts(*FAILED)
    assert text == "app.service, which ran before, failed during the run: exit-code"


def test_logins_and_connections_are_no_business_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    for name in ("session-4.scope", "user@0.service", "dev-sda.device"):
        failed = (to("failed/failed", name), result("timeout", name))
        assert scene.verdicts(JobNew(1, name), *failed, JobRemoved(1, name, "failed")) == []


def test_names_of_units() -> None:
    assert name_of("/org/freedesktop/systemd1/unit/foo_2ebar_40x_2eservice") == "foo.bar@x.service"
    assert (unit_name("nginx"), unit_name("a.socket")) == ("nginx.service", "a.socket")
    assert (unit_name("app-1.2"), unit_name("app@v1.2")) == ("app-1.2.service", "app@v1.2.service")
