"""Which programs a command line runs, as far as the line tells: through sudo, chroot, sh -c and their like."""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Collection, Iterable, Sequence

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_INTERPRETER = re.compile(r"(?:python|perl|ruby|node|php|sh|bash|dash)[\d.]*")
_OPERATORS = frozenset(";&|()\n")
_SHELL_WORDS = frozenset(
    {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time", "exec", "command"}
)

# Programs that run the command that follows their own options and operands.
WRAPPERS = frozenset(
    [
        "busybox",
        "chroot",
        "chrt",
        "doas",
        "env",
        "eatmydata",
        "faketime",
        "flock",
        "ionice",
        "nice",
        "nohup",
        "nsenter",
        "numactl",
        "prlimit",
        "runuser",
        "script",
        "setarch",
        "setpriv",
        "setsid",
        "stdbuf",
        "strace",
        "su",
        "sudo",
        "systemd-inhibit",
        "systemd-nspawn",
        "systemd-run",
        "taskset",
        "time",
        "timeout",
        "torsocks",
        "unbuffer",
        "unshare",
        "watch",
        "xargs",
    ]
)


def programs_of(argv: Sequence[str], known: Collection[str]) -> frozenset[str]:
    """Base names of the programs that ``argv`` starts, among them every one of ``known`` behind a wrapper."""
    return frozenset(os.path.basename(command[0]) for command in commands_of(argv, known))


def commands_of(argv: Sequence[str], known: Collection[str]) -> list[Sequence[str]]:
    """The command lines within ``argv``, each from its program to the end of ``argv``, or of the shell's command.

    Operands of a wrapper (``chroot ROOT``, ``timeout 5``, ``env A=B``) cannot be told from programs without
    knowing its every option, so words are passed over until one is known. A program that is no wrapper ends the
    search.
    """
    found: list[Sequence[str]] = []
    wrapped = False
    for index, word in enumerate(argv):
        if wrapped and not _may_be_program(word):
            continue
        name, rest = os.path.basename(word), argv[index:]
        if name in SHELLS:
            return [*found, rest, *_in_shell(rest[1:], known)]
        if name in known or not wrapped:
            found.append(rest)
        if name in WRAPPERS:
            wrapped = True
            found += _command_option(rest[1:], known)
        elif name in known or not wrapped:
            return found + _module(name, rest[1:])
    return found


def programs_running(command_lines: Iterable[Sequence[str]]) -> frozenset[str]:
    """Names of the programs that processes run, also of a script behind its interpreter."""
    found = set[str]()
    for words in command_lines:
        name = os.path.basename(words[0].split()[0]) if words[0].strip() else ""
        found.add(name)
        if _INTERPRETER.fullmatch(name) and len(words) > 1:
            operands = [word for word in words[1:] if not word.startswith("-")]
            found |= {os.path.basename(word) for word in operands[:1]}
            found |= {module[0] for module in _module(name, words[1:])}
    return frozenset(found)


def _may_be_program(word: str) -> bool:
    """Whether a word behind a wrapper could be a program: not the ``/srv/apt`` of ``chroot /srv/apt pip``."""
    directory = os.path.dirname(word)
    return not directory or directory == "." or os.path.basename(directory) in ("bin", "sbin")


def _in_shell(arguments: Sequence[str], known: Collection[str]) -> list[Sequence[str]]:
    """What ``sh -c STRING`` runs; nothing is known of ``sh FILE``."""
    for index, word in enumerate(arguments[:-1]):
        if re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*", word):
            texts = [text for text in arguments[index + 1 :] if not text.startswith("-")]
            return _in_script(texts[0], known) if texts else []
        if not word.startswith(("-", "+")) and word not in ("pipefail", "errexit", "nounset"):
            break
    return []


def _command_option(arguments: Sequence[str], known: Collection[str]) -> list[Sequence[str]]:
    """What ``su -c STRING``, ``script -c STRING`` and ``flock FILE -c STRING`` run."""
    for index, word in enumerate(arguments):
        if word in ("-c", "--command") and index + 1 < len(arguments):
            return _in_script(arguments[index + 1], known)
        if word.startswith("--command="):
            return _in_script(word.partition("=")[2], known)
    return []


def _in_script(text: str, known: Collection[str]) -> list[Sequence[str]]:
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=";&|()\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an unclosed quote: the shell will say so
        words = text.split()
    found: list[Sequence[str]] = []
    command: list[str] = []
    for word in [*words, ";"]:
        if word and set(word) <= _OPERATORS:
            found += commands_of(command, known) if command else []
            command = []
        elif command or not (word in _SHELL_WORDS or re.match(r"\w+=", word)):
            command.append(word)
    return found


def _module(name: str, arguments: Sequence[str]) -> list[Sequence[str]]:
    """``python3 -m pip`` runs pip."""
    if re.fullmatch(r"python[\d.]*", name) and list(arguments[:1]) == ["-m"] and len(arguments) > 1:
        return [arguments[1:]]
    return []
