"""Records the corpus: runs the real tools and writes what they print. Run it in a throw-away Debian 12, as root.

    python3 record.py LIST OUTPUT [NAME…]

LIST holds scenarios: ``== FOLDER/NAME | COMMAND`` (without COMMAND the script itself is the command line), lines
that begin with ``+ `` prepare (not recorded), the others are the script that is recorded. Each scenario has an
empty directory of its own. NAME limits the recording to scenarios whose name begins so. Beside the logs an
``index.toml`` gets command, status and tool version; who calls a line the issue is a person, not this script.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

LIMIT = 150  # seconds a scenario may take
LONGEST = 400  # lines kept of a log: the tail of a longer one says nothing new
WORK = Path(os.environ.get("RECORD_WORK", "/srv/build"))
VENV = os.environ.get("RECORD_VENV", "/opt/v")  # with ansible, pytest and what else comes from PyPI
PATHS = f"{VENV}/bin:/usr/lib/postgresql/15/bin"
_HOST = r"https?://(?:[^/@\s]+@)?([\w-]+(?:\.[\w-]+)+(?::\d+)?)"
VERSIONS = {
    "ansible": "ansible --version",
    "apt": "apt-get --version",
    "autotools": "autoconf --version",
    "cargo": "cargo --version",
    "cmake": "cmake --version",
    "coreutils": "ls --version",
    "curl": "curl --version",
    "docker": "docker --version",
    "gcc": "gcc --version",
    "git": "git --version",
    "go": "go version",
    "gradle": "gradle --version",
    "java": "javac -version",
    "jest": "jest --version",
    "make": "make --version",
    "maven": "mvn --version",
    "mocha": "mocha --version",
    "mysql": "mysql --version",
    "npm": "npm --version",
    "php": "php --version",
    "pip": "pip --version",
    "pnpm": "pnpm --version",
    "postgres": "psql --version",
    "pytest": "pytest --version",
    "python": "python3 --version",
    "rsync": "rsync --version",
    "ruby": "ruby --version",
    "shell": "bash --version",
    "ssh": "ssh -V",
    "terraform": "terraform version",
    "web": "nginx -v",
    "wget": "wget --version",
    "yarn": "yarn --version",
}


@dataclass
class Scenario:
    name: str
    command: str
    setup: list[str] = field(default_factory=list)
    script: list[str] = field(default_factory=list)


def scenarios(text: str) -> list[Scenario]:
    found: list[Scenario] = []
    for line in text.splitlines():
        if line.startswith("== "):
            name, _, command = line[3:].partition("|")
            found.append(Scenario(name.strip(), command.strip()))
        elif line.startswith("+ "):
            found[-1].setup.append(line[2:])
        elif line.strip() and not line.startswith("## "):
            found[-1].script.append(line)
    return found


def scrubbed(data: bytes) -> bytes:
    """Without the names of registries, mirrors and proxies, and without paths of this machine; else unchanged."""
    text = data.decode("utf-8", "surrogateescape")
    for pattern, replacement in replacements(text):
        text = re.sub(pattern, replacement, text)
    return text.encode("utf-8", "surrogateescape")


def replacements(text: str) -> list[tuple[str, str]]:
    """The hosts of this machine's settings, and those of all URLs in ``text`` but its own and those made up."""
    hosts = set[str]()
    home = Path.home()
    settings = [
        Path("/etc/pip.conf"),
        home / ".config/pip/pip.conf",
        home / ".npmrc",
        Path("/etc/apt/sources.list"),
    ]
    for path in (*settings, *Path("/etc/apt/sources.list.d").glob("*")):
        if path.exists():
            hosts.update(re.findall(_HOST, path.read_text()))
    for said in (*os.environ.values(), text):
        hosts.update(re.findall(_HOST, said))
    named = [host for host in hosts if not re.match(r"localhost|127\.|.*\.(example|invalid|test)\b", host)]
    interpreter = re.escape(sys.base_prefix)
    return [
        *((rf"(?:[\w.%-]+(?::[^@/\s]+)?@)?{re.escape(host)}", "mirror.example.org") for host in named),
        (rf"{interpreter}|{re.escape(VENV)}|{re.escape(str(home))}/\.cargo", "/usr/local"),
        (re.escape(str(home)), "/home/deploy"),
    ]


def record(one: Scenario, output: Path) -> int:
    folder = WORK / one.name.split("/")[1]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    local = ("TF_CLI_CONFIG_FILE", "PIP_FIND_LINKS", "UV_FIND_LINKS")
    environment = {name: value for name, value in os.environ.items() if name not in local}
    environment |= {"PATH": f"{PATHS}:{os.environ['PATH']}", "TERM": "dumb"}
    environment["ANSIBLE_PYTHON_INTERPRETER"] = "/usr/bin/python3.11"
    os.makedirs("/run/lock", exist_ok=True)
    prelude = "set +e\n"
    subprocess.run(
        ["bash", "-c", prelude + "\n".join(one.setup)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=300,
    )
    log = output / f"{one.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-c", "\n".join(one.script)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
    lines = scrubbed(log.read_bytes()).splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:LONGEST]))
    return status


def version(folder: str) -> str:
    command = VERSIONS.get(folder)
    if not command:
        return ""
    environment = {**os.environ, "PATH": f"{PATHS}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    for line in (done.stdout + done.stderr).splitlines():
        if re.search(r"\d+\.\d+", line):
            return line.strip()[:60]
    return ""


def main() -> None:
    source, output, *names = sys.argv[1:]
    found = scenarios(Path(source).read_text())
    chosen = [one for one in found if not names or one.name.startswith(tuple(names))]
    versions = {folder: version(folder) for folder in {one.name.split("/")[0] for one in chosen}}
    with open(Path(output) / "recorded.toml", "a") as index:
        for one in chosen:
            try:
                status = record(one, Path(output))
            except subprocess.TimeoutExpired:
                print(one.name, "SETUP TIMEOUT", flush=True)
                continue
            command = one.command or "; ".join(one.script)
            facts = {"file": f"{one.name}.log", "command": command, "version": versions[one.name.split("/")[0]]}
            rows = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]
            index.write("[[log]]\n" + "\n".join(rows) + f"\nexit = {status}\n\n")
            index.flush()
            print(one.name, status, flush=True)


if __name__ == "__main__":
    main()
