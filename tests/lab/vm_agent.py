"""Runs in a VM (``tests/lab/vm.py``), as root, with the host's directory for it as the argument.

The host writes ``N.request`` (JSON: argv, env, cwd) and perhaps ``N.stdin``; its output goes to ``N.stdout`` and
``N.stderr``, and when it has ended, ``N.status`` holds its exit code. ``N.kill`` kills it and all that it started.
Each file appears by a rename, whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup/lab")  # beside systemd's own slices
ENTER = 'echo 0 >"$1" && shift && exec "$@"'
PAUSE = 0.02  # seconds


@dataclass(slots=True)
class Running:
    process: subprocess.Popen[bytes]
    cgroup: Path
    outputs: tuple[int, int]


def start(share: Path, number: str) -> Running:
    request = json.loads((share / f"{number}.request").read_text())
    os.unlink(share / f"{number}.request")
    cgroup = CGROUPS / number
    cgroup.mkdir()
    stdin = share / f"{number}.stdin"
    outputs = tuple(os.open(share / f"{number}.{name}", os.O_WRONLY | os.O_CREAT) for name in ("stdout", "stderr"))
    process = subprocess.Popen(
        ["sh", "-c", ENTER, "enter", cgroup / "cgroup.procs", *request["argv"]],
        stdin=stdin.open("rb") if stdin.exists() else subprocess.DEVNULL,
        stdout=outputs[0],
        stderr=outputs[1],
        env=request["env"],
        cwd=request["cwd"],
        start_new_session=True,
    )
    return Running(process, cgroup, (outputs[0], outputs[1]))


def end(share: Path, number: str, command: Running) -> None:
    for output in command.outputs:
        os.fsync(output)  # the host sees what is written back
        os.close(output)
    with contextlib.suppress(OSError):  # a daemon that it left stays
        command.cgroup.rmdir()
    publish(share / f"{number}.status", str(command.process.returncode))


def publish(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def serve(share: Path) -> None:
    commands: dict[str, Running] = {}
    while True:
        for name in sorted(os.listdir(share)):
            number, _, kind = name.partition(".")
            if kind == "request":
                commands[number] = start(share, number)
            elif kind == "kill":
                os.unlink(share / name)
                if number in commands:
                    (commands[number].cgroup / "cgroup.kill").write_text("1")
        for number, command in list(commands.items()):
            if command.process.poll() is not None:
                end(share, number, commands.pop(number))
        time.sleep(PAUSE)


def main() -> None:
    share = Path(sys.argv[1])
    CGROUPS.mkdir(exist_ok=True)
    argv = ["systemctl", "is-system-running", "--wait"]
    state = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()
    publish(share / "up", state)
    serve(share)


if __name__ == "__main__":
    main()
