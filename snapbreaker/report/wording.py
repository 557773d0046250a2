"""How names, numbers and times are shown to a person.

Times are UTC: the local zone would have to be read from a file, which may be one of those just being restored.
"""

from __future__ import annotations

import re
import shlex
import time
import unicodedata
from collections.abc import Sequence

NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
MORE_THAN_SPACES = re.compile(r"[^ ]+")


def line_text(line: str) -> str:
    """A line of output with everything escaped that would not be seen, or would move the cursor. Tabs stay."""
    if line.isprintable():
        return line
    return "".join(c if c == "\t" or unicodedata.category(c) == "Zs" else _visible(c) for c in line)


def path_text(path: str) -> str:
    """A path (str with surrogateescape), on one line and unambiguous.

    A newline is shown as ``\\n``, a byte that is not UTF-8 as ``\\xff``, a backslash as ``\\\\``.
    """
    if path.isprintable() and "\\" not in path:
        return path
    return "".join("\\\\" if c == "\\" else _visible(c) for c in path)


def command_text(argv: Sequence[str]) -> str:
    """A command line that a POSIX shell with ``$'…'`` (bash, zsh, ksh) reads back as ``argv``."""
    return " ".join(_shell_word(word) for word in argv)


def size_text(size: float) -> str:
    """Bytes in decimal units: ``3.1 MB``."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    raise AssertionError("unreachable")


def seconds_text(seconds: float) -> str:
    """A duration: ``0.9 ms``, ``1.4 s``, ``2 min 03 s``, ``1 h 05 min``."""
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def minutes_text(seconds: float) -> str:
    """A duration that goes on: ``0:07``, ``12:03``, ``1:05:00``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def time_text(epoch: float) -> str:
    """A moment: ``2026-11-23 17:02:49 UTC``."""
    t = time.gmtime(epoch)
    return f"{t.tm_year}-{t.tm_mon:02d}-{t.tm_mday:02d} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} UTC"


def count_text(count: int, noun: str, plural: str = "") -> str:
    """``1 path``, ``2,811 paths``, ``2 processes``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def cells(text: str) -> int:
    """Columns that ``text`` takes on a terminal (UAX #11: wide characters take two, combining marks none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def clipped(text: str, width: int) -> str:
    """``text`` cut to ``width`` columns, with ``...`` where something is missing."""
    if cells(text) <= width:
        return text
    kept, used = [], 0
    for c in text:
        used += cells(c)
        if used > width - 3:
            break
        kept.append(c)
    return "".join(kept) + "..."


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` columns, broken at spaces only: paths and options stay whole."""
    lines: list[str] = []
    for word in MORE_THAN_SPACES.findall(text):
        if lines and cells(lines[-1]) + 1 + cells(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines or [""]


def _visible(c: str) -> str:
    if c.isprintable():
        return c
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return NAMED.get(c) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shell_word(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    octets = word.encode("utf-8", "surrogateescape")
    return "$'" + "".join(chr(o) if 0x20 <= o < 0x7F and o not in b"'\\" else f"\\{o:03o}" for o in octets) + "'"
