"""What every tier shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import sessions


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_commands: a unit test that may start external programs")


@pytest.fixture(scope="session")
def lab() -> Iterator[Path]:
    """This session's own directory for images and mounts. One process has one, whatever tiers it runs."""
    directory = sessions.open_session()
    yield directory
    sessions.close_session(directory)
