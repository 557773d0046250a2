"""What is read from /proc, and the clocks."""

from __future__ import annotations

import os

from snapbreaker.linux.process import (
    Identity,
    children_of,
    has_environment,
    identify,
    is_alive,
    parse_stat,
    process,
    processes,
)
from snapbreaker.monitor.cgroup import Hierarchy
from snapbreaker.monitor.timers import Clocks

REST = b" 1 20 30 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 777 0 0"


def test_names_may_look_like_fields() -> None:
    found = parse_stat(b"42 (a) R 1\n(b\xff) S" + REST)
    assert (found.pid, found.comm, found.state) == (42, "a) R 1\n(b\ufffd", "S")
    assert (found.parent, found.group, found.session) == (1, 20, 30)
    assert (found.threads, found.identity) == (3, Identity(42, 777))


def test_a_leader_that_ended_before_its_threads_is_alive() -> None:
    assert not parse_stat(b"42 (x) Z" + REST).dead
    assert parse_stat(b"42 (x) Z" + REST.replace(b" 3 0 777", b" 1 0 777")).dead


def test_this_process() -> None:
    me = process(os.getpid())
    assert me
    assert me.parent == os.getppid()
    assert processes()[me.pid].start == me.start
    assert is_alive(me.identity)
    assert not is_alive(Identity(me.pid, me.start + 1))
    assert me.pid in children_of(me.parent)
    assert identify(1 << 30) is None


def test_environment_is_compared_whole() -> None:
    name, value = next((name, value) for name, value in os.environ.items() if len(value) > 2)
    assert has_environment(os.getpid(), f"{name}={value}".encode())
    assert not has_environment(os.getpid(), f"{name}={value[:-1]}".encode())
    assert not has_environment(1 << 30, b"A=b")


def test_cgroup_directories() -> None:
    whole = Hierarchy("/sys/fs/cgroup/unified", "/")
    assert whole.directory("/") == "/sys/fs/cgroup/unified"
    assert whole.directory("/user.slice/a.scope") == "/sys/fs/cgroup/unified/user.slice/a.scope"
    assert whole.directory("/../other") is None
    part = Hierarchy("/sys/fs/cgroup", "/docker/x")
    assert part.directory("/docker/x") == "/sys/fs/cgroup"
    assert part.directory("/docker/x/y") == "/sys/fs/cgroup/y"
    assert part.directory("/docker/xy") is None


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_clocks() -> None:
    now = Time()
    clocks = Clocks(30, 100, clock=now)
    assert clocks.deadline() == 130
    now.now = 129
    clocks.touch()
    now.now = 158
    assert not clocks.silent()
    now.now = 159
    assert clocks.silent()
    assert not clocks.over()
    now.now = 200
    assert clocks.over()
    clocks.stop_timeout()
    assert not clocks.over()


def test_clocks_stand_still_while_stopped() -> None:
    now = Time()
    clocks = Clocks(30, 40, clock=now)
    now.now = 120
    clocks.pause()
    now.now = 1000
    assert clocks.deadline() is None
    assert not clocks.silent()
    assert not clocks.over()
    clocks.resume()
    assert clocks.deadline() == 1010
    clocks.resume()
    assert clocks.deadline() == 1010


def test_no_clocks() -> None:
    assert Clocks(0, None).deadline() is None
