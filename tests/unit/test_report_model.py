"""The model survives JSON, files and hostile names, and never calls a doubtful rollback a success."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Aspect, Change, Entry
from snapbreaker.report.model import SAMPLE_LIMIT, Changes, CheckpointStatus, Halt, Line, PathNote, Process, Report
from snapbreaker.report.saved import load_report, save_report
from tests.unit import report_samples as samples


def entry(path: bytes, mode: int = stat.S_IFREG | 0o644, size: int = 10) -> Entry:
    return Entry(path, mode, 0, 0, size, 0, 0, 1, 1, 0)


@pytest.mark.parametrize("sample", samples.ALL)
def test_json_round_trip_is_exact(sample: samples.Sample) -> None:
    report = sample()
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


@given(st.binary(min_size=1, max_size=20))
def test_any_bytes_survive_as_a_path(name: bytes) -> None:
    path = name.decode("utf-8", "surrogateescape")
    report = samples.tripped(differences=[PathNote(path, "content")], command=[path])
    back = Report.from_dict(json.loads(json.dumps(report.as_dict())))
    assert back.differences[0].path.encode("utf-8", "surrogateescape") == name
    assert back.command[0].encode("utf-8", "surrogateescape") == name


def test_a_newer_format_is_refused_and_unknown_keys_are_not() -> None:
    data = samples.tripped().as_dict()
    data["issue"]["novelty"] = data["novelty"] = 1
    assert Report.from_dict(data) == samples.tripped()
    with pytest.raises(CheckpointError, match="format version 2"):
        Report.from_dict({**data, "version": 2})


@pytest.mark.parametrize(
    "data", [{}, {"version": 1}, {"version": 1, "id": "x", "outcome": "odd"}, {"version": "1"}]
)
def test_what_is_not_a_report_is_an_error_of_ours(data: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        Report.from_dict(data)


def test_saved_reports_come_back_and_replace_each_other(tmp_path: Path) -> None:
    path = save_report(samples.tripped(), tmp_path)
    save_report(samples.failed(), str(tmp_path))
    assert path == f"{tmp_path}/report.json"
    assert load_report(tmp_path) == samples.failed()
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_saved_report_is_private_whatever_the_umask(tmp_path: Path) -> None:
    for mask in (0o000, 0o777):
        before = os.umask(mask)
        try:
            path = save_report(samples.tripped(), tmp_path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_stale_temporary_file_or_link_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "report.json.new").symlink_to(tmp_path / "elsewhere")
    save_report(samples.tripped(), tmp_path)
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_failed_write_leaves_the_earlier_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_report(samples.tripped(), tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_report(samples.failed(), tmp_path)
    assert load_report(tmp_path) == samples.tripped()
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_damaged_report_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"report\.json"):
        load_report(tmp_path)


def test_no_report_yet(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no report yet"):
        load_report(tmp_path)


@pytest.mark.parametrize(
    "doubt",
    [
        {"differences": [PathNote("/x", "content")]},
        {"failures": [PathNote("/x", "EIO")]},
        {"compared": []},
        {"halt": Halt(0.001, True, 1, 5.0, [Process(1, "dd", "D")])},
    ],
)
def test_a_rollback_in_doubt_is_never_called_completed(doubt: dict[str, object]) -> None:
    assert samples.tripped().checkpoint_status is CheckpointStatus.COMPLETED
    assert samples.tripped(**doubt).checkpoint_status is CheckpointStatus.FAILED


def test_context_is_split_at_the_line_that_tripped() -> None:
    report = samples.tripped()
    lines = [Line("stderr", 42, "a"), Line("stdout", 42, "trip"), Line("stdout", 43, "b")]
    report.set_context(lines)
    assert (report.before, report.after) == (lines[:1], lines[2:])
    report.set_context(lines[2:])
    assert (report.before, report.after) == (lines[2:], [])


def test_changes_are_counted_and_the_sample_prefers_more_than_times() -> None:
    old, new = entry(b"a"), entry(b"a", size=1000)
    changes = Changes()
    changes.add(
        "/srv",
        [
            *(Change(b"t%d" % n, old, old, Aspect.MTIME) for n in range(SAMPLE_LIMIT + 50)),
            Change(b"", old, new, Aspect.CONTENT | Aspect.MTIME),
            Change(b"new\xff", None, new, Aspect.ADDED),
            Change(b"dir", None, entry(b"dir", stat.S_IFDIR | 0o755, 4096), Aspect.ADDED),
            Change(b"gone", old, None, Aspect.REMOVED),
        ],
    )
    assert (changes.added, changes.changed, changes.removed) == (2, SAMPLE_LIMIT + 51, 1)
    assert changes.size == 2000
    assert [item.path for item in changes.sample[:4]] == ["/srv", "/srv/new\udcff", "/srv/dir", "/srv/gone"]
    assert changes.sample[0].aspects == ("content", "mtime")
    assert len(changes.sample) == SAMPLE_LIMIT


def test_samples_cover_every_field_with_something() -> None:
    """A field that no sample sets would escape the round trip."""
    unset = {item.name for item in dataclasses.fields(Report)}
    blank = Report("", [], samples.tripped().outcome, 0)
    for sample in samples.ALL:
        report = sample()
        unset -= {name for name in unset if getattr(report, name) != getattr(blank, name)}
    assert unset == set()
