"""What is followed beside the command's output: log files, units; and how it comes to the monitor."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import Unit
from snapbreaker.linux.systemd_signals import Changed, JobNew, JobRemoved, Signal, name_of
from snapbreaker.monitor.echoes import Echoes
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.packs import builtin_pack
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.output_log import INDEX, OutputLog, OutputReader, file_name, recorded
from snapbreaker.sources import journal as journal_module
from snapbreaker.sources import units as unit_module
from snapbreaker.sources.journal import LEVELS, unit_name
from snapbreaker.sources.lookout import Lookout, Sources
from snapbreaker.sources.messages import Kind, Message
from snapbreaker.sources.tail import AT_ONCE, CHUNK, Tail
from snapbreaker.sources.units import UnitWatch


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def follow(path: Path) -> Tail:
    return Tail(str(path), time.time() - 1)


def read(tail: Tail) -> bytes:
    return b"".join(tail.read())


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_only_what_is_written_from_now_on(log: Path) -> None:
    log.write_bytes(b"old\n")
    tail = follow(log)
    assert read(tail) == b""
    append(log, b"new\n")
    assert read(tail) == b"new\n"
    assert read(tail) == b""


def test_a_file_that_comes_later(log: Path) -> None:
    tail = follow(log)
    assert read(tail) == b""
    log.write_bytes(b"one\n")
    assert read(tail) == b"one\n"


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(log: Path) -> None:
    tail = follow(log)
    log.write_bytes(b"1\n")
    assert read(tail) == b"1\n"
    append(log, b"2\n")
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), b"3\n")
    log.write_bytes(b"4\n")
    assert read(tail) == b"2\n3\n4\n"
    append(log.with_suffix(".1"), b"late\n")  # the writer opens the new one when it is told to
    append(log, b"5\n")
    assert read(tail) == b"late\n5\n"


def test_many_rotations_keep_few_files_open(log: Path) -> None:
    tail = follow(log)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        log.write_bytes(b"%d\n" % number)
        assert read(tail) == b"%d\n" % number
        log.rename(log.with_suffix(f".{number}"))
    assert len(os.listdir("/proc/self/fd")) - before <= 5


@pytest.mark.parametrize("text", [b"a\n", b"another text that is longer than what was there\n"])
def test_a_truncated_file(log: Path, text: bytes) -> None:
    """Copytruncate. Also where it has grown beyond our place before we look."""
    tail = follow(log)
    append(log, b"first and second\n")
    assert read(tail) == b"first and second\n"
    os.truncate(log, 0)
    append(log, text)
    assert read(tail) == text


def test_a_file_of_before_that_is_truncated(log: Path) -> None:
    """And has grown beyond its old size before we look for the first time."""
    log.write_bytes(b"old\n" * 10)
    tail = follow(log)
    log.write_bytes(b"ERROR: first\n" + b"new\n" * 20)
    assert read(tail) == b"ERROR: first\n" + b"new\n" * 20


@pytest.mark.parametrize("behind", [1.5, 3600.0])
def test_a_new_file_whose_time_is_behind_our_clock(
    log: Path, monkeypatch: pytest.MonkeyPatch, behind: float
) -> None:
    """Coarse times (FAT), or the clock was set back since the run began."""
    began = time.time()
    tail = Tail(str(log), began)
    log.write_bytes(b"new\n")
    os.utime(log, (began - behind, began - behind))
    if behind > 2:
        monkeypatch.setattr(time, "time", lambda: began - behind)
    assert read(tail) == b"new\n"


def test_a_log_without_end_does_not_keep_us_from_the_rest(log: Path) -> None:
    """And what was rotated meanwhile is read all the same, each file in its turn."""
    tail = follow(log)
    log.write_bytes(b"1" * (AT_ONCE + CHUNK))
    first = read(tail)
    assert len(first) == AT_ONCE
    assert tail.behind
    log.rename(log.with_suffix(".1"))
    log.write_bytes(b"2\n")
    assert read(tail) == b"1" * CHUNK + b"2\n"
    assert not tail.behind


def test_what_was_written_before_and_is_moved_there_is_old(log: Path) -> None:
    other = log.with_name("other")
    other.write_bytes(b"ERROR: of last week\n")
    os.utime(other, (1, 1))
    tail = follow(log)
    other.rename(log)
    assert read(tail) == b""
    append(log, b"new\n")
    assert read(tail) == b"new\n"


def test_a_link_to_an_older_file_is_followed_from_where_that_ended(log: Path) -> None:
    """Whether it pointed there from the beginning or was set anew."""
    for number in (1, 2):
        log.with_name(f"{number}.log").write_bytes(b"ERROR: of last week\n")
    log.symlink_to("1.log")
    tail = follow(log)
    append(log, b"one\n")
    assert read(tail) == b"one\n"
    append(log.with_name("2.log"), b"two\n")
    log.unlink()
    log.symlink_to("2.log")
    assert read(tail) == b"two\n"
    append(log, b"three\n")
    append(log.with_name("1.log"), b"late\n")
    assert read(tail) == b"late\nthree\n"
    log.unlink()
    log.write_bytes(b"a file of its own\n")
    assert read(tail) == b"a file of its own\n"


def test_an_older_file_beside_it_that_takes_its_name(log: Path) -> None:
    other = log.with_name("other")
    other.write_bytes(b"ERROR: of last week\n")
    tail = follow(log)
    append(other, b"new\n")
    other.rename(log)
    assert read(tail) == b"new\n"


@pytest.mark.parametrize("size", [100, 70_000, 1 << 40])
def test_a_writer_that_keeps_its_place_in_a_file_that_was_truncated(log: Path, size: int) -> None:
    """Copytruncate of a file that is not open for appending: what was there is a hole."""
    with log.open("wb") as file:
        file.write(b"one\n")
        file.flush()
        tail = follow(log)
        file.truncate(size)
        file.seek(size)
        file.write(b"two\n")
        file.flush()
        assert read(tail) == b"two\n"
        file.truncate(0)
        file.write(b"three\n")
        file.flush()
        assert read(tail) == b"three\n"
        file.truncate(0)
        assert read(tail) == b""
        file.truncate(size)
        assert read(tail) == b""
        file.write(b"four\nfive\n")
        file.flush()
        assert read(tail) == b"four\nfive\n"


@pytest.mark.parametrize("kind", ["fifo", "directory", "dangling", "unreadable directory"])
def test_no_file_is_waited_for(log: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "directory":
        log.mkdir()
    elif kind == "dangling":
        log.symlink_to("nowhere")
    tail = Tail(str(log / "below" if kind == "unreadable directory" else log), time.time())
    assert read(tail) == b""


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


# units


class Manager:
    """PID 1 with what it says of units."""

    properties_of: ClassVar[dict[str, dict[str, Any]]] = {}
    known: ClassVar[dict[str, Unit]] = {}

    @classmethod
    def connect(cls) -> Manager:
        return cls()

    def units(self) -> dict[str, Unit]:
        return self.known

    def properties(self, name: str, kind: str = "Unit") -> dict[str, Any]:
        return self.properties_of.get(name, {})


class Told:
    fd = 0

    def __init__(self) -> None:
        self.signals: list[Signal] = []

    def read(self) -> list[Signal]:
        found, self.signals = self.signals, []
        return found


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **states: str) -> None:
        known = {}
        for name, state in states.items():
            active, _, sub = state.partition("/")
            unit = name.replace("_", ".")
            known[unit] = Unit(unit, "loaded", active, sub, "/")
        monkeypatch.setattr(Manager, "known", known)
        monkeypatch.setattr(Manager, "properties_of", {})
        monkeypatch.setattr(unit_module, "Manager", Manager)
        monkeypatch.setattr(unit_module, "Signals", Told)
        monkeypatch.setattr(unit_module, "SETTLE", 0.0)
        self.watch = UnitWatch()

    def verdicts(self, *signals: Signal) -> list[Issue | str]:
        self.watch._signals.signals += signals  # type: ignore[attr-defined]
        self.watch.hear()
        return self.watch.verdicts()


def to(state: str, unit: str = "app.service") -> Changed:
    active, _, sub = state.partition("/")
    return Changed(unit, "Unit", {"ActiveState": active, "SubState": sub})


def result(text: str, unit: str = "app.service") -> Changed:
    return Changed(unit, "Service", {"Result": text})


START, STARTED = JobNew(1, "app.service"), JobRemoved(1, "app.service", "done")
FAILED = (to("failed/failed"), result("exit-code"))


def test_one_that_the_run_starts_and_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    (issue,) = scene.verdicts(START, to("active/running"), STARTED, *FAILED)
    assert isinstance(issue, Issue)
    assert (issue.line, issue.source) == ("app.service: failed (exit-code)", "journal:app.service")
    assert scene.verdicts() == []  # told once
    assert scene.watch.touched("app.service")


def test_a_job_that_is_told_behind_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    before = time.monotonic()
    assert scene.verdicts(to("active/running"), START, STARTED) == []
    assert scene.watch.settled_at() >= before + unit_module.LINGER
    (issue,) = scene.verdicts(*FAILED)
    assert isinstance(issue, Issue)


def test_a_start_job_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    assert scene.verdicts(START, to("activating/start"), *FAILED) == []  # its job is not over
    (issue,) = scene.verdicts(JobRemoved(1, "app.service", "failed"))
    assert isinstance(issue, Issue)


def test_one_that_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is told first."""
    for signals in ((*FAILED, STARTED), (STARTED, *FAILED)):
        scene = Scene(monkeypatch, app_service="active/running")
        assert scene.verdicts(START, to("deactivating/stop-sigterm"), *signals) == []
        assert not scene.watch.touched("app.service")


def test_one_that_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, app_service="active/running")
    stop = (START, to("deactivating/stop-sigterm"), *FAILED)
    assert scene.verdicts(*stop, to("activating/start"), to("active/running"), STARTED) == []
    (issue,) = scene.verdicts(*FAILED)
    assert isinstance(issue, Issue)


def test_one_that_systemd_starts_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since before the run: no issue. Since the run: one, however often."""
    again = (JobNew(2, "app.service"), to("active/running"), JobRemoved(2, "app.service", "done"))
    # As systemd 252 tells it.
    failed = (result("exit-code"), to("failed/failed"), result("exit-code"), to("activating/auto-restart"))
    scene = Scene(monkeypatch, app_service="activating/auto-restart")
    for _ in range(3):
        assert [v for v in scene.verdicts(*again, *failed) if isinstance(v, Issue)] == []
    scene = Scene(monkeypatch)
    (issue,) = scene.verdicts(START, to("active/running"), STARTED, *failed, *again)
    assert isinstance(issue, Issue)
    assert scene.verdicts(*failed, *again) == []


def test_one_that_ends_well_and_is_started_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    ended = (result("success"), to("inactive/dead"), result("success"), to("activating/auto-restart"))
    assert scene.verdicts(START, to("active/running"), STARTED, *ended) == []
    assert scene.watch.settled_at() <= time.monotonic() + unit_module.LINGER


def test_one_of_a_timer_and_one_that_just_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, app_timer="active/waiting")
    monkeypatch.setattr(Manager, "properties_of", {"app.service": {"TriggeredBy": ["app.timer"]}})
    assert scene.verdicts(START, to("activating/start"), STARTED, *FAILED) == [
        "app.service failed; a timer or the like had started it"
    ]
    scene = Scene(monkeypatch, app_service="active/running")
    (text,) = scene.verdicts(*FAILED)
    assert text == "app.service, which ran before, failed during the run: exit-code"


def test_logins_and_connections_are_no_business_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch)
    for name in ("session-4.scope", "user@0.service", "dev-sda.device"):
        failed = (to("failed/failed", name), result("timeout", name))
        assert scene.verdicts(JobNew(1, name), *failed, JobRemoved(1, name, "failed")) == []


def test_names_of_units() -> None:
    assert name_of("/org/freedesktop/systemd1/unit/foo_2ebar_40x_2eservice") == "foo.bar@x.service"
    assert (unit_name("nginx"), unit_name("a.socket")) == ("nginx.service", "a.socket")
    assert (unit_name("app-1.2"), unit_name("app@v1.2")) == ("app-1.2.service", "app@v1.2.service")


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
