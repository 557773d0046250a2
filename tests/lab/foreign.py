"""A worker to be watched over: ``python -m tests.lab.foreign RECORD MOUNTPOINT…``.

It makes a process tree and a watcher as a run does, says what became of it in one line of JSON, and obeys lines of
JSON: a list is a command to run in the tree, a string is one of its own (``stop``). Each is answered by one line.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from snapbreaker.foreign import ancestry
from snapbreaker.foreign.watcher import Watch, Watcher
from snapbreaker.linux.process import identify
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.spawn import Stdio, resolve_command, spawn


class _NoForkEvents:
    """As in a container."""

    def __init__(self) -> None:
        raise PermissionError(errno.EPERM, "on request")


class Worker:
    def __init__(self, record: Path, mountpoints: list[str], use_cgroup: bool) -> None:
        self._tree = ProcessTree.create(f"foreign-{os.getpid()}", use_cgroup=use_cgroup)
        family = [found] if (found := identify(os.getppid())) and "FOREIGN_FAMILY" in os.environ else []
        ignored = [f"{path}/.snapbreaker" for path in mountpoints]
        began = time.monotonic()
        self._watcher = Watcher(reason="not asked for")
        if "FOREIGN_NONE" not in os.environ:
            if "FOREIGN_NO_FORKS" in os.environ:
                ancestry.ForkEvents = _NoForkEvents  # type: ignore[attr-defined,assignment]
            self._watcher = Watcher.start(Watch(record, mountpoints, ignored, family), self._tree)
        watcher = self._watcher
        answer(
            pid=watcher.pid,
            available=watcher.available,
            reason=watcher.reason,
            seconds=time.monotonic() - began,
            run_id=self._tree.run_id,
            cgroup=self._tree.cgroup.path if self._tree.cgroup else None,
            members=sorted(self._tree.members()),
        )

    def obey(self, order: Any) -> None:
        began = time.monotonic()
        if isinstance(order, list):
            status = self._run(order)
            answer(status=status, seconds=time.monotonic() - began)
        else:
            self._tree.kill()
            began = time.monotonic()
            stopped = self._watcher.stop()
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            answer(stopped=stopped, seconds=time.monotonic() - began, children=used.ru_utime + used.ru_stime)

    def _run(self, argv: list[str]) -> int:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        command = resolve_command(argv, os.environ, "/")
        pid = spawn(command, Stdio(null, null, null), self._tree, lambda _: None)
        os.close(null)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def close(self) -> None:
        self._tree.kill()
        self._watcher.stop()
        self._tree.remove()


def answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    worker = Worker(Path(sys.argv[1]), sys.argv[2:], "FOREIGN_NO_CGROUP" not in os.environ)
    try:
        for line in sys.stdin:
            worker.obey(json.loads(line))
    finally:
        worker.close()
