"""A pattern for lines of the same kind: what differs from run to run is generalised, the words stay.

The parts that are generalised are those of ``KINDS``, tried in that order at each place of the line. Each pattern
is such that its end is certain: it takes no character with which the text goes on, so no line takes it long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache

from snapbreaker.dataclass import dataclass

LINE_LIMIT = 500  # characters; of a longer line only the beginning counts
_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?"
_UNIT = r"(?:ns|us|µs|ms|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)"
_NUMBER = r"\d+(?:[.,]\d+)*"
_TLD = (
    r"(?:com|org|net|io|dev|edu|gov|eu|de|fr|uk|nl|ch|at|cloud|app|local|lan|internal|home|example|test|invalid)"
)
_TECHNICAL = re.compile(
    r"(?:x86_64|amd64|arm64|aarch64|armhf|riscv64|ppc64el|s390x|i[3-6]86|sha(?:1|224|256|384|512)|md5|crc32|utf8|utf16|"
    r"base64|ipv[46]|ext[234]|http[123]|tls1|ed25519|k8s|ec2|s3|python[23]|py[23]|perl5|gtk[234]|qt[56]|h264|mp[34]|"
    r"log4j|i18n|l10n|a11y|w3c|p11|udp[46]|tcp[46]|inet6|vt100|oauth2)\b",
    re.IGNORECASE,
)

# By the name that a person is told: what is recognised, and what takes its place (see also ``_pattern``).
KINDS: dict[str, tuple[str, str]] = {
    "uuid": (r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b", r"[0-9a-fA-F-]{36}"),
    "url": (r"\b[a-z][a-z0-9+.-]{1,15}://[^\s\"'<>()\[\]{},;|`]*[\w/=&#~-]", r"[^\s\"'<>()\[\]{},;|`]+"),
    "time": (
        (
            rf"\b\d{{4}}-\d\d-\d\d(?:[T ]{_CLOCK})?(?:Z\b| ?[+-]\d\d:?\d\d\b)?"
            rf"|\b\d{{4}}/\d\d/\d\d(?: {_CLOCK})?\b|\b\d{{1,2}}/{_MONTH}/\d{{4}}(?::{_CLOCK})?(?: [+-]\d{{4}})?"
            rf"|\b(?:{_DAY},? )?(?:{_MONTH} +\d{{1,2}}|\d{{1,2}} {_MONTH})(?:,? +{_CLOCK})?"
            rf"(?:,? (?:[A-Z]{{3,4}} )?\d{{4}}\b)?(?: {_CLOCK})?(?: (?:[+-]\d{{4}}|GMT|UTC)\b)?"
            rf"|\b{_CLOCK}\b(?![\w:.])"
        ),
        "",
    ),
    "mac": (r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b", r"[0-9a-fA-F:]{17}"),
    "address": (
        (
            r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+|/\d+)?\b|(?<![\w:])[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])"
            r"|(?<![\w:])::1\b"
        ),
        r"[0-9a-f.:/]+",
    ),
    "hash": (
        (
            r"\bsha\d+-[\w+/]{20,}={0,2}|\b(?:sha\d+:|md5:)?(?:[0-9a-f]{32,}|(?=[a-f]*\d)[0-9a-f]{7,})(?![\w.-])"
            r"|\b(?=[A-F]*\d)[0-9A-F]{8,}(?![\w.-])|\b0x[0-9a-fA-F]+\b|\b\d{7,}(?![\w.,/%-])"
        ),
        "",
    ),
    "host": (
        rf"(?<=@)[\w-]+(?:\.[\w-]+)*|\b(?:[a-zA-Z0-9-]+\.)+{_TLD}\b(?![\w.]*/)(?::\d+\b)?|\blocalhost(?::\d+)?\b",
        r"[\w.-]+",
    ),
    "size": (
        rf"\b{_NUMBER} ?(?:[kKMGTP]i?[Bb]|[Bb]ytes?|B|[KMGTP])(?:/s|ps)?\b(?!-)",
        r"\d[\d.,]* ?[kKMGTP]?i?[Bb]\w*(?:/s)?",
    ),
    "percentage": (rf"(?<![\w.]){_NUMBER} ?%", r"\d[\d.,]* ?%"),
    "duration": (
        rf"(?<![\w.])(?:\d+[hm])+{_NUMBER}s\b|(?<![\w.]){_NUMBER} ?{_UNIT}\b(?![-.\w])",
        r"\d[\w.,]*(?: [a-zµ]{1,7})?",
    ),
    "version": (
        (
            r"(?<![\w.])v?(?:\d+:)?\d+(?:\.\d+)+(?:[\w.+~:-]*[\w+~])?|(?<=\()\d[\w.+~:-]*(?=\))"
            r"|(?<=[a-z]-)\d+(?:\.\d+)*(?:[\w.+~:-]*[\w+~])?"
        ),
        r"\d[\w.+~:-]*",
    ),
    "path": (
        (
            r"(?<![\w.:])~?/(?:[\w.+@%~=,-]+/?)+(?<![.,])|(?<![\w./-])\.{0,2}/?(?=[\w.+@%~=-]*[a-zA-Z])[\w.+@%~=-]+"
            r"(?:/[\w.+@%~=-]+)+/?(?<!\.)"
        ),
        r"[\w./+@%~=,-]+",
    ),
    "file": (
        r"(?<![\w./-])(?=[\w+-]*[a-zA-Z])[\w+-]{2,}(?:\.[\w+-]+)*\.[A-Za-z]\w{0,5}\b(?![\w./-])",
        r"[\w.+-]+",
    ),
    "progress bar": (
        r"\[[=#>. *█▉░▒━╸-]{5,}\]|[█▉░▒▓━╸╺]{5,}|(?P<bar>[=#.*_~+-])(?P=bar){4,}>?",
        r"[\[\]=#>.*_~+█▉░▒▓━╸╺ -]+",
    ),
    "id": (r"\b(?=[a-zA-Z]*\d+[a-zA-Z]+\d)[a-zA-Z0-9]{6,}\b", r"\w+"),
    "number": (rf"{_NUMBER}(?=[^\w.]|$)|\d+", r"\d+"),
    "spaces": (r" {2,}|\t+| (?=\d+(?:[.,]\d+)? ?%)", r"\s+"),
}
_TIME_PART = re.compile(r"\d+| +|[A-Z][a-z]+|[+.]")
_HASH = re.compile(r"(?P<mark>(?:sha\d+[:-]|md5:|0x)?)(?:(?P<small>[0-9a-f]+)|(?P<large>[0-9A-F]+)|.*)")
_NAMES = list(KINDS)
_PLURAL = re.compile(r" ([a-z]{3,}?)(s?)(?=[^\w-]|$)")
_NO_NOUN = re.compile(r".*(?:ed|ly|ing|new|of|and|the|to|not|more|from|for|in|were|was|is|are|us|ss)$")


@dataclass(frozen=True, slots=True)
class Generalized:
    """``pattern`` matches the whole line; ``parts`` are what was generalised, as (kind, text), in order."""

    pattern: str
    parts: tuple[tuple[str, str], ...]

    @property
    def kinds(self) -> Counter[str]:
        return Counter(kind for kind, _ in self.parts)


def generalize(line: str, names: Collection[str] = ()) -> Generalized:
    """A Python regular expression for the whole of ``line`` and of others of its kind.

    ``names`` are words that are generalised as hosts: the machine's own.
    """
    head = line[:LINE_LIMIT]
    found, parts, end, plural = [], [], 0, False
    for start, stop, kind in _parts(head, _finder(tuple(names))):
        found.append(_words(head[end:start], plural))
        found.append(_pattern(kind, head[start:stop]))
        if kind != "spaces":
            parts.append((kind, head[start:stop]))
        end, plural = stop, kind == "number" and not head[start - 1 : start].isalnum()
    found.append(_words(head[end:], plural))
    return Generalized("^" + "".join(found) + ("$" if head == line else ".*$"), tuple(parts))


@cache
def _finder(names: tuple[str, ...]) -> re.Pattern[str]:
    known = "|".join(re.escape(name) for name in names if len(name) > 3)
    host = _NAMES.index("host")
    kinds = [
        f"(?P<k{n}>" + (rf"(?<![\w.-])(?:{known})(?![\w-])|" if known and n == host else "") + found + ")"
        for n, (found, _) in enumerate(KINDS.values())
    ]
    return re.compile("|".join(kinds))


def _parts(line: str, finder: re.Pattern[str]) -> Iterator[tuple[int, int, str]]:
    place = 0
    while match := finder.search(line, place):
        start, place = match.span()
        kind = _NAMES[int(str(match.lastgroup)[1:])]
        if kind in ("number", "id", "file") and (word := _technical(line, start)):
            place = word
            continue
        yield start, place, kind


def _technical(line: str, place: int) -> int:
    """Where the technical word ends that the digit at ``place`` is in; 0: in none."""
    start = place
    while start and (line[start - 1].isalnum() or line[start - 1] == "_"):
        start -= 1
    match = _TECHNICAL.match(line, start)
    return match.end() if match and match.end() > place else 0


def _pattern(kind: str, text: str) -> str:
    general = KINDS[kind][1]
    if kind == "number" and not text.isdecimal():
        return r"\d+(?:[.,]\d+)*"
    if kind == "time":  # its shape, or a line of another kind could hide in it
        return _TIME_PART.sub(_time_part, text)
    if kind == "hash":
        found = _HASH.fullmatch(text)
        assert found is not None
        return found["mark"] + ("[0-9a-f]+" if found["small"] else "[0-9A-F]+" if found["large"] else r"[\w+/=]+")
    if kind == "url":
        scheme = text.partition(":")[0]
        return ("https?" if scheme in ("http", "https") else _SPECIAL.sub(r"\\\g<0>", scheme)) + "://" + general
    if kind == "duration" and " " not in text:
        return r"\d[\w.,]*"
    if kind == "version" and text.startswith("v"):
        return "v" + general
    if kind == "host" and ":" in text:
        return general + r":\d+"
    if kind == "size" and not text.rstrip("/sp")[-1:].lower().endswith("b") and "yte" not in text:
        return r"\d[\d.,]* ?[kKMGTP]?"
    return general


def _time_part(match: re.Match[str]) -> str:
    text = match.group()
    return (
        r"\d+"
        if text.isdecimal()
        else " +"
        if text.isspace()
        else "[A-Z][a-z]+"
        if text.isalpha()
        else "\\" + text
    )


def _words(text: str, plural: bool) -> str:
    """Like re.escape, but leaves what needs no escape readable. ``plural``: a number stands before it."""
    match = _PLURAL.match(text) if plural else None
    if match and not _NO_NOUN.match(match[1] + match[2]):
        return " " + match[1] + "s?" + _SPECIAL.sub(r"\\\g<0>", text[match.end() :])
    return _SPECIAL.sub(r"\\\g<0>", text)
