"""Patterns that could run away are refused, and the others given up where they do: no line takes long."""

from __future__ import annotations

import random
import time

import pytest

from snapbreaker.errors import UsageError
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.patience import Patience
from snapbreaker.monitor.rule import Rule
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.monitor.runaway import runaway

REFUSED = [
    *("(a+)+", "(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", "(a|a?)+$", "(.*)*x", "(.*a){20}", r"(\w+\s?)+:"),
    *("(x+x+)+y", "(?:x|xx)+y", "(.*)+x", "([a-zA-Z]+)*$", "(a?){30}a{30}", "a?" * 30 + "a" * 30, "(?i:(A+))+"),
    *(r"(?:\w+,\s*\w*)+!", "(?:a?b|b)+c", "(a{1,50}){1,50}b", r"^(([a-z])+.)+[A-Z]([a-z])+$", "(?=(a+)+b)"),
    *("((ab)*)*c", r"(\S+\s*)+=", "([^,]*,?)*;", "(?:.{0,63}){10}x", "(ab|a|b)*c", r"(\w\w?)+-", r"^(\w+\.?)+@"),
    *("([0-9]+[0-9]+)+z", "(?:(?!x)a*)*b", "(a|ab)(a|ab)" * 15 + "c", r"(?:\d+|[0-9a-f]+)+g", "x" * 20_000),
]
SEARCHED = [".*a.*b.*c.*d", ".*a.*b.*c", r"\s*\s*\s*\s*x"]  # as a whole line they can be bounded
FINE = [
    *(r"(?:\w+,\s*)+x", r"(?:[\w.]+/)+", "a.*b", r"(?:\d{1,3}\.){3}\d+", "(?:ab|cd)+", r"\s*x\s*", "[^ ]+: .*"),
    *("foo.*bar.*baz", "^.*error.*$", r"\w+ failed", r"\s+$", r"\d+(?:[.,]\d+)*", "(?:foo|far)+z", ".*warn.*"),
    *("(?:(?!end).)*x", "error.*failed", "(?:[A-Z][a-z]+ ?)+:", r'"(?:[^"\\]|\\.)*"', r"(\w+) \1", r"^(.*)\1\1x"),
    *(r"\[\d+/\d+\] .*: error", r"(?i)cannot (?:open|read) .*", r"^\S+: \S+: \S+ \S+$", r"a{1,40}b{1,40}c"),
]
LINES = [
    *("a" * 65536, "a" * 65535 + "!", "x" * 65535 + "!", "1" * 65536, " " * 65536, "A" * 65536, "=" * 65536),
    *("a," * 32768, "ab" * 32768, "a1" * 32768, "ok " * 21845, "x: " * 21845, "word " * 13107, '"\\' * 32768),
    *("foo" * 10000 + "bar" * 11000, "foobar" * 10922, ("foo" * 21 + "bar" * 21) * 520, "error" * 13107),
    *("error faile" * 5957, "warn" * 16384, "Aa " * 21845, "cannot open " * 5461, "foobarba" * 8192),
]
SECONDS = 0.5  # of processor time, on a busy machine; what runs away takes minutes
SLOW = [r"(?:(?:.)+)?\s\b", r"(?:(?:[ab]|b))*(?:[ab])*?(?:\d{3}a)+", r"(?:(?:\w(?:(?=[ab]))+){3})+x", r"x(a*)\1"]
ATOMS = ("a", "b", ".", r"\s", r"\w", r"\d", "[ab]", "[^a]", "ab", r"\b", "^", "$", "-")
FUZZED = [
    *("a" * 4096, "ab" * 2048, "a" * 4095 + "!", " " * 4096, "a b-" * 1024, "-" * 4096, "1" * 4096, "a1 " * 1365)
]
ANY = "[[rule]]\nname = 'any'\ntype = 'ERROR'\npattern = '.'"


def rule_set(kind: str, pattern: str) -> RuleSet:
    """The pattern as a rule of that type, below one that every line trips where the type speaks for it."""
    text = f"[[rule]]\nname = 'p'\ntype = '{kind}'\npattern = '''{pattern}'''\nreason = 'r'"
    return RuleSet([parse_pack(ANY if kind in ("allow", "mask") else "", "t", "t"), parse_pack(text, "x", "x")])


@pytest.mark.parametrize("pattern", REFUSED, ids=lambda pattern: pattern[:30])
def test_patterns_that_run_away_are_refused(pattern: str) -> None:
    assert runaway(pattern)
    assert runaway(pattern, anchored=True)


@pytest.mark.parametrize("pattern", SEARCHED)
def test_too_many_wildcards_are_refused_where_they_are_searched(pattern: str) -> None:
    assert runaway(pattern)
    assert runaway(pattern, anchored=True) is None


@pytest.mark.parametrize("pattern", FINE)
def test_patterns_that_do_not(pattern: str) -> None:
    assert runaway(pattern) is None
    assert runaway(pattern, anchored=True) is None


@pytest.mark.parametrize("kind", ["ERROR", "allow", "mask", "expect"])
@pytest.mark.parametrize("pattern", [*FINE, *SEARCHED], ids=lambda pattern: pattern[:30])
def test_no_line_takes_long(pattern: str, kind: str) -> None:
    try:
        rule_set(kind, pattern)
    except UsageError:
        assert pattern in SEARCHED or kind == "mask"
        return
    for line in LINES:
        data = line.encode() + b"\n"
        takes: list[float] = []
        while not takes or (min(takes) >= SECONDS and len(takes) < 4):
            judge = Judge(rule_set(kind, pattern), strict=kind == "expect")  # in which nothing was given up yet
            began = time.process_time()
            judge.feed("s", data)
            takes.append(time.process_time() - began)
        assert min(takes) < SECONDS, line[:20]


def seconds(rule: Rule, line: str) -> float:
    """Of processor time, with a rule that was not given up yet."""
    patience, began = Patience(), time.process_time()
    if rule.type != "mask":
        patience.matches(rule, line)
    elif len(line) <= rule.reach.whole:
        patience.masked(rule, line, lambda match: "")
    return time.process_time() - began


def random_pattern(choose: random.Random, depth: int) -> str:
    def inner() -> str:
        return random_pattern(choose, depth - 1)

    kind = choose.random()
    if depth == 0 or kind < 0.2:
        return choose.choice(ATOMS)
    if kind < 0.5:
        return inner() + inner()
    if kind < 0.6:
        return f"(?:{inner()}|{inner()})"
    if kind < 0.9:
        return f"(?:{inner()}){choose.choice(('*', '+', '?', '{2,5}', '{3}', '*?', '{1,40}'))}"
    return f"(?={inner()})"


@pytest.mark.parametrize("kind", ["ERROR", "allow", "mask"])
def test_what_is_not_refused_is_given_up_in_time(kind: str) -> None:
    choose, tried = random.Random(kind), 0
    patterns = [*SLOW, *(random_pattern(choose, 5) for _ in range(60))]
    patterns += [f"({random_pattern(choose, 4)}){random_pattern(choose, 2)}\\1" for _ in range(30)]
    for pattern in patterns:
        try:
            rule = rule_set(kind, pattern).packs[-1].rules[0]
        except UsageError:
            continue
        tried += 1
        for line in FUZZED:
            assert any(seconds(rule, line) < SECONDS for _ in range(4)), (pattern, line[:4])
    assert tried > len(patterns) / 4


@pytest.mark.parametrize("kind", ["ERROR", "allow", "mask"])
def test_a_line_on_which_a_rule_was_given_up_trips(kind: str) -> None:
    judge = Judge(rule_set(kind, SLOW[2]))
    issues = judge.feed("s", b"a" * 900 + b"\n")
    assert [issue.type for issue in issues] == ["ERROR"]
    assert "x/p takes too long on it" in issues[0].reason
    assert bool(judge.feed("s", b"aaax\n")) is (kind != "ERROR")  # it is not tried again


def test_in_strict_mode() -> None:
    issues = Judge(rule_set("expect", SLOW[2]), strict=True).feed("s", b"a" * 900 + b"\n")
    assert [issue.type for issue in issues] == ["UNEXPECTED"]
    assert "x/p takes too long on it" in issues[0].reason


def test_the_sign_of_a_tool_that_takes_too_long_is_none() -> None:
    context = f"[[context]]\nname = 'c'\nbegin = 'begin{SLOW[0]}'\nend = 'the end'\n"
    rule = "[[rule]]\nname = 'r'\ntype = 'ERROR'\npattern = 'oh dear'\ncontexts = ['c']\n"
    judge = Judge(RuleSet([parse_pack(context + rule, "x", "x")]))
    assert not judge.feed("s", b"begin" * 1600 + b"\noh dear\n")
    assert judge.feed("s", b"begin it\noh dear\n")


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:x|" * 60 + "a" + ")*" + ")" * 59,
        "(?:b(?=" * 30 + "a" + "))+" * 30,
        "|".join(f"{n:x}z" for n in range(1500)),
    ],
    ids=["branches", "assertions", "alternatives"],
)
def test_reading_a_pattern_takes_no_long_time(pattern: str) -> None:
    """It took hours, seconds and minutes once."""
    began = time.process_time()
    runaway(pattern)
    assert time.process_time() - began < 10 * SECONDS


def test_a_long_line_is_searched_in_parts() -> None:
    rules = rule_set("ERROR", "foo.*bar.*baz")
    for before in (0, 100, 5000, 60000):
        line = "x" * before + "foo 1 bar 2 baz" + "y" * 3000
        assert Judge(rules).feed("s", line.encode() + b"\n"), before
    assert Judge(rules).feed("s", b"foo " + b"-" * 150 + b" bar " + b"-" * 150 + b" baz\n")


def test_an_allow_rule_that_is_slow_does_not_allow_a_very_long_line() -> None:
    rules = rule_set("allow", ".*a.*b.*c.*d")
    assert not Judge(rules).feed("s", b"a b c d\n")
    assert Judge(rules).feed("s", b"a b c d" + b"-" * 5000 + b"d\n")
