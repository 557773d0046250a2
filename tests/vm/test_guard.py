"""The guard where the kernel asks before an open, not before truncate(2) (Linux 6.1): exact, or named, exit 3."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.lab import inplace, soak
from tests.lab.qemu import Qemu
from tests.lab.vm import Vm
from tests.vm.conftest import booted
from tests.vm.judge import listing

CHANGE = "/usr/local/lib/inplace.py"
FILL = 'mkdir "$1" && cd "$1" && shift && for name; do echo "as it was before: $name" >$name; done; sync'
LOG = "$(ls -t /.snapbreaker/*/0/guard.log | head -n 1)"
# What an attacker finds: the guard's pid in its log, the watchdog above it.
WHO = f"guard=$(sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p;q' {LOG}); dog=$(cut -d' ' -f4 /proc/$guard/stat); "
ATTACKS = {  # the first one in an ordinary run
    "guard killed": "kill -9 $guard; ",
    "guard stopped": "kill -STOP $guard; ",
    "watchdog killed, guard stopped": "kill -STOP $guard; kill -9 $dog; ",
    "watchdog stopped, guard killed": "kill -STOP $dog; kill -9 $guard; ",
}
DUMP = """echo core >/proc/sys/kernel/core_pattern; ulimit -c unlimited
python3 -c 'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)'
"""
LINKS = re.compile(r" \d+  \./")
_numbers = itertools.count(1)


@dataclass(slots=True)
class Scope:
    """A directory of the root, as it was."""

    vm: Vm
    path: str
    before: list[str]

    def run(self, script: str, timeout: float = 240) -> CompletedProcess[str]:
        """``snapbreaker run`` of a script that works in the scope and fails; slowly, on an emulated processor."""
        command = f"cd {self.path}; {script}"
        words = ("run", "--idle", "200", "--scope", self.path, "--", "sh", "-c", command)
        return self.vm.snapbreaker(*words, timeout=timeout)

    def assert_exact(self) -> None:
        assert listing(self.vm, self.path) == self.before

    def assert_exact_or_named(self, result: CompletedProcess[str]) -> None:
        """Exit 1 and all is as it was, or exit 3 and each file that is not is named, and one at least."""
        if result.returncode == 3:
            said = result.stdout + result.stderr
            if "is still alive" in said:  # named too: a starved processor may not get to kill them in 5 s
                return
            assert f"{self.path}/" in said.partition("Failed")[2], said
            unsaid = {name for name in self._changed() if f"{self.path}/{name}" not in said}
            assert not unsaid, said
        else:
            assert result.returncode == 1, result.stdout + result.stderr
            self.assert_exact()

    def _changed(self) -> set[str]:
        """Names. What could not be put back wholly keeps its vault, and so the links in it: they do not count."""
        now, before = (
            {LINKS.sub("  ./", line) for line in lines} for lines in (listing(self.vm, self.path), self.before)
        )
        return {line.rpartition("./")[2] for line in now ^ before}


@pytest.fixture(scope="module")
def machine(lab: Path) -> Iterator[Vm]:
    """One for all: it takes half a minute."""
    if reason := Qemu.missing():
        pytest.skip(reason)
    vm = Qemu.create(lab)
    try:
        booted(vm).put(Path(inplace.__file__), CHANGE)
        yield vm
    finally:
        vm.close()


@pytest.fixture
def scope(machine: Vm) -> Scope:
    return another(machine)


def another(machine: Vm) -> Scope:
    path = f"/srv/scope{next(_numbers)}"
    done = machine.run("sh", "-c", FILL, "fill", path, "victim", "other", "core", *inplace.WAYS)
    assert done.returncode == 0, done.stderr
    return Scope(machine, path, listing(machine, path))


def test_files_are_linked_and_guarded(scope: Scope) -> None:
    """What the tests below rely on, and the kernel is too old for FAN_PRE_ACCESS (6.14)."""
    assert scope.vm.run("uname", "-r").stdout.startswith("6.1.")
    result = scope.run("stat -c %h victim; false")
    assert (result.returncode, result.stdout) == (1, "2\n"), result.stderr
    scope.assert_exact()


def test_what_is_only_read_is_not_saved(scope: Scope) -> None:
    """On one processor the guard is asked before the reader sleeps, and must wait to see that it is one: on a busy
    machine it may wait too short a time, and saves some files more. Not all, and not each time.
    """
    saved: list[int] = []
    while len(saved) < 10 and not (saved and min(saved) <= 6):
        result = scope.run(f"cat * >/dev/null; grep -c inode {LOG}; false")
        assert result.returncode == 1, result.stderr
        saved.append(int(result.stdout))
    assert min(saved) <= 6, f"of a dozen files {saved}"


def test_every_way_to_write(scope: Scope) -> None:
    """openat2, io_uring, a 32-bit program, mappings …: each asks, and what it changes is put back."""
    script = " && ".join(f"python3 {CHANGE} {way} {scope.path}/{way}" for way in inplace.WAYS)
    result = scope.run(f"{script}; echo $?; false")
    assert (result.returncode, result.stdout) == (1, "0\n"), result.stderr
    scope.assert_exact()


def test_a_core_dump(machine: Vm) -> None:
    """On a starved processor a dump may outlast the wait for the killed: that is told, and another run is made."""
    for _ in range(3):
        scope = another(machine)
        result = scope.run(f"{DUMP}; false")
        if "is still alive" not in result.stderr:
            break
    assert result.returncode == 1, result.stdout + result.stderr
    scope.assert_exact()


@pytest.mark.parametrize(
    ("way", "earlier"),
    soak.cases(
        [("by_name", ""), ("by_name", "echo more >>victim; ")],
        [
            ("by_name", "cat victim; "),
            *(("down_and_up", each) for each in ("", "cat victim; ", "echo more >>victim; ")),
        ],
    ),
)
def test_cut_by_name(scope: Scope, way: str, earlier: str) -> None:
    """truncate(2) opens nothing. Its old content is gone, unless a writer before it had it saved."""
    result = scope.run(f"{earlier}python3 {CHANGE} {way} {scope.path}/victim; rm other; echo x >>core; false")
    scope.assert_exact_or_named(result)
    said = result.stdout + result.stderr
    # A read that could not be told from a write, on a busy processor, has saved it.
    expected = {"": {3}, "cat victim; ": {1, 3}}.get(earlier, {1})
    assert result.returncode in expected, said
    assert result.returncode == 1 or f"{scope.path}/victim" in said


@pytest.mark.parametrize("attack", ATTACKS if soak.IS_LONG else [*ATTACKS][:1])
def test_attacked_by_the_command(scope: Scope, attack: str) -> None:
    """Nobody waits for a dead guard, and a run without one is halted."""
    write = "printf new | dd of=victim conv=notrunc status=none; rm other; "
    result = scope.run(f"{WHO}{ATTACKS[attack]}{write}sleep 300", timeout=150)
    scope.assert_exact_or_named(result)
    assert scope.vm.run("cat", f"{scope.path}/victim", timeout=10).returncode == 0
