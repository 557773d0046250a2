"""Our own readers: gone, stopped, slow; and lines of other sources between the command's."""

from __future__ import annotations

import os
import select
import signal
import termios
import time
from collections.abc import Iterator

import pytest

from snapbreaker.monitor.relays import Relays
from snapbreaker.monitor.streams import LIMIT, Relay
from snapbreaker.voice import Voice


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


def polled(relays: Relays) -> dict[int, int]:
    poll = select.poll()
    for fd, events in relays.wanted():
        poll.register(fd, events)
    return dict(poll.poll(5000))


def test_a_closed_pipe_is_noticed_without_writing(pipe: tuple[int, int]) -> None:
    relays = Relays({"stdout": Relay(pipe[1])}, 30)
    os.close(pipe[0])
    assert relays.on_ready(polled(relays)) == [signal.SIGPIPE]
    assert relays.on_ready({}) == []  # told once
    assert list(relays.wanted()) == []
    relays.output("stdout", b"x")
    assert relays.dropped() == {"stdout": 1}


def test_a_terminal_that_hangs_up() -> None:
    master, slave = os.openpty()
    relays = Relays({"stdout": Relay(slave)}, 30)
    os.close(master)
    assert relays.on_ready(polled(relays)) == [signal.SIGHUP]
    os.close(slave)


def test_a_stopped_terminal_holds_up_nobody_for_ever() -> None:
    """Ctrl-S."""
    master, slave = os.openpty()
    relays = Relays({"pty": Relay(slave)}, 0.05)
    termios.tcflow(slave, termios.TCOOFF)
    while not relays.holds_back("pty"):
        relays.output("pty", b"x" * 4096)
    deadline = relays.deadline(ended=False)
    assert deadline is not None
    time.sleep(max(0.0, deadline - time.monotonic()) + 0.01)
    assert relays.detach_stalled(ended=False)
    assert not relays.holds_back("pty")
    assert not relays.pending
    assert relays.dropped()["pty"] >= LIMIT
    os.close(master)
    os.close(slave)


def test_a_slow_reader_is_not_given_up(pipe: tuple[int, int]) -> None:
    relays = Relays({"stdout": Relay(pipe[1])}, 60)
    relays.output("stdout", bytes(2 * LIMIT))
    assert relays.holds_back("stdout")
    assert not relays.detach_stalled(ended=True)


def test_an_event_that_was_begun_is_written_to_its_end(pipe: tuple[int, int]) -> None:
    """Or the next one would be no line of its own."""
    relay = Relay(pipe[1], lambda source, data: data)
    relay.output("stdout", b"a" * 100_000 + b"\n")
    relay.output("stdout", b"b" * 100_000 + b"\n")
    relay.detach()
    relay.output("stdout", b"c\n")
    relay.put(b"finished\n")
    got = b""
    while not got.endswith(b"finished\n"):
        got += os.read(pipe[0], 65536)
        relay.flush()
    assert got == b"a" * 100_000 + b"\nfinished\n"


def test_lines_of_other_sources_are_lines_of_their_own(pipe: tuple[int, int]) -> None:
    relay = Relay(pipe[1])
    relays = Relays({"stdout": relay, "stderr": relay}, 30)
    relays.output("stdout", b"no line feed yet")
    relays.tell("/var/log/app.log", b"one\ntw")
    relays.tell("/var/log/app.log", b"o\x1b[31m\nrest")
    relays.output("stdout", b"next\n")
    relay.finish(1)
    assert os.read(pipe[0], 4096) == (
        b"no line feed yet\r\n[/var/log/app.log] one\r\n[/var/log/app.log] two\\x1b[31m\r\nnext\n"
    )


def test_our_own_words_wait_for_nobody_without_end(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], True)
    with open(pipe[1], "w", encoding="utf-8", closefd=False) as stream:
        voice = Voice(stream, patience=0.05)
        for _ in range(3):
            voice.write("x" * 200_000)
        assert os.read(pipe[0], 100) == b"x" * 100
        os.close(pipe[0])
        voice.write("nobody reads")
