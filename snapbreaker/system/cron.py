"""What cron(8) runs for whoever has written it a line: crontab(5), and the scripts of run-parts(8).

A job says nowhere whose it is: its environment is cron's own, its parents are cron and its unit is cron's. What it
executes tells: a line, or a script, that was not there when the checkpoint was made.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress

from snapbreaker.linux.process import Identity, Process, cgroup_of, command_line, process, processes
from snapbreaker.system.owners import unit_in

DAEMONS = ("cron", "crond")  # Debian's cron(8), and cronie's; the child that waits for a job has the same name
SYSTEM = ("/etc/crontab", "/etc/cron.d")  # their lines name a user
USERS = ("/var/spool/cron/crontabs", "/var/spool/cron")
SCRIPTS = ("/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly")
_LARGEST = 1 << 20  # octets of a crontab that are read
_SETTING = re.compile(r"""\s*(["']?)[^\s"'=]+\1\s*=""")
_FIELDS = re.compile(r"\s*(?:@\S+|(?:\S+\s+){4}\S+)\s+(.*\S)")
_PERCENT = re.compile(r"(?<!\\)%")
_REMEMBERED = 4096
_TICK = os.sysconf("SC_CLK_TCK")

Lines = dict[str, str]  # a command, or a script's path: the file that it is from


def read() -> Lines:
    """All that cron would run. A file that cannot be read counts as none."""
    found: Lines = {}
    for paths, names_user in ((SYSTEM, True), (USERS, False)):
        for path in _files(paths):
            for command in _commands(_text(path), names_user):
                found.setdefault(command, path)
    found.update((path, path) for path in _files(SCRIPTS))
    return found


def added(before: Mapping[str, str], now: Mapping[str, str]) -> Lines:
    """What cron would not have run before."""
    return {command: path for command, path in now.items() if command not in before}


def jobs(lines: Mapping[str, str], before: Iterable[str], since: float) -> dict[int, str]:
    """Processes of jobs that cron has begun since CLOCK_MONOTONIC ``since``: the pid, and the file of its line.

    Those of ``before`` are somebody else's. Of two lines that it may be from it is the one that says more of what
    it executes; one that no line explains (``$COMMAND``) is of the new ones: who is not known counts as the run's.
    """
    if not lines:
        return {}
    seen = processes()
    offset = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()  # a start is in CLOCK_BOOTTIME
    # A start is in whole ticks, rounded down.
    young = {pid for pid, one in seen.items() if (one.start + 1) / _TICK - offset > since and not one.dead}
    told = _Told(lines, before)
    found: dict[int, str] = {}
    for members in _by_job(seen, young):
        executed = [words for pid in members if (words := command_line(pid))]
        if path := told.file_of(executed):
            found.update(dict.fromkeys(members, path))
    return found


class Watch:
    """Tells, while time goes by, who works for lines that were not there when this was made.

    ``fresh``: seconds for which the tables are believed to be as they were.
    """

    def __init__(self, fresh: float) -> None:
        self._before, self._since, self._fresh = read(), time.monotonic(), fresh
        self._looked, self._lines = 0.0, Lines()
        self._known: dict[Identity, bool] = {}

    def is_new(self, one: Process) -> bool:
        """Who is dead already, and of cron, counts as new where there are new lines: it cannot be asked."""
        if time.monotonic() - self._looked >= self._fresh:
            self._lines = added(self._before, read())
            self._looked = time.monotonic()
        if not self._lines or not _is_of_cron(one):
            return False
        if one.identity not in self._known:
            new = one.dead or one.pid in jobs(self._lines, self._before, self._since)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[one.identity] = new
        return self._known[one.identity]


def _is_of_cron(one: Process) -> bool:
    """Whether it is in cron's unit, or below it by its parents."""
    if unit_in(cgroup_of(one.pid) or "").removesuffix(".service") in DAEMONS:
        return True
    parent: Process | None = one
    while parent is not None and parent.parent > 1:
        parent = process(parent.parent)
        if parent is not None and parent.comm in DAEMONS:
            return True
    return False


def _daemons(seen: Mapping[int, Process]) -> set[int]:
    """cron itself, of this system (not of a container): those whose parent is none of them."""
    return {
        one.pid
        for one in seen.values()
        if one.comm in DAEMONS and not one.dead
        if one.parent not in seen or seen[one.parent].comm not in DAEMONS
        if is_here(one.pid)
    }


def _by_job(seen: Mapping[int, Process], young: set[int]) -> Iterable[list[int]]:
    """The processes of each job; one that its parents have left is by itself."""
    chiefs = _daemons(seen)
    units = {unit for pid in chiefs if (unit := unit_in(cgroup_of(pid) or "")).endswith(".service")}
    crons = {pid for pid, one in seen.items() if one.comm in DAEMONS}
    found: dict[int, list[int]] = {}
    for pid in sorted(young - crons):
        first = _first(pid, seen, crons)
        ours = bool(chiefs & _line(first, seen)) or unit_in(cgroup_of(first) or "") in units
        if ours and first in young:
            found.setdefault(first, []).append(pid)
    return found.values()


def _first(pid: int, seen: Mapping[int, Process], crons: Container[int]) -> int:
    """The ancestor right below cron, or the last one that has no parent but init."""
    while (parent := seen[pid].parent) > 1 and parent in seen and parent not in crons:
        pid = parent
    return pid


def _line(pid: int, seen: Mapping[int, Process]) -> set[int]:
    """The process and all above it."""
    found: set[int] = set()
    while pid in seen and pid not in found:
        found.add(pid)
        pid = seen[pid].parent
    return found


def is_here(pid: int) -> bool:
    """Whether it lives in our pid namespace and on our root: a container has its own cron."""
    try:
        same = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
        return same and os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/"))
    except OSError:
        return False


class _Told:
    """How well lines explain what processes execute."""

    def __init__(self, lines: Mapping[str, str], before: Iterable[str]) -> None:
        self._new = [(_words(command), command, path) for command, path in lines.items()]
        self._old = [(_words(command), command) for command in before]

    def file_of(self, executed: Iterable[list[str]]) -> str:
        """The file of the line that these processes are from, empty where that is an old one."""
        executed = list(executed)
        if not executed:
            return ""
        old = max((_score(words, command, executed) for words, command in self._old), default=0)
        score, path = max((_score(words, command, executed), path) for words, command, path in self._new)
        return path if score > old or score == old == 0 else ""


def _score(line: list[str], command: str, executed: Iterable[list[str]]) -> int:
    """3: it is what the shell was given, or a script; 2: a part of the line, word for word (a shell executes its
    last command in its own place); 1: the same program.
    """
    best = 0
    for words in executed:
        if command in words:
            return 3
        if any(line[at : at + len(words)] == words for at in range(len(line) - len(words) + 1)):
            best = max(best, 2)
        elif {os.path.basename(word) for word in words[:2]} & {os.path.basename(word) for word in line}:
            best = max(best, 1)
    return best


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _files(paths: Iterable[str]) -> Iterator[str]:
    """The plain files at these paths, or in these directories."""
    for path in paths:
        with suppress(OSError):
            names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
            for name in names:
                file = os.path.join(path, name) if name else path
                if stat.S_ISREG(os.stat(file).st_mode):
                    yield file


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read(_LARGEST)
    except OSError:
        return ""


def _commands(text: str, names_user: bool) -> Iterator[str]:
    """What follows a ``%`` is the command's input, unless it is escaped."""
    for line in text.splitlines():
        if (
            line.lstrip().startswith("#")
            or _SETTING.match(line)
            or not (found := _FIELDS.fullmatch(line.rstrip()))
        ):
            continue
        command = found[1]
        if names_user:
            command = command.partition(" ")[2] if "\t" not in command else command.split(None, 1)[-1]
        command = _PERCENT.split(command)[0].replace("\\%", "%").strip()
        if command:
            yield command
