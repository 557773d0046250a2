"""Rule packs: read strictly from TOML, chosen for a command. ``docs/rules.md`` documents the format.

Of the packs that come with snapbreaker a run reads those that it uses, and does not compile their patterns to see
whether they are right: tests/unit/test_rules.py does. That is most of what a run would need of a processor.
"""

from __future__ import annotations

import pkgutil
import re
import time
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from snapbreaker.errors import UsageError
from snapbreaker.monitor import patterns
from snapbreaker.monitor.prefilter import words_of
from snapbreaker.monitor.programs import programs_of
from snapbreaker.monitor.rule import Context, Pack, Rule, RuleType, Trigger, Verbose, compiled
from snapbreaker.monitor.runaway import Reach, reach, runaway

DEFAULT = "default"
BUILT_IN = (  # snapbreaker/rules/NAME.toml
    *("ansible", "apt", "build", "cargo", "coreutils", "curl", "database", DEFAULT, "docker", "git", "go", "java"),
    *("node", "pip", "python", "ssh", "systemd", "terraform", "tests", "web"),
)

_FLAGS = {"ascii": re.ASCII, "ignorecase": re.IGNORECASE, "verbose": re.VERBOSE}
_REASONS = {
    RuleType.ERROR: "the line reports an error",
    RuleType.WARNING: "the line is a warning",
    RuleType.SKIP: "the line says that something was left out or is not there",
    RuleType.TIMEOUT: "the line says that something took too long",
    RuleType.UNEXPECTED: "the line says something that should not happen",
    RuleType.EXPECT: "a line of success",
}
warnings.filterwarnings("ignore", "Possible nested set", FutureWarning)  # "[[" in somebody's pattern is fine
_FILE_KEYS: dict[str, type] = {"pack": dict, "rule": list, "sign": list, "context": list, "verbose": list}
_VERBOSE_KEYS: dict[str, type] = {"commands": list, "switches": list, "env": list}
_SIGN_KEYS: dict[str, type] = {"pattern": str, "words": list}
_CONTEXT_KEYS: dict[str, type] = {
    "name": str,
    "begin": str,
    "begin_words": list,
    "end": str,
    "end_words": list,
    "lines": int,
}
_TABLES = ("rule", "sign", "context", "verbose")
_PACK_KEYS: dict[str, type] = {"name": str, "description": str, "commands": list, "logs": list}
_RULE_KEYS: dict[str, type] = {
    "name": str,
    "type": str,
    "pattern": str,
    "flags": list,
    "words": list,
    "literals": list,
    "reason": str,
    "link": str,
    "examples": list,
    "contexts": list,
    "added": date,
    "expires": date,
    "by": str,
}
_KINDS = {str: "a string", dict: "a table", list: "a list", int: "a number", date: "a date such as 2027-01-31"}
_CONTEXT_LINES = 10_000  # after which a context that nothing ended is over


class _Bad(Exception):
    """What is wrong, before it is known where."""


@cache
def builtin_packs() -> Mapping[str, Pack]:
    """Every pack that comes with snapbreaker, by name. Read once."""
    return {name: _builtin_pack(name) for name in BUILT_IN}


@cache
def _builtin_pack(name: str) -> Pack:
    return parse_pack(builtin_text(name), f"{name}.toml", name, checked=True)


@cache
def builtin_head(name: str) -> Pack:
    """The built-in pack without its rules: for which programs it is chosen, and by which lines; told first."""
    return parse_pack(builtin_text(name).partition("\n[[rule]]")[0], f"{name}.toml", name, checked=True)


def builtin_pack(name: str) -> Pack:
    """The whole built-in pack. Read once."""
    return _builtin_pack(name)


@cache
def builtin_text(name: str) -> str:
    found = pkgutil.get_data("snapbreaker", f"rules/{name}.toml")  # also from a zip file
    assert found is not None
    return found.decode()


def select_packs(
    argv: Sequence[str], files: Sequence[Path], profiles: Sequence[str], configured: Sequence[Pack] = ()
) -> list[Pack]:
    """The packs for a command in rising precedence: default, by command, profiles, ``configured``, files.

    Those by command come sorted by name, profiles and files as given.

    Raises UsageError for an unknown profile and for a file that is missing or bad.
    """
    commands = {name: builtin_head(name).commands for name in BUILT_IN}
    programs = programs_of(argv, frozenset[str]().union(*commands.values()))
    chosen = [name for name in BUILT_IN if commands[name] & programs and name not in profiles]
    for name in profiles:
        if name not in BUILT_IN:
            raise UsageError(f"there is no rule pack {name!r}", "there are: " + ", ".join(BUILT_IN))
    names = dict.fromkeys([DEFAULT, *chosen, *profiles])
    return [*map(_builtin_pack, names), *configured, *map(load_pack, files)]


def load_pack(path: Path) -> Pack:
    """The rules of a file. Raises UsageError that names the file, the line, the rule and the reason."""
    return parse_pack(read_rules(path), str(path), path.stem)


def read_rules(path: Path) -> str:
    """The text of a rule file. Raises UsageError."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: cannot read the rules: not UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read the rules: {error.strerror}") from None


def parse_pack(text: str, origin: str, name: str, *, checked: bool = False) -> Pack:
    """The pack in TOML ``text``; ``origin`` names it in errors, ``name`` is its name unless it has one.

    ``checked``: its patterns are known to be good.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise UsageError(f"{origin}{':' + line[1] if line else ''}: not TOML: {error}") from None
    rules: list[Rule] = []
    try:
        _check_keys(data, _FILE_KEYS)
        about = data.get("pack", {})
        _check_keys(about, _PACK_KEYS)
        name = about.get("name", name)
    except _Bad as error:
        raise UsageError(f"{origin}: {error}") from None
    signs, verbose = _triggers(data, origin, checked), _verbose(data, origin)
    contexts = _contexts(data, origin, name, checked)
    begins, taken = [] if checked else _lines_of_rules(text), set[str]()
    for index, table in enumerate(data.get("rule", [])):
        place = begins[index] if index < len(begins) else 0 if checked else 1
        try:
            rules.append(replace(_rule(table, name, taken, checked), origin=origin, line=place))
            taken.add(rules[-1].name)
            if unknown := rules[-1].contexts - {context.full_name for context in contexts}:
                raise _Bad("no such context in this file: " + ", ".join(sorted(unknown)))
        except _Bad as error:
            where = (
                f"rule {table['name']!r}" if isinstance(table, dict) and "name" in table else f"rule {index + 1}"
            )
            raise UsageError(f"{origin}:{place}: {where}: {error}") from None
    commands = frozenset(about.get("commands", []))
    logs = tuple(about.get("logs", []))
    return Pack(name, origin, tuple(rules), commands, about.get("description", ""), signs, contexts, logs, verbose)


def _triggers(data: Mapping[str, Any], origin: str, checked: bool) -> tuple[Trigger, ...]:
    found = []
    for index, table in enumerate(data.get("sign", [])):
        try:
            _check_keys(table, _SIGN_KEYS)
            found.append(_trigger(_needed(table, "pattern"), table.get("words", []), checked))
        except _Bad as error:
            raise UsageError(f"{origin}: sign {index + 1}: {error}") from None
    return tuple(found)


def _verbose(data: Mapping[str, Any], origin: str) -> tuple[Verbose, ...]:
    found = []
    for index, table in enumerate(data.get("verbose", [])):
        try:
            _check_keys(table, _VERBOSE_KEYS)
            if not table.get("commands") or not table.get("switches"):
                raise _Bad("commands and switches are needed")
        except _Bad as error:
            raise UsageError(f"{origin}: verbose {index + 1}: {error}") from None
        env = tuple(table.get("env", []))
        found.append(Verbose(frozenset(table["commands"]), tuple(table["switches"]), env))
    return tuple(found)


def _contexts(data: Mapping[str, Any], origin: str, pack: str, checked: bool) -> tuple[Context, ...]:
    found = []
    for index, table in enumerate(data.get("context", [])):
        try:
            _check_keys(table, _CONTEXT_KEYS)
            begin = _trigger(_needed(table, "begin"), table.get("begin_words", []), checked)
            end = _trigger(_needed(table, "end"), table.get("end_words", []), checked)
            found.append(Context(pack, _needed(table, "name"), begin, end, table.get("lines", _CONTEXT_LINES)))
        except _Bad as error:
            raise UsageError(f"{origin}: context {index + 1}: {error}") from None
    return tuple(found)


def _trigger(pattern: str, words: Sequence[str], checked: bool) -> Trigger:
    _check_pattern(pattern, 0, RuleType.ERROR)
    phrases, literals = _needles({"words": words}, pattern, 0)
    if not phrases and not literals:
        raise _Bad(f"{pattern!r}: give words that each match holds, since not every line can be tried")
    return Trigger(pattern, phrases, literals, built_in=checked)


def _rule(table: Any, pack: str, taken: set[str], checked: bool) -> Rule:
    _check_keys(table, _RULE_KEYS)
    name, rule_type, pattern = (_needed(table, key) for key in ("name", "type", "pattern"))
    if name in taken:
        raise _Bad("the name is used twice in this file")
    if rule_type not in list(RuleType):
        raise _Bad(f"unknown type {rule_type!r}; there are: " + ", ".join(RuleType))
    kind = RuleType(rule_type)
    flags = _flags(table.get("flags", []))
    if not checked:
        _check_pattern(pattern, flags, kind)
    far = Reach() if checked else reach(pattern, flags, anchored=kind.whole_line) or Reach()
    if kind in (RuleType.ALLOW, RuleType.MASK) and not table.get("reason", "").strip():
        raise _Bad(f"an {kind} rule needs a reason" if kind is RuleType.ALLOW else f"a {kind} rule needs a reason")
    words, literals = _needles(table, pattern, flags) if kind.trips else (frozenset[bytes](), frozenset[bytes]())
    return Rule(
        pack,
        name,
        kind,
        pattern,
        flags,
        table.get("reason") or _REASONS[kind],
        words,
        literals,
        table.get("link", ""),
        tuple(table.get("examples", ())),
        frozenset(f"{pack}/{context}" for context in table.get("contexts", ())),
        far,
        added=_day(table.get("added")),
        expires=_day(table.get("expires")),
        by=table.get("by", ""),
    )


def _day(moment: date | None) -> date | None:
    return moment.date() if isinstance(moment, datetime) else moment


def today() -> date:
    """The day in UTC, as every time in a report. Not by ``date.today``, which reads the zone's file."""
    now = time.gmtime()
    return date(now.tm_year, now.tm_mon, now.tm_mday)


def _flags(names: Sequence[str]) -> int:
    flags = 0
    for name in names:
        if name not in _FLAGS:
            raise _Bad(f"unknown flag {name!r}; there are: " + ", ".join(_FLAGS))
        flags |= _FLAGS[name]
    return flags


def _check_pattern(pattern: str, flags: int, kind: RuleType) -> None:
    try:
        matched = compiled(pattern, flags).search("")
        why = runaway(pattern, flags, anchored=kind.whole_line)
    except (re.error, OverflowError, RecursionError) as error:
        raise _Bad(f"bad pattern: {error}") from None
    if why:
        raise _Bad(f"bad pattern: {why}")
    if matched and not kind.whole_line:
        raise _Bad("bad pattern: it matches an empty line, so it would match every line")


def _needles(table: Mapping[str, Any], pattern: str, flags: int) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """The prefilter of an issue rule: as given, else what the pattern itself tells (maybe nothing)."""
    words = frozenset(words_of(phrase) for phrase in table.get("words", []))
    literals = [literal.lower() for literal in table.get("literals", [])]
    if b"" in words or "" in literals:
        raise _Bad("a word or literal without a letter or digit finds nothing; leave it out")
    if not words and not literals:
        literals = list(patterns.needles(pattern, flags) or ())
    if not all(literal.isascii() or literal == literal.upper() for literal in literals):
        raise _Bad("a literal with letters must be ASCII, since it is compared without regard to case")
    return words, frozenset(literal.encode() for literal in literals)


def _check_keys(table: Any, known: Mapping[str, type]) -> None:
    if not isinstance(table, dict):
        raise _Bad("not a table")
    for key, value in table.items():
        if key not in known:
            raise _Bad(f"unknown key {key!r}; there are: " + ", ".join(known))
        if not isinstance(value, known[key]):
            raise _Bad(f"{key!r} must be {_KINDS[known[key]]}")
        if isinstance(value, list) and key not in _TABLES and not all(isinstance(item, str) for item in value):
            raise _Bad(f"{key!r} must be a list of strings")


def _needed(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise _Bad(f"{key!r} is missing")
    return value


def _lines_of_rules(text: str) -> list[int]:
    """The lines on which each ``[[rule]]`` begins."""
    lines, number, end = [], 1, 0
    for rule in re.finditer(r"^[ \t]*\[\[[ \t]*rule[ \t]*\]\]", text, re.MULTILINE):
        number += text.count("\n", end, rule.start())
        end = rule.start()
        lines.append(number)
    return lines
