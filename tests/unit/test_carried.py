"""What is kept of a volume that was replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapbreaker.carried import is_ours


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    directory = tmp_path / ".snapbreaker/at-boot"
    directory.mkdir(parents=True)
    for path in (directory, directory.parent):
        path.chmod(0o700)
    return directory


def test_only_a_directory_of_ours_has_plans(plans: Path) -> None:
    assert is_ours(str(plans))
    plans.parent.chmod(0o777)
    assert not is_ours(str(plans))
    plans.parent.chmod(0o755)
    plans.chmod(0o770)
    assert not is_ours(str(plans))


def test_a_link_is_none_of_ours(plans: Path) -> None:
    plans.rename(plans.parent / "elsewhere")
    os.symlink("elsewhere", plans)
    assert not is_ours(str(plans))
    with pytest.raises(FileNotFoundError):
        is_ours(str(plans.parent / "gone"))
