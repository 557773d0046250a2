"""The schema of the events, read off their dataclasses: documentation and a validator."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from snapbreaker.dataclass import dataclass
from snapbreaker.report.events import KINDS, Event

ENVELOPE: dict[str, tuple[type, str]] = {
    "event": (str, "the kind, one of those below"),
    "time": (float, "when the event was written, seconds since the epoch"),
    "id": (str, "id of the checkpoint, empty until there is one"),
}
BY_NAME: dict[str, type[Event]] = {kind.event: kind for kind in KINDS}
JSON_NAMES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event: its Python type, what it means, and whether it may be left out."""

    name: str
    type: Any
    meaning: str
    optional: bool


def fields_of(kind: type[Any]) -> list[Field]:
    """The fields of an event, or of a dataclass inside one."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for item in fields(kind):
        hint = hints[item.name]
        if get_origin(hint) is not Annotated:
            raise TypeError(f"{kind.__name__}.{item.name} has no description")
        plain, meaning = get_args(hint)
        found.append(Field(item.name, plain, meaning, item.default is None and item.default is not MISSING))
    return found


def problems(data: Any) -> list[str]:
    """What is wrong with one decoded line of ``--json``; an empty list when it follows the schema."""
    if not isinstance(data, dict):
        return ["not an object"]
    kind = BY_NAME.get(str(data.get("event")))
    if kind is None:
        return [f"unknown event {data.get('event')!r}"]
    body = {name: value for name, value in data.items() if name not in ENVELOPE}
    envelope = [Field(name, hint, meaning, False) for name, (hint, meaning) in ENVELOPE.items()]
    head = {name: data[name] for name in ENVELOPE if name in data}
    return _compare(head, envelope, "") + _compare(body, fields_of(kind), "")


def type_name(hint: Any) -> str:
    """``list[int]`` as a reader of JSON calls it: array of integer."""
    if hint in JSON_NAMES:
        return JSON_NAMES[hint]
    if hint is type(None):
        return "null"
    arguments = get_args(hint)
    if get_origin(hint) is list:
        return f"array of {type_name(arguments[0])}"
    if get_origin(hint) is dict:
        return f"object, each value {type_name(arguments[1])}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(type_name(argument) for argument in arguments)
    return "object (" + ", ".join(f"`{item.name}` {type_name(item.type)}" for item in fields_of(hint)) + ")"


def _compare(data: dict[str, Any], expected: list[Field], where: str) -> list[str]:
    found = [f"{where}{name}: unknown field" for name in data.keys() - {item.name for item in expected}]
    for item in expected:
        if item.name not in data:
            found += [] if item.optional else [f"{where}{item.name}: missing"]
        else:
            found += _mismatch(data[item.name], item.type, where + item.name)
    return found


def _mismatch(value: Any, hint: Any, where: str) -> list[str]:
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        fits = any(not _mismatch(value, argument, where) for argument in arguments)
        return [] if fits else [f"{where}: {value!r} is not {type_name(hint)}"]
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _compare(value, fields_of(hint), where + ".")
    if get_origin(hint) is list and isinstance(value, list):
        return [text for item in value for text in _mismatch(item, arguments[0], where + "[]")]
    if get_origin(hint) is dict and isinstance(value, dict):
        return [text for item in value.values() for text in _mismatch(item, arguments[1], where + "{}")]
    return [] if _is_plain(value, hint) else [f"{where}: {value!r} is not {type_name(hint)}"]


def _is_plain(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a plain type. Python calls true and false integers; JSON does not."""
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint in (str, bool, type(None)) and isinstance(value, hint)


def events_page() -> str:
    """``docs/events.md``."""
    parts = [PREFACE, _table([Field(name, hint, text, False) for name, (hint, text) in ENVELOPE.items()])]
    for kind in KINDS:
        first, _, rest = (kind.__doc__ or "").partition("\n")
        parts.append(f"## `{kind.event}`\n\n{first}" + (f"\n\n{_dedented(rest)}" if rest.strip() else ""))
        parts.append(_table(fields_of(kind)))
    return "\n\n".join(parts) + "\n"


def _dedented(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _table(rows: list[Field]) -> str:
    lines = ["| field | type | meaning |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| `{row.name}` | {type_name(row.type)} | {row.meaning} |" for row in rows])


PREFACE = """\
<!-- Generated by scripts/docs from snapbreaker/report/events.py. Do not edit. -->

# Events

With `--json` a verb writes one JSON object a line to standard output, each by one write(2), at the moment when
it happens. `start` comes first and `finished` last. A verb that is refused (a usage error) writes `error` and
`finished`, and the same message to standard error; one that is killed may end without `finished`, then its exit
code tells (see exit-codes.md). New kinds and new fields may be added: ignore what you do not know.

A run that trips: `start`, `checkpoint`, `running`, `output` …, `issue`, `halted`, `restoring`, `restored`,
`verified`, `finished`. One that does not: `start`, `checkpoint`, `running`, `output` …, `committed`, `finished`.
`progress`, `warning` and `error` may come in between. `checkpoint diff` writes `difference` or `stat`
and nothing else.

The text is ASCII. A path or argument that is not UTF-8 has a lone surrogate U+DC80…U+DCFF for each byte
0x80…0xFF that does not belong (Python's `surrogateescape`), so `"\\udcff"` is the byte 0xFF.

Every object has these fields, and those of its kind:"""
