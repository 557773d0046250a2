"""A known tool that is started without its verbose switch: the report lacks what it tried before it failed."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping, Sequence

from snapbreaker.monitor.packs import BUILT_IN, builtin_head
from snapbreaker.monitor.programs import commands_of
from snapbreaker.monitor.rule import Verbose


def hint(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """One line about the first tool of ``argv`` that says less than it could; empty where there is none."""
    known = {name: way for head in map(builtin_head, BUILT_IN) for way in head.verbose for name in way.commands}
    for words in commands_of(argv, known):
        name = os.path.basename(words[0])
        if (way := known.get(name)) and not _is_verbose(way, words[1:], env):
            return f"{name} says more with {way.switches[0]}, and so does the report of a halt then (--no-hint)"
    return ""


def _is_verbose(way: Verbose, arguments: Iterable[str], env: Mapping[str, str]) -> bool:
    return any(name in env for name in way.env) or any(
        _is(argument, switch) for argument in arguments for switch in way.switches
    )


def _is(argument: str, switch: str) -> bool:
    """Also ``--log=FILE``, and ``-xv`` or ``-vvv`` for ``-v``."""
    if argument == switch or argument.startswith(f"{switch}="):
        return True
    short = len(switch) == 2 and switch[0] == "-" and switch[1] != "-"
    return (
        short and argument[:1] == "-" and argument[1:2] != "-" and argument[1:].isalpha() and switch[1] in argument
    )
