"""The log that the sandbox's programs write, and what is to be done of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile

from snapbreaker.errors import SnapbreakerError
from snapbreaker.held.action import Action
from snapbreaker.held.programs import LOG, SHARED


class LogDamaged(SnapbreakerError):
    """What was recorded cannot be read: somebody else wrote there."""


def recorded(directory: str) -> list[Action]:
    """What was asked for, in order, all of it. Raises OSError, LogDamaged.

    A last one that is not whole was being written by a program that was killed: it is none.
    """
    path = os.path.join(directory, SHARED, LOG)
    with open(path, "rb") as file:
        fields = file.read().split(b"\0")[:-1]
    return list(_actions(fields, path))


def _actions(fields: list[bytes], path: str) -> Iterator[Action]:
    """Each is the number of its words, then the words: ``shims/held.sh``."""
    at = 0
    while at < len(fields):
        if not fields[at].isdigit() or not (count := int(fields[at])):
            raise LogDamaged(f"{path}: no request begins at its field {at}", "the command has written there")
        words = fields[at + 1 : at + 1 + count]
        if len(words) < count:
            return
        program, *rest = map(os.fsdecode, words)
        yield Action(program, tuple(rest))
        at += 1 + count


def planned(actions: Sequence[Action], reload: bool) -> list[Action]:
    """What comes to the same as ``actions`` now that all of the change is on disk at once.

    - systemd reads its files once: where it was first asked to, but before the first action that is not a stop.
      Until then units are stopped by what it still knows of them, as when a package was about to go. ``reload``:
      also if nobody asked for it.
    - An action equal to the one before it, reloads aside, is done once, if to repeat it changes nothing: five
      triggers that restart one unit would run into its start limit. With any other action in between both stay.
    """
    anew = [action for action in actions if action.reloads]
    if reload and not anew:
        anew = [Action("systemctl", ("daemon-reload",))]
    stops = len(list(takewhile(lambda action: action.stops, actions)))
    plan = [*actions[:stops], *_most_of(anew), *(action for action in actions[stops:] if not action.reloads)]
    return [
        action
        for before, action in pairwise([None, *plan])
        if action is not None and not (action == before and action.repeatable)
    ]


def _most_of(reloads: list[Action]) -> list[Action]:
    """One of them does for all. That systemd is to execute itself again reads the files, too."""
    return sorted(reloads, key=lambda action: action.verb != "daemon-reexec")[:1]
