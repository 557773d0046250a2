"""Fixtures of the tier that works on machines with a kernel of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from _pytest.runner import runtestprotocol

from tests.lab.uml import Uml
from tests.lab.vm import Vm


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """That a VM died or hangs is no failed test: it is made once more, on machines of its own."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.failed and "LabError: " in report.longreprtext for report in reports):
        for report in reports:
            print(report.longreprtext)
        item.session._setupstate.teardown_exact(None)  # with what others share, the VM among it
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


class MakeVm(Protocol):
    def __call__(self, image: Path | None = ..., disks: list[Path] = ...) -> Vm: ...


@pytest.fixture
def make_vm(request: pytest.FixtureRequest) -> Iterator[MakeVm]:
    """A factory of VMs that are not booted and live as long as the test."""
    made: list[Vm] = []

    def make(image: Path | None = None, disks: list[Path] | None = None) -> Vm:
        if reason := Uml.missing():
            pytest.skip(reason)
        made.append(Uml.create(request.getfixturevalue("lab"), image, disks or []))
        return made[-1]

    yield make
    for vm in made:
        vm.close()


@pytest.fixture
def vm(make_vm: MakeVm) -> Vm:
    """A booted VM with snapbreaker, its root on ext4."""
    return booted(make_vm())


def booted(vm: Vm) -> Vm:
    state = vm.boot()
    assert state == "running", vm.run("systemctl", "list-units", "--failed").stdout
    vm.put_snapbreaker()
    return vm
