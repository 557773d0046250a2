"""The status line: it is there while the command is quiet, and leaves no trace in the output."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fs.operator import Operator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: run as root")

DRAWN = re.compile(rb"\r\x1b\[K\x1b\[2m(.*?)\x1b\[0m\r")


def ran(directory: Path, script: str, columns: int = 77, **options: Any) -> bytes:
    """What the terminal was sent."""
    operator = Operator(directory, "sh", "-c", script, columns=columns, status="filecopy", **options)
    operator.finish()
    return operator.seen


def output(seen: bytes) -> bytes:
    """What is left on the screen: all but what was drawn and is erased again before anything else is shown."""
    lines = DRAWN.sub(b"\x00", seen)
    assert not re.search(rb"\x00(?!\x00|\r\x1b\[K)", lines), seen
    return lines.replace(b"\x00", b"").replace(b"\r\x1b[K", b"")


def test_shown_while_nothing_is_printed(tmp_path: Path) -> None:
    seen = ran(tmp_path, "echo one; sleep 1.8; echo two; sleep 0.8", idle=30)
    drawn = DRAWN.findall(seen)
    shown = re.compile(rb"snapbreaker: 0:0\d, (\d) lines?, silent for \d s of 30 s, filecopy")
    assert [shown.fullmatch(one)[1] for one in drawn] in ([b"1", b"1", b"2"], [b"1", b"2"])  # type: ignore[index]
    assert output(seen) == b"one\r\ntwo\r\n"


def test_gone_at_a_trip(tmp_path: Path) -> None:
    seen = ran(tmp_path, "sleep 0.8; echo ERROR; sleep 9")
    assert DRAWN.search(seen)
    assert output(seen) == b"ERROR\r\n"


def test_not_below_a_line_that_is_not_complete(tmp_path: Path) -> None:
    assert ran(tmp_path, "printf 'Password: '; sleep 1.2; printf '50%%\\r'; sleep 1.2") == b"Password: 50%\r"


@pytest.mark.parametrize(
    "script",
    [
        r"printf '\033[?1049h'",
        r"printf '\033[2;3H'",
        r"printf '\0337\033[1;23r'",
        r"printf '\033[?10'; sleep 0.1; printf 49h",
    ],
)
def test_ends_where_a_program_draws(tmp_path: Path, script: str) -> None:
    assert not DRAWN.search(ran(tmp_path, f"{script}; echo; sleep 1.2"))


def test_colours_do_not_end_it(tmp_path: Path) -> None:
    assert DRAWN.search(ran(tmp_path, "printf '\\033[32mgood\\033[0m\\033[K\\n'; sleep 0.8"))


def test_fits_into_the_terminal(tmp_path: Path) -> None:
    drawn = DRAWN.findall(ran(tmp_path, "sleep 0.8", columns=30))
    assert drawn
    assert all(len(one) < 30 and one.endswith(b"...") for one in drawn)
    assert not DRAWN.search(ran(tmp_path, "sleep 0.8", columns=10))


def test_none_where_none_is_wanted(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sh", "-c", "sleep 0.8; echo done")
    operator.finish()
    assert operator.seen == b"done\r\n"
