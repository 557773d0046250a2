"""What is made of recorded requests: read exactly, reduced only where that changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapbreaker.held import Action, recorded
from snapbreaker.held.log import LogDamaged, planned
from snapbreaker.held.noted import Noted
from snapbreaker.held.programs import LOG, SHARED

RELOAD = Action("systemctl", ("--system", "daemon-reload"))


def action(*words: str) -> Action:
    return Action("systemctl", words)


def log(directory: Path, data: bytes) -> list[Action]:
    (directory / SHARED).mkdir(exist_ok=True)
    (directory / SHARED / LOG).write_bytes(data)
    return recorded(str(directory))


def test_the_log_is_read_exactly(tmp_path: Path) -> None:
    words = [b"systemctl", b"start", b"", b"3", b"a\nb", b"\xff"]
    whole = b"6\0" + b"".join(word + b"\0" for word in words)
    expected = Action("systemctl", tuple(map(os.fsdecode, words[1:])))
    assert log(tmp_path, whole * 2) == [expected, expected]
    assert log(tmp_path, b"") == []


def test_a_last_request_that_is_not_whole_is_none(tmp_path: Path) -> None:
    whole = b"3\0systemctl\0start\0web\0"
    for cut in range(1, len(whole)):
        assert log(tmp_path, whole + whole[:cut]) == [action("start", "web")]


@pytest.mark.parametrize("data", [b"x\0a\0", b"1\0a\0b\0", b"0\0", b"\0", b"-1\0a\0"])
def test_a_log_that_somebody_wrote_into_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(LogDamaged):
        log(tmp_path, data)


def test_words_are_told_from_options() -> None:
    kill = action("-q", "-s", "HUP", "kill", "--kill-whom=main", "--signal", "9", "web", "db.socket")
    assert (kill.verb, kill.units) == ("kill", ["web.service", "db.socket"])
    assert action("-qsHUP", "kill", "a").units == ["a.service"]
    assert action("-qs", "HUP", "kill", "a.b").units == ["a.b.service"]
    assert action("start", "--", "-.mount", "x*").units == ["-.mount", "x*.service"]
    assert (action("start", "/srv").units, action("daemon-reload").units) == (["/srv"], [])
    script = Action("invoke-rc.d", ("--quiet", "web", "restart"))
    assert (script.verb, script.units, Action("systemd-tmpfiles", ("--create", "x")).verb) == ("restart", [], "")


def test_five_restarts_in_a_row_are_one() -> None:
    restart = action("restart", "web")
    assert planned([restart, RELOAD, restart, restart, RELOAD, restart], False) == [restart, RELOAD][::-1]


def test_nothing_is_reduced_that_has_another_action_in_between() -> None:
    web, db = action("restart", "web"), action("restart", "db")
    assert planned([web, db, web, web], False) == [web, db, web]
    assert planned([web, action("restart", "web", "db"), web], False)[1] == action("restart", "web", "db")


def test_signals_are_all_sent() -> None:
    kill = action("kill", "-s", "USR1", "web")
    assert planned([kill, kill], False) == [kill, kill]


def test_systemd_reads_its_files_once_and_stops_come_before() -> None:
    stop, start = action("stop", "web"), action("start", "web")
    assert planned([stop, RELOAD, start, RELOAD], False) == [stop, RELOAD, start]
    assert planned([RELOAD, stop, start], False) == [RELOAD, stop, start]
    assert planned([stop, start, RELOAD], False) == [stop, RELOAD, start]
    assert planned([stop], False) == [stop]
    assert planned([stop], True) == [stop, action("daemon-reload")]
    assert planned([], True) == [action("daemon-reload")]
    assert planned([start], True) == [action("daemon-reload"), start]
    assert planned([], False) == []
    anew = action("daemon-reexec")
    assert planned([RELOAD, start, anew], False) == [anew, start]


def test_what_was_done_is_noted(tmp_path: Path) -> None:
    assert Noted.of(str(tmp_path)) is None
    noted = Noted.new(str(tmp_path), ["old.service"])
    noted.begin(0)
    noted.finish(0)
    noted.begin(1)
    again = Noted.of(str(tmp_path))
    assert again is not None
    assert (again.bad, again.begun, again.done, again.over) == (["old.service"], 2, 1, False)
    assert again.of_this_boot
    noted.end()
    assert (ended := Noted.of(str(tmp_path))) is not None
    assert ended.over
