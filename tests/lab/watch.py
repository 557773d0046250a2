"""A process of its own that watches one command: ``python -m tests.lab.watch RESULT OPTIONS``.

OPTIONS is a JSON object: the fields of RunSpec and ``use_cgroup``. How it went is written to RESULT as JSON; its
standard streams are those of the run.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.monitor import Monitor
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.monitor.watched import RunSpec, Watched

RULES = """
[[rule]]
name = "error"
type = "ERROR"
pattern = "ERROR"
literals = ["error"]
reason = "the line reports an error"
"""

FAULT = "an output that the sink fails at"


class Sink:
    def output(self, source: str, data: bytes) -> None:
        if FAULT.encode() in data:
            raise ZeroDivisionError("on request")


def watch(options: dict[str, Any]) -> dict[str, Any]:
    tree = ProcessTree.create(f"test-{os.getpid()}", use_cgroup=options.pop("use_cgroup", True))
    spec = RunSpec(**{"cwd": "/", "env": dict(os.environ), **options})
    judge = Judge(RuleSet([parse_pack(RULES, "test", "test")]))
    try:
        watched = Monitor(spec, judge, tree, [Sink()], on_started=lambda pid: _write_pid(tree)).run()
        return {**_plain(watched), "survivors": sorted(tree.members())}
    except ZeroDivisionError as error:
        return {"error": str(error), "survivors": sorted(tree.members())}
    finally:
        tree.kill()
        assert tree.remove()


def _write_pid(tree: ProcessTree) -> None:
    """Told before the command executes, so that a test can look at the run from outside."""
    with open(sys.argv[1] + ".tree", "w", encoding="ascii") as file:
        json.dump(tree.describe(), file)


def _plain(watched: Watched) -> dict[str, Any]:
    return {
        "issue": watched.issue.as_dict() if watched.issue else None,
        "issues": [issue.as_dict() for issue in watched.issues],
        "status": watched.status,
        "signal": watched.signal,
        "before": [line.text for line in watched.before],
        "after": [line.text for line in watched.after],
        "frozen": watched.freeze.frozen if watched.freeze else None,
        "killed": watched.kill.killed if watched.kill else None,
        "octets": watched.octets,
        "lines": watched.lines,
        "dropped": watched.dropped,
        "warnings": watched.warnings,
        "doing": [asdict(one) for one in watched.doing],
        "left": [comm for _, comm in watched.left],
        "reaction": watched.reaction_seconds,
        "dead": watched.dead_seconds,
        "seconds": watched.ended - watched.started,
    }


if __name__ == "__main__":
    try:
        result = watch(json.loads(sys.argv[2]))
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error)}
    with open(sys.argv[1] + ".new", "w", encoding="ascii") as file:
        json.dump(result, file)
    os.rename(sys.argv[1] + ".new", sys.argv[1])
