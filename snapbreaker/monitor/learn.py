"""Success patterns for strict mode, from recorded good runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import field
from typing import BinaryIO

from snapbreaker.dataclass import dataclass
from snapbreaker.issue import Issue
from snapbreaker.monitor.generalize import Generalized, generalize
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.lines import BLOCK, Line
from snapbreaker.monitor.rules import RuleSet, Verdict
from snapbreaker.report.plan import toml_string


@dataclass(slots=True)
class Kind:
    """Lines with one pattern: how many, where the first one stood, and what was generalised in it."""

    place: str
    line: str
    found: Generalized
    count: int = 1


@dataclass(slots=True)
class Learned:
    """The kinds of lines, by pattern. ``issues`` are the lines that are none of success, and were left out."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    lines: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def read(self, rules: RuleSet, stream: BinaryIO, name: str, names: Collection[str] = ()) -> None:
        """Learn the lines of one recorded log, cut as ``run`` cuts them. ``names`` are those of the machine."""

        def heard(line: Line, verdict: Verdict) -> None:
            if line.text and not verdict.issue:
                self._add(line, name, names)

        judge = Judge(rules, now=lambda: 0.0, heard=heard)
        while data := stream.read(BLOCK):
            self.issues += judge.feed(name, data)
        self.issues += judge.close(name)

    def _add(self, line: Line, name: str, names: Collection[str]) -> None:
        found = generalize(line.text, names)
        self.lines += 1
        self.parts += found.kinds
        for kind, text in found.parts:
            self.examples.setdefault(kind, text)
        if found.pattern in self.kinds:
            self.kinds[found.pattern].count += 1
        else:
            self.kinds[found.pattern] = Kind(f"{name}:{line.number}", line.text, found)

    def toml(self) -> str:
        """A rule file for ``--rules``, to be reviewed: each pattern with its first line."""
        text = "# Lines of success, by `snapbreaker rules learn`. Review them, then: run --strict --rules FILE\n"
        for number, kind in enumerate(self.kinds.values(), 1):
            what = ", ".join(sorted(kind.found.kinds)) or "nothing"
            text += (
                f"\n# {kind.count} x, first {toml_string(kind.place)}; generalised: {what}\n"
                f'[[rule]]\nname = "line-{number}"\ntype = "expect"\n'
                f"pattern = {toml_string(kind.found.pattern)}\nexamples = [{toml_string(kind.line)}]\n"
            )
        return text
