"""Fixtures of the tier that works on whole machines: a booted Debian, on each filesystem."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.lab import loopfs, soak
from tests.lab.machine import Machine


class MakeMachine(Protocol):
    def __call__(self, fstype: str, name: str = ...) -> Machine: ...


@pytest.fixture
def make_machine(request: pytest.FixtureRequest) -> Iterator[MakeMachine]:
    """A factory of machines that are not booted and live as long as the test: ``make_machine("xfs").boot()``."""
    made: list[Machine] = []

    def make(fstype: str, name: str = "") -> Machine:
        if reason := Machine.missing(fstype):
            pytest.skip(reason)
        made.append(Machine.create(fstype, request.getfixturevalue("lab"), name))
        return made[-1]

    yield make
    left = [user for machine in reversed(made) for user in machine.close()]
    assert not left, f"processes outside of the machine used its root: {left}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``machine`` is one on each filesystem in a long run; else the tests take turns with them."""
    if "machine" in metafunc.fixturenames and not hasattr(metafunc.module, "machine"):  # which has one of its own
        turn = zlib.crc32(metafunc.function.__name__.encode()) % len(loopfs.FSTYPES)
        fstypes = loopfs.FSTYPES if soak.IS_LONG else loopfs.FSTYPES[turn : turn + 1]
        metafunc.parametrize("machine", fstypes, indirect=True)


@pytest.fixture
def machine(request: pytest.FixtureRequest, make_machine: MakeMachine) -> Machine:
    """A booted machine, on several filesystems."""
    return booted(make_machine(request.param))


@pytest.fixture
def ext4_machine(make_machine: MakeMachine) -> Machine:
    """A booted machine, for what does not depend on the filesystem."""
    return booted(make_machine("ext4"))


@pytest.fixture
def btrfs_machine(make_machine: MakeMachine) -> Machine:
    return booted(make_machine("btrfs"))


@pytest.fixture
def xfs_machine(make_machine: MakeMachine) -> Machine:
    return booted(make_machine("xfs"))


def booted(machine: Machine) -> Machine:
    state = machine.boot()
    assert state == "running", machine.run("systemctl", "list-units", "--failed", session=False).stdout
    return machine
