"""The guard that keeps external programs out of unit tests."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from tests.unit import conftest


def test_a_program_is_refused_even_where_exceptions_are_swallowed() -> None:
    with pytest.raises(conftest.RealCommand, match="real_commands"), contextlib.suppress(Exception):
        subprocess.run(["true"])
    conftest._guard.seen.clear()


@pytest.mark.real_commands
def test_the_mark_allows_it() -> None:
    assert subprocess.run(["true"]).returncode == 0


def test_a_fork_alone_is_fine() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
