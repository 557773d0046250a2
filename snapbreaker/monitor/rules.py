"""The set of rules that judges one command's lines."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from snapbreaker.monitor.packs import select_packs
from snapbreaker.monitor.prefilter import Prefilter
from snapbreaker.monitor.rule import Pack, Rule, RuleType

BLANK = "\ufffc"  # stands for masked text: neither a word character nor white space, so it joins with nothing


class RuleSet:
    """Packs in rising precedence: a later one wins over an earlier one.

    For one line the packs are asked from the last to the first. In each, masks blank what they match, for this
    pack and all earlier ones; then the first issue rule decides that matches both the line as it is and what the
    masks left of it, unless an allow rule of this pack or a later one matches the whole line. Where no issue rule
    decides, the line is fine (in strict mode: if an allow or expect rule of any pack matches the whole line).
    """

    def __init__(self, packs: Iterable[Pack]) -> None:
        self.packs = tuple(packs)
        self._layers = tuple(_Layer(pack) for pack in reversed(self.packs))
        issues = [rule for pack in self.packs for rule in pack.rules if rule.type.trips]
        self._unprepared = iter(self.rules)
        self.always = any(not rule.needles for rule in issues)
        self.prefilter = Prefilter(
            (phrase for rule in issues for phrase in rule.phrases),
            (literal for rule in issues for literal in rule.literals),
        )

    @classmethod
    def for_command(cls, argv: Sequence[str], files: Sequence[Path] = (), profiles: Sequence[str] = ()) -> RuleSet:
        """The default pack, those whose ``commands`` the command line runs, ``profiles``, then the rule ``files``.

        ``argv`` is looked through (``sudo``, ``chroot ROOT``, ``sh -c '…'``). Raises UsageError for an unknown
        profile and for a bad file: name of the file, the rule and the reason.
        """
        return cls(select_packs(argv, files, profiles))

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, those with the highest precedence first."""
        return tuple(rule for pack in reversed(self.packs) for rule in pack.rules)

    def prepare(self) -> bool:
        """Compile one more pattern before it is wanted; False when all are. Patterns are compiled when idle."""
        rule = next(self._unprepared, None)
        return rule is not None and bool(rule.pattern)

    def judge(self, text: str, needles: set[bytes]) -> Rule | None:
        """The issue rule that ``text`` trips, or None. ``needles`` are those of the prefilter that it holds."""
        candidates = [(layer, layer.candidates(text, needles)) for layer in self._layers]
        if not any(rules for _, rules in candidates):
            return None
        candidates = list(itertools.takewhile(lambda entry: not entry[0].allows(text), candidates))
        masked = text
        for layer, rules in candidates:
            masked = layer.mask(masked)
            for rule in rules:
                if rule.pattern.search(masked):
                    return rule
        return None

    def expects(self, text: str) -> bool:
        """Strict mode: whether some rule names this line as one of success."""
        return any(layer.allows(text) or layer.expects(text) for layer in self._layers)


class _Layer:
    """One pack's rules, sorted by what they do."""

    def __init__(self, pack: Pack) -> None:
        self._allow = [rule for rule in pack.rules if rule.type is RuleType.ALLOW]
        self._expect = [rule for rule in pack.rules if rule.type is RuleType.EXPECT]
        self._mask = [rule for rule in pack.rules if rule.type is RuleType.MASK]
        self._issues = [(rule, rule.needles) for rule in pack.rules if rule.type.trips]

    def mask(self, text: str) -> str:
        for rule in self._mask:
            text = rule.pattern.sub(_blank, text)
        return text

    def candidates(self, text: str, needles: set[bytes]) -> list[Rule]:
        """The issue rules that match when nothing is masked."""
        return [
            rule
            for rule, wanted in self._issues
            if (not wanted or not wanted.isdisjoint(needles)) and rule.pattern.search(text)
        ]

    def allows(self, text: str) -> bool:
        return any(rule.pattern.fullmatch(text) for rule in self._allow)

    def expects(self, text: str) -> bool:
        return any(rule.pattern.fullmatch(text) for rule in self._expect)


def _blank(match: re.Match[str]) -> str:
    return BLANK if match.group() else ""
