"""The lines of success of strict mode: hundreds of patterns, of which each line is tried with a few."""

from __future__ import annotations

import re
from collections.abc import Iterable

from snapbreaker.monitor.patience import Patience
from snapbreaker.monitor.pattern_tree import parsed
from snapbreaker.monitor.rule import Rule

_HEAD = 4  # characters


class Expected:
    """Rules by the characters that their pattern begins with. The one that matched last is tried first."""

    def __init__(self, rules: Iterable[Rule], patience: Patience) -> None:
        self._patience = patience
        self._by_head: dict[str, list[Rule]] = {}
        for rule in rules:
            self._by_head.setdefault(_head(rule), []).append(rule)

    def rule(self, text: str) -> Rule | None:
        """The rule that matches all of ``text``."""
        if not self._by_head:
            return None
        for size in range(_HEAD, -1, -1):
            rules = self._by_head.get(text[:size]) if len(text) >= size else None
            for place, rule in enumerate(rules or ()):
                if self._patience.matches(rule, text):
                    if rules and place:
                        rules.insert(0, rules.pop(place))
                    return rule
        return None


def _head(rule: Rule) -> str:
    """What each match begins with, up to ``_HEAD`` characters; empty where that is not certain."""
    if rule.flags & (re.IGNORECASE | re.VERBOSE) or "(?" in rule.source[:4]:
        return ""
    head = ""
    for op, argument in parsed(rule.source, rule.flags):
        if str(op) == "AT":
            continue
        if str(op) != "LITERAL" or len(head) == _HEAD:
            break
        head += chr(argument)
    return head
