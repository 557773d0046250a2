"""Relays: in order, complete, and never waiting for a reader."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from snapbreaker.monitor.streams import LIMIT, Relay, Source


def test_reader_that_reads_nothing_yet(pipe: tuple[int, int]) -> None:
    read, write = pipe
    relay = Relay(write)
    data = os.urandom(LIMIT + 100_000)
    relay.output("stdout", data)
    assert relay.pending > 0
    assert relay.full is (relay.pending >= LIMIT)
    assert os.get_blocking(write)  # it is shared with others
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(read, 65536), b"")))
    reader.start()
    relay.finish(5)
    relay.close()
    os.close(write)
    reader.join(10)
    assert b"".join(got) == data
    assert relay.dropped == 0


def test_reader_that_never_reads_is_given_up(pipe: tuple[int, int]) -> None:
    relay = Relay(pipe[1])
    relay.output("stdout", bytes(200_000))
    waiting = relay.pending
    relay.finish(0.05)
    assert (relay.pending, relay.dropped) == (0, waiting)
    relay.close()


def test_reader_that_went_away(pipe: tuple[int, int]) -> None:
    relay = Relay(pipe[1])
    os.close(pipe[0])
    relay.output("stdout", b"one")
    relay.output("stdout", b"two")
    assert (relay.gone, relay.dropped) == (True, 6)
    relay.close()


def test_socket_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        relay = Relay(ours.fileno())
        relay.output("stdout", bytes(4 << 20))
        assert relay.pending > 0
        assert ours.getblocking()
        relay.close()


def test_regular_file_shares_its_position(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb", buffering=0) as file:
        file.write(b"head\n")
        relay = Relay(file.fileno(), encode=lambda source, data: source.encode() + b":" + data)
        relay.output("stdout", b"a\n")
        relay.put(b"raw\n")
        relay.close()
        file.write(b"tail\n")
    assert (tmp_path / "log").read_bytes() == b"head\nstdout:a\nraw\ntail\n"


def test_source_does_not_wait(pipe: tuple[int, int]) -> None:
    source = Source("stdout", pipe[0])
    assert (source.read(), source.ended) == (b"", False)
    os.write(pipe[1], b"x\xff\0")
    assert source.read() == b"x\xff\0"
    os.close(pipe[1])
    assert (source.read(), source.ended, source.octets) == (b"", True, 3)
