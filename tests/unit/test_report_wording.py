"""Names, numbers and commands as they are shown."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapbreaker.report import wording

PATHS = st.binary(max_size=30).map(lambda name: name.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/etc/fstab", "/etc/fstab"),
        ("/a b/ü", "/a b/ü"),
        ("a\nb", "a\\nb"),
        ("\udcff", "\\xff"),
        ("a\\nb", "a\\\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("\U000e0001", "\\U000e0001"),
        ("\x7f\x85", "\\x7f\\u0085"),
    ],
)
def test_paths_are_shown_visibly(path: str, shown: str) -> None:
    assert wording.path_text(path) == shown


@given(PATHS, PATHS)
def test_shown_paths_are_printable_and_tell_paths_apart(one: str, other: str) -> None:
    assert wording.path_text(one).isprintable()
    assert (wording.path_text(one) == wording.path_text(other)) == (one == other)


@given(st.text())
def test_shown_lines_hold_no_control_characters_but_tabs(line: str) -> None:
    shown = wording.line_text(line)
    assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160} - {"\t"}
    shown.encode("utf-8")


def test_lines_keep_what_is_seen() -> None:
    assert wording.line_text("C:\\new\ta\u3000\u00a0é") == "C:\\new\ta\u3000\u00a0é"
    assert wording.line_text("bell\a") == "bell\\x07"


@pytest.mark.real_commands
def test_a_shown_command_is_read_back_by_the_shell() -> None:
    words = ["a b", "", "it's", "$HOME", "é", "\udcff1\n\\'\t", "~", "!x", "-n", "\x1b0", "a\u00a0b"]
    script = f"printf '%s\\0' {wording.command_text(words)}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == words
    assert wording.command_text(words).isprintable()


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_960, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (3_141_592, "3.1 MB"),
        (6 * 10**9, "6.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes(size: int, shown: str) -> None:
    assert wording.size_text(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 ms"),
        (0.0009, "0.9 ms"),
        (0.31, "310 ms"),
        (0.9999, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (123, "2 min 03 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert wording.seconds_text(seconds) == shown


def test_times_are_utc_whatever_the_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert wording.time_text(1_795_453_200) == "2026-11-23 17:00:00 UTC"


def test_counts() -> None:
    assert wording.count_text(1, "path") == "1 path"
    assert wording.count_text(2811, "path") == "2,811 paths"
    assert wording.count_text(0, "process", "processes") == "0 processes"


@given(st.text(max_size=60), st.integers(min_value=4, max_value=40))
def test_clipped_text_fits(text: str, width: int) -> None:
    shown = wording.clipped(text, width)
    assert wording.cells(shown) <= width
    assert shown == text or shown.endswith("...")


@given(st.text(max_size=200), st.integers(min_value=5, max_value=80))
def test_wrapped_text_loses_no_word(text: str, width: int) -> None:
    lines = wording.wrapped(text, width)
    words = [word for word in text.split(" ") if word]
    assert [word for line in lines for word in line.split(" ") if word] == words
    assert all(wording.cells(line) <= width or " " not in line for line in lines)


def test_wide_characters_take_two_cells() -> None:
    assert wording.cells("日本e\u0301") == 5
