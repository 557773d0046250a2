"""The set of rules that judges one command's lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

from snapbreaker.dataclass import dataclass
from snapbreaker.monitor.expected import Expected
from snapbreaker.monitor.packs import BUILT_IN, builtin_head, builtin_pack, select_packs, today
from snapbreaker.monitor.patience import Patience, triggers
from snapbreaker.monitor.prefilter import Prefilter
from snapbreaker.monitor.rule import Context, Pack, Rule, RuleType, Trigger

BLANK = "\ufffc"  # stands for masked text: neither a word character nor white space, so it joins with nothing


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one line. ``issue``: the rule that it trips. ``passed``: the allow rule but for which it would have."""

    issue: Rule | None = None
    passed: Rule | None = None


FINE = Verdict()


class RuleSet:
    """Packs in rising precedence: a later one wins over an earlier one.

    For one line the packs are asked from the last to the first. In each, masks blank what they match, for this
    pack and all earlier ones; then the first issue rule decides that matches both the line as it is and what the
    masks left of it, unless an allow rule of this pack or a later one matches the whole line. Where no issue rule
    decides, the line is fine (in strict mode: if an allow or expect rule of any pack matches the whole line).

    ``dormant`` are the names of built-in packs that join when their tool shows itself: ``for_line``,
    ``for_programs``. A set never changes; these return another one. Expired rules do not count, and none that was
    given up: ``patience`` tells which.
    """

    def __init__(
        self, packs: Iterable[Pack], dormant: Iterable[str] = (), patience: Patience | None = None
    ) -> None:
        self.packs = tuple(packs)
        self.patience = patience or Patience()
        self.dormant = tuple(dormant)
        self.contexts = tuple(context for pack in self.packs for context in pack.contexts)
        self._signs = tuple((name, sign) for name in self.dormant for sign in builtin_head(name).signs)
        signs = [sign for _, sign in self._signs]
        signs += [trigger for context in self.contexts for trigger in (context.begin, context.end)]
        now = today()
        self.expired = tuple(rule for pack in self.packs for rule in pack.rules if rule.has_expired(now))
        self._layers = tuple(_Layer(pack, self.expired, self.patience) for pack in reversed(self.packs))
        self._issues = [(number, rule) for number, layer in enumerate(self._layers) for rule in layer.issues]
        # Places in ``_issues``; under b"" of those that have no needle.
        self._by_needle: dict[bytes, list[int]] = {b"": []}
        for place, (_, rule) in enumerate(self._issues):
            for needle in rule.needles or (b"",):
                self._by_needle.setdefault(needle, []).append(place)
        issues = [rule for layer in self._layers for rule in layer.issues]
        prefiltered: list[Rule | Trigger] = [*issues, *signs]
        self._unprepared = self._in_turn()
        self.always = any(not rule.needles for rule in issues)
        self.prefilter = Prefilter(
            (phrase for one in prefiltered for phrase in one.phrases),
            (literal for one in prefiltered for literal in one.literals),
        )

    @classmethod
    def for_command(
        cls,
        argv: Sequence[str],
        files: Sequence[Path] = (),
        profiles: Sequence[str] = (),
        configured: Sequence[Pack] = (),
    ) -> RuleSet:
        """The default pack, those whose ``commands`` the command runs, ``profiles``, ``configured``, ``files``.

        ``argv`` is looked through (``sudo``, ``chroot ROOT``, ``sh -c '…'``). Raises UsageError for an unknown
        profile and for a bad file: name of the file, the rule and the reason.
        """
        packs = select_packs(argv, files, profiles, configured)
        found = cls(packs, [name for name in BUILT_IN if name not in {pack.name for pack in packs}])
        found.prefilter.prepare()
        return found

    def for_line(self, text: str, needles: set[bytes]) -> RuleSet:
        """The set with the packs whose tool is recognised by this line."""
        return self._with({name for name, sign in self._signs if triggers(sign, text, needles)})

    def for_programs(self, programs: Iterable[str]) -> RuleSet:
        """The set with the packs of the programs that were seen to run."""
        names = frozenset(programs)
        return self._with({name for name in self.dormant if builtin_head(name).commands & names})

    def _with(self, names: set[str]) -> RuleSet:
        """What joins later is asked later than what the command line called for: right before ``default``."""
        if not names:
            return self
        packs = [self.packs[0], *map(builtin_pack, sorted(names)), *self.packs[1:]]
        return RuleSet(packs, [name for name in self.dormant if name not in names], self.patience)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, those with the highest precedence first."""
        return tuple(rule for pack in reversed(self.packs) for rule in pack.rules)

    def prepare(self) -> bool:
        """Compile one more pattern before it is wanted; False when all are. Patterns are compiled when idle."""
        rule = next(self._unprepared, None)
        if rule is None:
            return False
        rule.prepare()
        return True

    def _in_turn(self) -> Iterator[Rule]:
        yield from self.rules
        for name in self.dormant:  # read by now, but not parsed
            yield from builtin_pack(name).rules

    def judge(self, text: str, needles: set[bytes], contexts: Set[str] = frozenset()) -> Verdict:
        """Which rule decides what ``text`` is, if any does.

        ``needles`` are those of the prefilter that it holds, ``contexts`` the names of those that are on.
        """
        rules = self._candidates(text, needles, contexts)
        if not rules:
            return FINE
        masked, low, last = text, text.lower(), max(rules)
        for number, layer in enumerate(self._layers):
            if number > last:
                return FINE
            if passed := layer.allows(text, low, contexts):
                return Verdict(passed=passed)
            masked = layer.mask(masked, low)
            for rule in rules.get(number, ()):
                if self.patience.matches(rule, masked):
                    return Verdict(rule)
        return FINE

    def masking(self, text: str) -> list[Rule]:
        """The mask rules that say something about ``text``."""
        low = text.lower()
        return [
            rule
            for rule in self.rules
            if rule.type is RuleType.MASK
            and rule not in self.expired
            and any(could_match([rule], low))
            and self.patience.matches(rule, text)
        ]

    def _candidates(self, text: str, needles: set[bytes], contexts: Set[str]) -> dict[int, list[Rule]]:
        """The issue rules that match when nothing is masked, by the numbers of their layers."""
        found = set(self._by_needle[b""])
        for needle in needles:
            found.update(self._by_needle.get(needle, ()))
        by_layer: dict[int, list[Rule]] = {}
        for place in sorted(found):
            layer, rule = self._issues[place]
            if _counts(rule, contexts) and self.patience.matches(rule, text):
                by_layer.setdefault(layer, []).append(rule)
        return by_layer

    def expects(self, text: str, contexts: Set[str] = frozenset()) -> Rule | None:
        """Strict mode: the rule that names this line as one of success."""
        for layer in self._layers:
            if rule := layer.expects(text):
                return rule
        return self.allows(text, contexts)

    def allows(self, text: str, contexts: Set[str] = frozenset()) -> Rule | None:
        """The rule that lets the whole line pass, whatever it says."""
        low = text.lower()
        return next((rule for layer in self._layers if (rule := layer.allows(text, low, contexts))), None)

    @property
    def logs(self) -> tuple[str, ...]:
        """Files in which the tools that a pack is for may tell more than they print."""
        heads = (*self.packs, *map(builtin_head, self.dormant))
        return tuple(dict.fromkeys(log for pack in heads for log in pack.logs))

    def lapsed(self, text: str) -> Rule | None:
        """The allow rule that would have let ``text`` pass, had it not expired."""
        allowed = (rule for rule in self.expired if rule.type is RuleType.ALLOW)
        return next((rule for rule in allowed if self.patience.matches(rule, text)), None)


class _Layer:
    """One pack's rules, sorted by what they do."""

    def __init__(self, pack: Pack, expired: Sequence[Rule], patience: Patience) -> None:
        self._patience = patience
        rules = [rule for rule in pack.rules if rule not in expired] if expired else pack.rules
        self._allow = [rule for rule in rules if rule.type is RuleType.ALLOW]
        self._mask = [rule for rule in rules if rule.type is RuleType.MASK]
        self.expects = Expected((rule for rule in rules if rule.type is RuleType.EXPECT), patience).rule
        self.issues = [rule for rule in rules if rule.type.trips]

    def mask(self, text: str, low: str) -> str:
        """``text`` with the spans blanked that are innocent; ``low`` is the line in lower case."""
        for rule in could_match(self._mask, low):
            if len(text) <= rule.reach.whole:
                text = self._patience.masked(rule, text, _blank)
        return text

    def allows(self, text: str, low: str, contexts: Set[str]) -> Rule | None:
        for rule in could_match(self._allow, low):
            if _counts(rule, contexts) and self._patience.matches(rule, text):
                return rule
        return None


def could_match(rules: Iterable[Rule], low: str) -> Iterator[Rule]:
    """Those that could match a part of a text that is ``low`` in lower case."""
    for rule in rules:
        required = rule.required
        for text in required:
            if text in low:
                yield rule
                break
        else:
            if not required:
                yield rule


class Contexts:
    """Which contexts of one source are on. Memory: one number for each."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def at(self, number: int, text: str, needles: set[bytes], known: Iterable[Context]) -> Set[str]:
        """The contexts of this line; what it ends is on for the last time."""
        on = set[str]()
        for context in known:
            name = context.full_name
            if triggers(context.begin, text, needles):
                self._begun[name] = number
                on.add(name)
            elif name in self._begun:
                on.add(name)
                if number - self._begun[name] >= context.lines or triggers(context.end, text, needles):
                    del self._begun[name]
        return on


def _counts(rule: Rule, contexts: Set[str]) -> bool:
    return not rule.contexts or not rule.contexts.isdisjoint(contexts)


def _blank(match: re.Match[str]) -> str:
    return BLANK if match.group() else ""
