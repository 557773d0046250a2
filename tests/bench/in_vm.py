"""Sides that are measured in a VM, where a script runs them and prints what each took."""

from __future__ import annotations

import json

from tests.bench.measure import Samples, Took
from tests.bench.processes import Used
from tests.lab.errors import LabError
from tests.lab.vm import Vm
from tests.vm.conftest import booted

# Of such a script: ``took(run(…), …)`` is one round of a side, in seconds by the clock and of the processors.
PRELUDE = r"""
import json, os, subprocess, sys, time
def run(*argv):
    started = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", 1, 0)])
    _, status, used = os.wait4(pid, 0)
    if status:
        sys.exit(f"{argv} ended with {status}")
    return time.perf_counter() - started, used.ru_utime, used.ru_stime
def took(*runs):
    return [sum(one[index] for one in runs) for index in range(3)]
def checkpoints():
    return [name for name in os.listdir("/var/lib/snapbreaker") if name[0] == "0"]
"""


def measured(vm: Vm, script: str, *arguments: object) -> dict[str, Samples]:
    """By the names of the sides, as the script prints them. The VM is gone afterwards. Raises LabError."""
    try:
        booted(vm)
        done = vm.run("python3", "-c", PRELUDE + script, *map(str, arguments), timeout=1200)
        if done.returncode:
            raise LabError(done.stderr)
    finally:
        vm.close()
    return {name: _samples(rounds) for name, rounds in json.loads(done.stdout.splitlines()[-1]).items()}


def _samples(rounds: list[list[float]]) -> Samples:
    samples = Samples()
    for seconds, user, system in rounds:
        samples.add(Took(seconds, Used(user, system)))
    return samples
