"""What every tier shares."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import sessions

CLONE_NEWNS = 0x20000  # <linux/sched.h>


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_commands: a unit test that may start external programs")
    if hasattr(config, "workerinput") and os.geteuid() == 0:
        _leave_mounts()


def _leave_mounts() -> None:
    """A worker sees no mounts of the others: to `recover` every filesystem that is mounted is of its machine."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) == 0:  # of this thread, which runs the tests
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Path]:
    """This session's own directory for images and mounts. One process has one, whatever tiers it runs."""
    directory = sessions.open_session()
    yield directory
    sessions.close_session(directory)
