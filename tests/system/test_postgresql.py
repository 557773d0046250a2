"""A real database: installed and undone, and a migration that fails half-way while others are connected."""

from __future__ import annotations

import pytest

from tests import comparer
from tests.lab.machine import Machine
from tests.system.facts import facts, processes
from tests.system.test_apt import INSTALL
from tests.system.test_deploy import put

pytestmark = pytest.mark.slow

MIGRATION = """#!/bin/sh
cd /
su postgres -c "psql -qc 'create table half as select generate_series(1, 100000) n'"
su postgres -c "psql -qc 'delete from whole'"
echo 'ERROR: migration 42 failed'
sleep 60
"""
# The server goes on with what the client had asked for when that is dead already.
MIDWAY = """#!/bin/sh
cd /
su postgres -c "psql -qc 'create table half as select generate_series(1, 3000000) n'" &
sleep 0.$1
echo 'ERROR: migration 42 failed'
sleep 60
"""


def asked(machine: Machine, statement: str) -> str:
    result = machine.run("su", "postgres", "-c", f'psql -Atc "{statement}"', session=False)
    return result.stdout.strip() or result.stderr.strip()


def test_postgresql_comes_and_goes_without_a_trace(ext4_machine: Machine) -> None:
    machine = ext4_machine
    system, running, before = facts(machine), processes(machine), machine.snapshot()
    installed = machine.snapbreaker("run", *INSTALL, "postgresql", timeout=180)
    assert installed.returncode == 0, installed.stderr
    assert asked(machine, "select 6 * 7") == "42"
    back = machine.snapbreaker("rollback", "--last", "--yes", "--force", timeout=120)
    assert back.returncode == 0, back.stderr
    assert comparer.differences(before, machine.snapshot()) == []
    assert system.differences(facts(machine)) == {}
    assert processes(machine) == running


def test_a_failing_migration_is_undone_in_a_running_database(ext4_machine: Machine) -> None:
    """The server is stopped while its files go back, and has what it had before."""
    machine = ext4_machine
    install = ("apt-get", "install", "-qqy", "--no-install-recommends", "postgresql")
    assert machine.run("env", "DEBIAN_FRONTEND=noninteractive", *install, timeout=180).returncode == 0
    asked(machine, "create table whole as select generate_series(1, 1000) n")
    system = facts(machine)
    for script, *words in ((MIGRATION,), (MIDWAY, "1"), (MIDWAY, "4"), (MIDWAY, "8")):
        result = machine.snapbreaker("run", "--", put(machine, script), *words, timeout=180)
        assert result.returncode == 1, result.stderr
        assert "migration 42" in result.stderr
        assert asked(machine, "select count(*) from whole") == "1000"
        assert "does not exist" in asked(machine, "select count(*) from half")
        assert system.differences(facts(machine)) == {}
