"""What is followed beside the command's output: log files, units; and how it comes to the monitor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapbreaker.issue import Issue, IssueType
from snapbreaker.monitor.echoes import Echoes
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.packs import builtin_pack
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.output_log import INDEX, OutputLog, OutputReader, file_name, recorded
from snapbreaker.sources import journal as journal_module
from snapbreaker.sources.journal import LEVELS
from snapbreaker.sources.lookout import Lookout, Sources
from snapbreaker.sources.messages import Kind, Message
from tests.unit.test_tail import append


def test_the_lookout_tells_what_was_written_before_it_was_asked(log: Path) -> None:
    deep = log.parent / "not/there/yet.log"
    with Lookout(Sources(logs=[str(log), str(deep)], quiet=[f"{log}.quiet"]), lambda pid: None) as lookout:
        append(log, b"a" * 100_000 + b"\n")
        append(Path(f"{log}.quiet"), b"quiet\n")
        deep.parent.mkdir(parents=True)
        append(deep, b"deep\n")
        lookout.catch_up()
        told: dict[tuple[Kind, str], bytes] = {}
        while not lookout.caught_up:
            if message := lookout.take():
                key = (message.kind, message.name)
                told[key] = told.get(key, b"") + message.data
        assert told[Kind.OUTPUT, str(log)] == b"a" * 100_000 + b"\n"
        assert told[Kind.QUIET, f"{log}.quiet"] == b"quiet\n"
        assert told[Kind.OUTPUT, str(deep)] == b"deep\n"


def test_a_log_that_never_comes_is_told(log: Path) -> None:
    """A name mistyped would be a log that nobody judges; that of a pack need not be there."""
    with Lookout(Sources(logs=[str(log)], quiet=[f"{log}.quiet"]), lambda pid: None) as lookout:
        lookout.catch_up()
        told = []
        while not lookout.caught_up:
            if (message := lookout.take()) and message.kind is Kind.WARNING:
                told.append(message.data.decode())
    assert told == [f"--log {log} was never read: No such file or directory"]


def test_a_lookout_that_dies_is_an_issue(log: Path) -> None:
    excluded: list[int] = []
    with Lookout(Sources(logs=[str(log)]), excluded.append) as lookout:
        os.kill(excluded[0], 9)
        while (message := lookout.take()) is None:
            time.sleep(0.001)
        assert message.issue.type is IssueType.INTERRUPTED
        assert lookout.caught_up


def test_messages_survive_the_way() -> None:
    for message in (Message(Kind.OUTPUT, "/a\udcffb", b"\0\xff\n"), Message.warning("ä"), Message(Kind.CAUGHT_UP)):
        assert Message.unpacked(message.packed()) == message
    issue = Issue(IssueType.ERROR, "why", "unit-failed", "app.service: failed", "journal:app.service", time=1.5)
    assert Message.unpacked(Message.of_issue(issue).packed()).issue == issue


def test_the_recorded_output_is_read_back_in_its_order(tmp_path: Path) -> None:
    log, reader = OutputLog(tmp_path), OutputReader(tmp_path)
    assert list(reader.read()) == []
    pieces = [
        ("stdout", b"1\n"),
        ("/var/log/a b", b"2\xff"),
        ("stderr", b"3"),
        ("stdout", b"4"),
        ("journal:x@y", b""),
    ]
    for source, data in pieces:
        log.output(source, data)
    assert [(one.source, one.data) for one in reader.read()] == pieces[:4]
    log.output("stdout", b"5")
    assert [(one.source, one.data) for one in reader.read()] == [("stdout", b"5")]
    assert (tmp_path / "%2Fvar%2Flog%2Fa%20b.log").read_bytes() == b"2\xff"
    assert len(file_name("/x" * 2000)) < 255


@pytest.mark.parametrize(
    "spoil",
    [
        lambda index: index[:-9],
        lambda index: index[:-9] + b"1.0 1 " + index[-12:],
        lambda index: index + b"\0" * 50,
        lambda index: b"\0" * 50 + b"\n" + index,
        lambda index: index.replace(b" 4 ", b" 99999999999999999 "),
        lambda index: index.replace(b" 4 ", b" -4 "),
        lambda index: b"",
    ],
)
def test_a_spoiled_index_of_the_output(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """A full disk, a power cut: all of what was said is read all the same."""
    log = OutputLog(tmp_path)
    for text in (b"one\n", b"two\n"):
        log.output("stdout", text)
    log.close()
    index = tmp_path / INDEX
    index.write_bytes(spoil(index.read_bytes()))
    reader = OutputReader(tmp_path)
    assert b"".join(one.data for one in (*reader.read(), *reader.rest())) == b"one\ntwo\n"
    assert list(recorded(tmp_path)) == ["stdout"]


# the journal


class Entries:
    """A journal with what is logged into it, as (unit, text)."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []

    def to_end(self) -> None: ...

    def fd(self) -> int:
        return 0

    def read(self, fields: tuple[bytes, ...]) -> Iterator[dict[bytes, bytes]]:
        while self.entries:
            unit, text = self.entries.pop(0)
            yield {b"_SYSTEMD_UNIT": unit.encode(), b"MESSAGE": text.encode()}


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    journal = Entries()
    monkeypatch.setattr(journal_module, "Journal", lambda: journal)
    return journal.entries


@pytest.mark.parametrize("named", [["loud"], []])
def test_a_unit_that_logs_more_than_is_read_in_one_go(entries: list[tuple[str, str]], named: list[str]) -> None:
    source = journal_module.JournalSource(named, lambda unit: unit == "loud.service")
    lines = [f"line {number}" for number in range(3 * journal_module.AT_ONCE + 1)]
    entries += [("loud.service", line) for line in lines]
    found = []
    while True:
        found += [text for _, text in source.read()]
        if not source.behind:
            break
    assert found == [f"{line}\n".encode() for line in lines]


def test_what_a_unit_logs_before_its_start_is_told(entries: list[tuple[str, str]]) -> None:
    """Whatever others log meanwhile; what it had logged long before is not its start's."""
    touched: set[str] = set()
    source = journal_module.JournalSource([], touched.__contains__)
    entries.append(("app.service", "of before"))
    assert list(source.read()) == []
    time.sleep(1.1)
    entries += [("app.service", "first"), *[("noise.service", "noise")] * 5000]
    while list(source.read()) or source.behind:
        pass
    touched.add("app.service")
    assert list(source.read()) == [("journal:app.service", b"first\n")]


# how it is judged


@pytest.mark.parametrize("text", [b"the cache is cold", b"0 errors found", b"/var/log/error.log", b"ok"])
def test_the_priority_of_an_entry_is_judged_whatever_it_says(text: bytes) -> None:
    for priority, level in LEVELS.items():
        judge = Judge(RuleSet([builtin_pack("default")]))
        (issue, *_) = judge.feed("journal:app.service", level + text + b"\n")
        assert issue.type is (IssueType.WARNING if priority == b"4" else IssueType.ERROR)


def test_an_echo_is_told_once() -> None:
    shown = {"ERROR: shown"}
    echoes = Echoes(lambda line: line in shown)
    told, hidden = (Issue(IssueType.ERROR, "", "x", f"ERROR: {word}") for word in ("shown", "hidden"))
    echoes.add([told, hidden])
    assert echoes.ripe() == []
    assert echoes.deadline() is not None
    assert echoes.ripe(ended=True) == [hidden]
    assert echoes.deadline() is None


def test_the_log_of_apt_counts_where_apt_runs() -> None:
    term = "/var/log/apt/term.log"
    assert Judge(RuleSet([builtin_pack("apt")])).follows(term)
    assert not Judge(RuleSet([builtin_pack("default")])).follows(term)
    assert term in RuleSet.for_command(["./deploy.sh"]).logs
