"""What the file engine does where the filesystem cannot do it in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapbreaker.files.ops import exchange_by_three


def test_exchange_by_three_renames(tmp_path: Path) -> None:
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots/1").write_text("old")
    (tmp_path / "live").mkdir()
    (tmp_path / "live/inner").write_text("new")
    slots, top = (os.open(path, os.O_RDONLY) for path in (tmp_path / "slots", tmp_path))
    try:
        exchange_by_three(slots, b"1", top, b"live")
        assert (tmp_path / "live").read_text() == "old"
        assert (tmp_path / "slots/1/inner").read_text() == "new"
        with pytest.raises(FileNotFoundError):
            exchange_by_three(slots, b"2", top, b"live")
        assert (tmp_path / "live").read_text() == "old"
        assert os.listdir(tmp_path / "slots") == ["1"]
    finally:
        os.close(slots)
        os.close(top)
