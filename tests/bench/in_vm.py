"""Sides that are measured in a VM of user-mode Linux, each a shell script, and what both such benches do and say.

The processor time is what the VM's cgroup used on the machine (cgroup-v2.rst, cpu.stat): the VM's own clock ticks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.measure import Samples, Took, compared, run, table
from tests.bench.processes import Used, used
from tests.lab import bundle
from tests.lab.vm import Vm
from tests.vm.conftest import booted

CREATE, ROLLBACK = "snapbreaker checkpoint create", "snapbreaker rollback"
GOAL = 0.150  # seconds of the machine's processors, for each volume
KNOWN = ("snapbreaker", "--version")  # the same there and here: so much longer does everything take there
# On each volume "$@" FILES files are made, and a twentieth of them is replaced.
FILL = 'for top in "$@"; do (cd $top && seq $FILES | while read -r n; do echo before $n >$n; done) done'
CHANGE = (
    'for top in "$@"; do (cd $top && seq 1 20 $FILES | while read -r n; do echo $n >new; mv new $n; done) done'
)
DELETE = "snapbreaker -q checkpoint delete $(ls /var/lib/snapbreaker | grep ^0)"
NOTE = """\
The VM's kernel is an ordinary process: its system calls take several times as long as the machine's. snapbreaker's
times include its own start, and a second comparison of everything after the rollback, which `{bare}` does
without; that {price}.
"""


@dataclass(frozen=True, slots=True)
class Side:
    """``before`` and ``after`` are not measured."""

    script: str
    before: str = ""
    after: str = ""


@dataclass(slots=True)
class InVm:
    """``script`` finds the volumes in ``"$@"``. Raises LabError, AssertionError."""

    vm: Vm
    volumes: Sequence[str]
    files: int
    at_rest: Took = field(default_factory=lambda: Took(0, Used(0, 0)))
    idle: float = 0.0  # processors, when nothing runs

    def measured(self, prepare: str, sides: Mapping[str, Side], rounds: int) -> tuple[dict[str, Samples], float]:
        """Each side in turn, and how many times as long as on the machine everything takes. The VM is closed."""
        try:
            booted(self.vm)
            self.run(f"{prepare}\n{FILL}")
            self._look_at_rest()
            found = {name: Samples() for name in sides}
            for _ in range(rounds):
                for name, side in sides.items():
                    self.run(f"{side.before}\nsync")
                    found[name].add(self._took(side.script))
                    self.run(side.after or ":")
            known = statistics.median(sum(self._took(" ".join(KNOWN)).used) for _ in range(5))
        finally:
            self.vm.close()
        return found, known / statistics.median(_here() for _ in range(5))

    def run(self, script: str) -> None:
        words = ("sh", "-ec", f"FILES={self.files}\n{script}", "bench", *self.volumes)
        done = self.vm.run(*words, timeout=600)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"

    def _look_at_rest(self) -> None:
        before = self._used()
        time.sleep(2)
        self.idle = sum(self._used().since(before)) / 2
        empty = [self._took(":") for _ in range(5)]
        self.at_rest = Took(
            statistics.median(one.seconds for one in empty),
            Used(*(statistics.median(one.used[index] for one in empty) for index in range(2))),
        )

    def _took(self, script: str) -> Took:
        """Without what an empty script takes, and what the VM does when nothing runs, which is the kernel's."""
        before, started = self._used(), time.perf_counter()
        self.run(script)
        took, (user, system) = time.perf_counter() - started, self._used().since(before)
        own = Used(user - self.at_rest.used.user, system - self.at_rest.used.system - self.idle * took)
        return Took(took - self.at_rest.seconds, own)

    def _used(self) -> Used:
        assert self.vm.cgroup
        lines = (line.split() for line in (self.vm.cgroup / "cpu.stat").read_text().splitlines())
        found = {key: int(value) / 1e6 for key, value in lines}
        return Used(found["user_usec"], found["system_usec"])


def _here() -> float:
    before = used()
    run(bundle.path(), *KNOWN[1:])
    return sum(used().since(before))


def own_sides(volumes: Sequence[str]) -> dict[str, Side]:
    """snapbreaker's: on the first volume, and on all of them."""
    sides = {}
    for name, several in (("", volumes[:1]), (f", {len(volumes)} volumes", volumes)):
        scopes = "".join(f" --scope {path}" for path in several)
        sides[CREATE + name] = Side(f"snapbreaker -q checkpoint create{scopes}")
        back = "snapbreaker -q rollback --last --whole --force --yes"
        sides[ROLLBACK + name] = Side(back, CHANGE, DELETE)
    return sides


def tables(found: Mapping[str, Samples], scale: float, volumes: int, bare: Sequence[str]) -> str:
    """``bare`` are the sides of the bare tool: what a checkpoint is to it, and a rollback."""
    parts, rows = [], []
    for own, other in zip((CREATE, ROLLBACK), bare, strict=True):
        every = f"{own}, {volumes} volumes"
        parts.append(compared({name: found[name] for name in (own, other, every)}, [], {}))
        more = (_cpu(found[every]) - _cpu(found[own])) / (volumes - 1)
        besides = (more - _cpu(found[other])) / scale
        rows.append([f"{own}, one more volume", f"{more:.2f}", f"{besides * 1000:.0f} (goal: {GOAL * 1000:.0f})"])
    head = ["", "processor time in the VM, s", f"besides `{'`, `'.join(bare)}`, ÷ {scale:.1f}: ms"]
    return "\n\n".join([*parts, table(head, rows)])


def _cpu(samples: Samples) -> float:
    return samples.user + samples.system
