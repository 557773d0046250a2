"""Every kind of event follows its schema, and output survives byte for byte."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapbreaker.doing import Doing
from snapbreaker.errors import CheckpointError
from snapbreaker.issue import Issue, IssueType
from snapbreaker.report import events, schema
from snapbreaker.report.event_writer import EventWriter, incomplete_tail, write_all

ISSUE = Issue(IssueType.EXIT, "ended with 2", "exit", "E: b\ufffdd", "stderr", 3, 1.5, 0, 2)
DOING = Doing(4711, 1, 0, "cat \udcff", "S", "pipe_read", "input from pipe:[1]")
EXAMPLES = (
    events.Start("run", ["a\udcff", "b"], "/srv", "web1", "ann", "note"),
    events.Checkpoint(0.3, [events.VolumeCreated("/srv", "btrfs", 0.1, 0, 0.0)], "/var/lib/snapbreaker/7"),
    events.Running(4711),
    events.Output("stdout", text="hello\n"),
    events.Output("stderr", base64="/w=="),
    events.IssueFound.of(ISSUE, [DOING]),
    events.IssueFound.of(Issue(IssueType.TIMEOUT, "no output for 30 s", "idle"), [DOING]),
    events.Halted(0.0009, True, 7, [12]),
    events.Restoring(["/srv"]),
    events.Restored(214, 0.8, 0, "/srv/.snapbreaker/7/restore.1"),
    events.Reconciled({"nginx.service": "restarted: /etc/nginx/nginx.conf went back"}, 0.2),
    events.ForeignWrite("/var/mail/bob", "written by exim4 (pid 7, exim4.service) meanwhile; stays"),
    events.Verified(1, 2.5, {"paths": 168_000}, ["/srv/a: content"]),
    events.Committed(12, 3, 1, 3_100_000),
    events.Progress("restore", 1000, 5000),
    events.Difference("M", "/etc/a", ["content", "mode"], "size 2 instead of 1", 1, 2, "@@ -1 +1 @@\n-\n+a\n"),
    events.DirectoryStat("/etc", 1, 2, 3, 4000, 5000),
    events.Hint("pip says more with -v"),
    events.Warned("the clock was set back"),
    events.ErrorRaised.of(CheckpointError("no space", "free some")),
    events.Finished(3, "failed", "/var/lib/snapbreaker/7/report.json"),
)


class Pipe:
    """A pipe whose reader collects everything in a thread."""

    def __init__(self) -> None:
        self._reader, self.fd = os.pipe()
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def _collect(self) -> None:
        while part := os.read(self._reader, 65536):
            self._parts.append(part)

    def objects(self) -> list[dict[str, Any]]:
        self.close()
        return [json.loads(line) for line in b"".join(self._parts).split(b"\n")[:-1]]

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self._thread.join()
            os.close(self._reader)
            self.fd = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def joined(objects: list[dict[str, Any]], source: str) -> bytes:
    pieces = [o for o in objects if o["event"] == "output" and o["source"] == source]
    return b"".join(o["text"].encode() if "text" in o else base64.b64decode(o["base64"]) for o in pieces)


def test_there_is_an_example_of_every_kind() -> None:
    assert {type(example) for example in EXAMPLES} == set(events.KINDS)
    assert len(schema.BY_NAME) == len(events.KINDS)
    assert {kind.event for kind in events.Event.__subclasses__()} == set(schema.BY_NAME)


def test_every_kind_follows_its_schema(pipe: Pipe) -> None:
    writer = EventWriter(pipe.fd, "000007-20261123T170000")
    for one in EXAMPLES:
        writer.write(one)
    written = pipe.objects()
    assert [schema.problems(data) for data in written] == [[]] * len(EXAMPLES)
    assert [data["event"] for data in written] == [example.event for example in EXAMPLES]
    assert {data["id"] for data in written} == {"000007-20261123T170000"}
    assert written[0]["command"] == ["a\udcff", "b"]


def test_no_field_hides_one_of_the_envelope() -> None:
    for kind in events.KINDS:
        assert not {item.name for item in fields(kind)} & set(schema.ENVELOPE)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "not an object"),
        ({"event": "odd"}, "unknown event"),
        ({"event": "running", "time": 1.0, "id": ""}, "pid: missing"),
        ({"event": "running", "time": 1.0, "id": "", "pid": True}, "pid: True is not integer"),
        ({"event": "running", "time": "1", "id": "", "pid": 1}, "time: '1' is not number"),
        ({"event": "running", "time": 1, "id": "", "pid": 1, "odd": 1}, "odd: unknown field"),
        ({"event": "restoring", "time": 1, "id": "", "volumes": [1]}, r"volumes\[\]: 1 is not string"),
        (
            {"event": "checkpoint", "time": 1, "id": "", "seconds": 1, "volumes": [{}], "record": ""},
            r"volumes\[\]\.root: missing",
        ),
        ({"event": "output", "time": 1, "id": "", "source": "x", "text": 1}, "text: 1 is not string or null"),
    ],
)
def test_the_validator_finds_what_is_wrong(data: Any, problem: str) -> None:
    assert any(re.search(problem, text) for text in schema.problems(data))


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=12)), max_size=20))
def test_output_is_byte_exact_however_it_is_cut(pieces: list[tuple[str, bytes]]) -> None:
    pipe = Pipe()
    writer = EventWriter(pipe.fd)
    for source, data in pieces:
        writer.output(source, data)
    writer.write(events.Finished(0, "success"))
    objects = pipe.objects()
    for source in ("stdout", "stderr"):
        assert joined(objects, source) == b"".join(data for name, data in pieces if name == source)
    assert all(not schema.problems(data) for data in objects)


@given(st.text(min_size=1, max_size=20), st.data())
def test_utf8_stays_text_wherever_it_is_cut(text: str, draw: st.DataObject) -> None:
    data = text.encode()
    cut = draw.draw(st.integers(0, len(data)))
    pipe = Pipe()
    writer = EventWriter(pipe.fd)
    writer.output("stdout", data[:cut])
    writer.output("stdout", data[cut:])
    writer.write(events.Running(1))
    objects = pipe.objects()
    assert not any("base64" in data for data in objects)
    assert joined(objects, "stdout") == data


@given(st.binary(max_size=8))
@example(b"\xed\xa0")
def test_a_tail_is_incomplete_exactly_when_more_could_make_it_a_character(data: bytes) -> None:
    tail = incomplete_tail(data)
    assert 0 <= tail <= 3
    if tail:
        lead = data[-tail]
        length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        ends = (bytes([a] + [0x80] * (length - tail - 1)) for a in (0x80, 0x90, 0xA0, 0xBF))
        assert any(_decodes(data[-tail:] + end) for end in ends)


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def test_the_end_of_output_is_not_held_back(pipe: Pipe) -> None:
    writer = EventWriter(pipe.fd)
    writer.output("stdout", b"abc\xe2\x82")
    writer.write(events.Finished(0, "success"))
    assert [data["event"] for data in pipe.objects()] == ["output", "output", "finished"]


def test_each_line_is_one_write(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real: Callable[[int, Any], int] = os.write

    def counted(fd: int, data: Any) -> int:
        sizes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", counted)
    EventWriter(pipe.fd).output("stdout", b"\x00x" * 200_000)
    assert len(sizes) == 1
    assert joined(pipe.objects(), "stdout") == b"\x00x" * 200_000


def test_threads_do_not_mix_their_lines(pipe: Pipe) -> None:
    writer = EventWriter(pipe.fd)

    def work(source: str) -> None:
        for _ in range(50):
            writer.output(source, source.encode() * 5000)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    objects = pipe.objects()
    assert len(objects) == 200
    assert joined(objects, "c") == b"c" * 250_000


def test_a_reader_that_is_gone_does_not_end_the_run() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    writer = EventWriter(fd)
    writer.write(events.Running(1))
    writer.output("stdout", b"x")
    os.close(fd)
    assert writer.broken is not None
    assert writer.broken.errno == errno.EPIPE


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    reader, fd = os.pipe()
    os.set_blocking(fd, False)
    data = os.urandom(1_000_000)
    thread = threading.Thread(target=write_all, args=(fd, data))
    thread.start()
    received = b""
    while len(received) < len(data):
        received += os.read(reader, 65536)
    thread.join()
    os.close(fd)
    os.close(reader)
    assert received == data


def test_the_page_names_every_kind_and_field() -> None:
    page = schema.events_page()
    for kind in events.KINDS:
        section = page.partition(f"## `{kind.event}`\n")[2].partition("\n## ")[0]
        assert all(f"| `{item.name}` |" in section for item in schema.fields_of(kind))


@pytest.mark.real_commands
def test_the_generated_pages_are_up_to_date() -> None:
    script = Path(schema.__file__).parents[2] / "scripts" / "docs"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
