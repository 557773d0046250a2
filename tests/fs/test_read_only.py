"""A filesystem becomes read-only for all who have mounted it, unless one of them has a file open for writing."""

from __future__ import annotations

import errno

import pytest

from snapbreaker.linux.mount import set_read_only
from tests.lab.loopfs import LoopFilesystem


def test_it_is_refused_while_a_file_is_open_for_writing(filesystem: LoopFilesystem) -> None:
    point = filesystem.path
    with (point / "file").open("w") as file:
        file.write("before")
        with pytest.raises(OSError, match="busy") as caught:
            set_read_only(str(point), True)
        assert caught.value.errno == errno.EBUSY
    with (point / "file").open() as reader:
        set_read_only(str(point), True)
        with pytest.raises(OSError, match="Read-only"):
            (point / "file").write_text("after")
        set_read_only(str(point), False)
        assert reader.read() == "before"
    (point / "file").write_text("after")
