"""What was seen, written and read again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapbreaker.foreign.facts import NAME, Facts, Origin
from snapbreaker.foreign.log import ForeignWrites, read
from snapbreaker.linux.process import boot_id, identify
from snapbreaker.writers import Inode

ONE, OTHER = Inode(1, 7), Inode(2, 7)
MAIL = Origin("/var/mail/a\n\udcff", 12, "smtpd", "postfix.service")


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Facts]:
    fd = os.open(tmp_path / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    noted = Facts(fd)
    noted.begin(watcher=identify(os.getpid()), boot=boot_id(), unwatched="")
    yield noted
    os.close(fd)


def ended(facts: Facts, record: Path) -> ForeignWrites:
    facts.end("", 3)
    writes = read(record)
    assert writes.complete
    assert writes.unjudged == 3
    return writes


def test_foreign_alone(facts: Facts, tmp_path: Path) -> None:
    facts.foreign(ONE, 5, MAIL)
    facts.run(OTHER, 5)
    writes = ended(facts, tmp_path)
    assert (writes.foreign_only, writes.shared) == ({ONE: MAIL}, {})


@pytest.mark.parametrize("generation", [5, None])
def test_shared(facts: Facts, tmp_path: Path, generation: int | None) -> None:
    facts.foreign(ONE, 5, MAIL)
    facts.run(ONE, generation)
    facts.run(OTHER, 5)
    facts.foreign(OTHER, generation, MAIL)
    facts.foreign(ONE, 5, MAIL)
    writes = ended(facts, tmp_path)
    assert (writes.foreign_only, writes.shared) == ({}, {ONE: MAIL, OTHER: MAIL})


def test_a_number_that_another_file_has_now(facts: Facts, tmp_path: Path) -> None:
    facts.foreign(ONE, 5, MAIL)
    facts.run(ONE, 6)
    facts.run(OTHER, 5)
    facts.foreign(OTHER, 6, MAIL)
    writes = ended(facts, tmp_path)
    assert (writes.foreign_only, writes.shared) == ({OTHER: MAIL}, {})


def test_a_busy_file_is_noted_once(facts: Facts, tmp_path: Path) -> None:
    facts.foreign(ONE, 5, MAIL)
    size = (tmp_path / NAME).stat().st_size
    for _ in range(10):
        facts.foreign(ONE, 5, MAIL)
        facts.run(OTHER, 5)
    assert (tmp_path / NAME).stat().st_size == size
    facts.foreign(ONE, 5, Origin("/renamed", 13, "mv", ""))
    assert ended(facts, tmp_path).foreign_only[ONE].path == "/renamed"


def test_another_boot(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"format": 1, "watcher": [1, 0], "boot": "another", "unwatched": ""}\n')
    writes = read(tmp_path, wait=0)
    assert not writes.complete
    assert "went down" in writes.reason
