"""Choosing a backend: order, reasons, and what cannot be loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from snapbreaker import selection
from snapbreaker.backend import Availability, Backend, Creation, Reason, Stored, Volume
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.files.tree import Tree

VOLUME = Volume(0, "/srv", "/", "ext4", "/dev/x", "8:1")


class Fake(Backend):
    name = "fake"
    rank = 5
    answer: ClassVar[Availability] = Availability((Reason("no room", "make room"), Reason("too old")))

    def availability(self, volume: Volume) -> Availability:
        return self.answer

    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        raise AssertionError

    def open(self, stored: Stored) -> Tree:
        raise AssertionError

    def discard(self, volume: Volume, vault: str, record: str) -> None:
        raise AssertionError


class Unsure(Fake):
    rank = 1

    def availability(self, volume: Volume) -> Availability:
        raise PermissionError(1, "not permitted")


class Willing(Fake):
    rank = 50
    answer = Availability(notes=("slow",))


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    places = {name.lower(): f"{__name__}:{name}" for name in ("Fake", "Unsure", "Willing")}
    places |= {"absent": "no.such.module:X", "wrong": f"{__name__}:VOLUME"}
    monkeypatch.setattr(selection, "_BUILT_IN", places)
    selection.load.cache_clear()
    yield places
    selection.load.cache_clear()


def test_the_first_that_can_is_taken_and_the_better_ones_are_explained() -> None:
    backend, notes = selection.choose(VOLUME)
    assert isinstance(backend, Willing)
    assert notes[0] == "slow"
    assert "not fake: no room" in notes
    assert "not fake: too old" in notes
    assert any(note.startswith("not unsure: cannot be examined") for note in notes)


def test_survey_is_in_order_and_complete() -> None:
    surveyed = selection.survey(VOLUME)
    assert [name for name, _ in surveyed] == ["unsure", "fake", "willing", "absent", "wrong"]
    assert [bool(availability) for _, availability in surveyed] == [False, False, True, False, False]
    assert "cannot be loaded" in surveyed[3][1].reasons[0].text


def test_nothing_can(table: dict[str, str]) -> None:
    del table["willing"]
    with pytest.raises(CheckpointError, match=r"/srv.*fake: no room; fake: too old") as caught:
        selection.choose(VOLUME)
    assert caught.value.hint == "make room"
    assert caught.value.exit_code == 4


def test_the_operators_choice_is_not_second_guessed() -> None:
    with pytest.raises(CheckpointError, match="fake: no room"):
        selection.choose(VOLUME, "fake")
    assert selection.choose(VOLUME, "willing")[1] == ("slow",)
    with pytest.raises(UsageError, match="'other'") as caught:
        selection.choose(VOLUME, "other")
    assert "willing" in caught.value.hint
    assert caught.value.exit_code == 2


def test_one_instance(table: dict[str, str]) -> None:
    first = selection.load("willing")
    table.clear()
    assert selection.load("willing") is first


def test_built_in_backends_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    selection.load.cache_clear()
    assert {"btrfs", "filecopy"} <= set(selection.names())
    for name in selection.names():
        assert selection.load(name).name == name


@pytest.mark.parametrize("info", ["thing-1.dist-info", "thing.egg-info"])
def test_a_backend_of_an_installed_package_is_found(
    info: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, group in ((info, selection.ENTRY_POINTS), ("other-1.dist-info", "console_scripts")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        (tmp_path / name / "entry_points.txt").write_text(f"[{group}]\nmine = {__name__}:Willing\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none"), str(tmp_path)])
    selection._installed.cache_clear()
    try:
        assert "mine" in selection.names()
        assert isinstance(selection.load("mine"), Willing)
    finally:
        selection._installed.cache_clear()
