"""What a restore decides to do, on trees in a temporary directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker.files.diff import diff
from snapbreaker.files.live import LiveTree
from snapbreaker.files.plan import Action, Plan, make_plan
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """Plan what undoes ``change`` of a tree made by ``make``."""

    def plan(
        make: Callable[[Path], object], change: Callable[[Path], object], held: list[bytes] | None = None
    ) -> Plan:
        old, live = tmp_path / "old", tmp_path / "live"
        for root in (old, live):
            root.mkdir()
            make(root)
            _same_times(root)
        change(live)
        with LiveTree(str(old)) as before, LiveTree(str(live)) as now:
            changes = list(diff(before, now, Policy(), Proof.none()))
            return make_plan(before, now, reversed(changes), held or [])

    return plan


def _same_times(root: Path) -> None:
    for directory, _, names in os.walk(root, topdown=False):
        for name in (*names, "."):
            os.utime(Path(directory) / name, ns=(1, 1), follow_symlinks=False)


def actions(plan: Plan) -> dict[bytes, str]:
    return {step.path: step.action.name for step in plan.steps if step.path}


def test_metadata_stays_in_place_and_content_comes_anew(planned: Callable[..., Plan]) -> None:
    def make(root: Path) -> None:
        for name in ("mode", "content", "gone"):
            (root / name).write_text("x")

    def change(root: Path) -> None:
        (root / "mode").chmod(0o600)
        (root / "content").write_text("y")
        (root / "gone").unlink()
        (root / "made").write_text("new")

    assert actions(planned(make, change)) == {
        b"content": "PLACE",
        b"gone": "PLACE",
        b"made": "DISPLACE",
        b"mode": "METADATA",
    }


def test_added_directory_goes_as_a_whole(planned: Callable[..., Plan]) -> None:
    def change(root: Path) -> None:
        (root / "made/inner").mkdir(parents=True)
        (root / "made/inner/file").write_text("x")
        (root / "made-too").write_text("its name begins alike")

    assert actions(planned(lambda root: None, change)) == {b"made": "DISPLACE", b"made-too": "DISPLACE"}


def test_what_is_above_a_held_path_stays(planned: Callable[..., Plan]) -> None:
    def change(root: Path) -> None:
        (root / "made/inner").mkdir(parents=True)
        (root / "made/other").write_text("x")

    plan = planned(lambda root: None, change, held=[b"made/inner/kept"])
    assert actions(plan) == {b"made/other": "DISPLACE"}
    assert plan.failures.keys() == {b"made", b"made/inner"}


def test_removed_tree_comes_back_before_what_is_in_it(planned: Callable[..., Plan]) -> None:
    def make(root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/file").write_text("x")

    plan = planned(make, lambda root: shutil.rmtree(root / "a"))
    assert list(actions(plan)) == [b"a", b"a/b", b"a/b/file"]


def _links(root: Path) -> None:
    (root / "one").write_text("x")
    os.link(root / "one", root / "two")
    os.link(root / "one", root / "zero")


def test_missing_link_is_made_to_the_file_that_is_still_there(planned: Callable[..., Plan]) -> None:
    plan = planned(_links, lambda root: (root / "one").unlink())
    assert actions(plan) == {b"one": "LINK", b"two": "METADATA", b"zero": "METADATA"}
    assert plan.by_path[b"one"].base is plan.by_path[b"two"]


def test_links_of_a_changed_file_are_made_anew_together(planned: Callable[..., Plan]) -> None:
    plan = planned(_links, lambda root: (root / "two").write_text("y"))
    assert actions(plan) == {b"one": "PLACE", b"two": "LINK", b"zero": "LINK"}


def test_file_with_an_added_link_does_not_keep_its_inode(planned: Callable[..., Plan]) -> None:
    """The added name goes into a slot: what lies there must not be the file in use."""
    plan = planned(lambda root: (root / "one").write_text("x"), lambda root: os.link(root / "one", root / "two"))
    assert actions(plan) == {b"one": "PLACE", b"two": "DISPLACE"}


def test_links_that_were_joined_come_apart(planned: Callable[..., Plan]) -> None:
    def make(root: Path) -> None:
        (root / "one").write_text("x")
        (root / "two").write_text("x")

    def change(root: Path) -> None:
        (root / "two").unlink()
        os.link(root / "one", root / "two")

    plan = planned(make, change)
    assert actions(plan) == {b"one": "PLACE", b"two": "PLACE"}
    assert all(step.base is None for step in plan.steps)
    assert {step.action for step in plan.steps if step.path} == {Action.PLACE}
