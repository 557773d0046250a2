"""A deploy that does to a tree everything that can be done to one, fails, and will not stop.

python3 -m tests.lab.hostile seed ROOT            make the tree as it is before
python3 -m tests.lab.hostile mutate ROOT          change it in every way, and end
python3 -m tests.lab.hostile deploy ROOT PIDS     the same, with a daemon that ignores every signal, an error
                                                  line, and no end; PIDS gets a line for each process
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from tests.lab import hostile_attributes, hostile_content, hostile_kinds, hostile_names, hostile_volumes

TOPICS = (hostile_names, hostile_kinds, hostile_attributes, hostile_content, hostile_volumes)
ERROR_LINE = "ERROR: migration 42 failed"


def seed(root: Path) -> None:
    """Fill the directory ``root``; ``root.parent`` gets an ``outside`` that no restore may touch."""
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"not in scope\n")
    root.mkdir()
    for topic in TOPICS:
        topic.seed(root)
    os.setxattr(root, "user.root", b"of the scope itself")
    os.utime(root, ns=(0, 1_234_567_890_123_456_789))


def mutate(root: Path) -> None:
    for topic in TOPICS:
        topic.mutate(root)
    root.chmod(0o700)
    os.chown(root, 12, 34)
    os.removexattr(root, "user.root")


def deploy(root: Path, pids: Path) -> None:
    """Never returns."""
    _note(pids)
    _start_daemon(root, pids)
    print("Applying migrations", flush=True)
    mutate(root)
    print(ERROR_LINE, flush=True)
    _go_on_writing(root, "after")


def processes(pids: Path) -> list[int]:
    """The pids of the processes of a deploy that are alive."""
    started = (line.split() for line in pids.read_text().splitlines())
    return [int(pid) for pid, when in started if _start_time(int(pid)) == when]


def _start_daemon(root: Path, pids: Path) -> None:
    """The classic double fork: no parent, no session, no terminal, deaf to every signal that can be ignored."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            _note(pids)
            try:
                _go_on_writing(root, "daemon")
            finally:
                os._exit(1)
        os._exit(0)
    os.wait()
    while len(pids.read_text().splitlines()) < 2:
        time.sleep(0.001)


def _go_on_writing(root: Path, name: str) -> None:
    for count in range(10**9):
        try:
            (root / f"{name}-{count % 50}").write_bytes(b"%d\n" % count)
            with (root / f"{name}.log").open("ab") as log:
                log.write(b"%d\n" % count)
        except OSError:
            pass  # the tree is being put back under it
        time.sleep(0.001)


def _note(pids: Path) -> None:
    with pids.open("a") as file:
        file.write(f"{os.getpid()} {_start_time(os.getpid())}\n")


def _start_time(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def main(arguments: list[str]) -> None:
    verb, root = arguments[0], Path(arguments[1])
    if verb == "seed":
        seed(root)
    elif verb == "mutate":
        mutate(root)
    elif verb == "deploy":
        deploy(root, Path(arguments[2]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
