"""Gives up a pattern of a user's that takes too long on a line, whatever ``runaway`` thought of it.

``re`` cannot be given a time limit, but while it backtracks it lets signals be handled (every 4096 steps,
Modules/_sre/sre_lib.h), and the handler of a timer may raise. Only the main thread's: elsewhere there is no limit.
"""

from __future__ import annotations

import _thread
import re
import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from snapbreaker.monitor.rule import Rule, Trigger

SECONDS = 0.2  # of our processor time, for one pattern on one text

_Result = TypeVar("_Result")


class TooLong(Exception):
    """The pattern was given up."""


class _Timer:
    def __init__(self) -> None:
        self._thread: int | None = None  # that of the handler; 0: not the main one
        self._runs = False

    def limited(self, match: Callable[[str], _Result], text: str) -> _Result:
        """Raises TooLong."""
        if self._thread is None:
            self._thread = self._install()
        if self._thread != _thread.get_ident():
            return match(text)
        self._runs = True
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            return match(text)
        finally:
            self._runs = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _install(self) -> int:
        try:
            signal.signal(signal.SIGVTALRM, self._ring)
        except ValueError:  # not the main thread
            return 0
        return _thread.get_ident()

    def _ring(self, number: int, frame: FrameType | None) -> None:
        if self._runs:
            raise TooLong


_timer = _Timer()


class Patience:
    """Tries rules on lines. One of a user's that takes too long is given up: it matches no line any more."""

    def __init__(self) -> None:
        self._given_up = set[tuple[str, str]]()
        self._untold: list[Rule] = []

    def matches(self, rule: Rule, text: str) -> bool:
        if not rule.line:  # built in
            return rule.matches(text)
        return self._tried(rule, rule.matches, text, False)

    def masked(self, rule: Rule, text: str, blank: Callable[[re.Match[str]], str]) -> str:
        """``text`` with what a mask rule matches replaced."""
        return self._tried(rule, lambda whole: rule.pattern.sub(blank, whole), text, text)

    def take(self) -> list[Rule]:
        """The rules that were given up since the last call."""
        if not self._untold:
            return []
        told, self._untold = self._untold, []
        return told

    def _tried(self, rule: Rule, match: Callable[[str], _Result], text: str, otherwise: _Result) -> _Result:
        if not rule.line:  # built in
            return match(text)
        if self._given_up and (rule.origin, rule.name) in self._given_up:
            return otherwise
        try:
            return _timer.limited(match, text)
        except TooLong:
            self._given_up.add((rule.origin, rule.name))
            self._untold.append(rule)
            return otherwise


def triggers(trigger: Trigger, text: str, needles: set[bytes]) -> bool:
    """Whether the line is one that a sign or a context is known by; not if that takes too long to say."""
    if trigger.needles.isdisjoint(needles):
        return False
    try:
        return trigger.matches(text) if trigger.built_in else _timer.limited(trigger.matches, text)
    except TooLong:
        return False
