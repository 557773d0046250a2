"""Everything that is needed between the start of the command and the report is loaded here, beforehand.

The command may remove the standard library, this program, or the C library from the disk. What a process has
already loaded it keeps; what it would have to load then is gone.
"""

from __future__ import annotations

import codecs
import gc
import importlib
from contextlib import suppress

from snapbreaker import selection
from snapbreaker.errors import SnapbreakerError

MODULES = (
    "snapbreaker.breaker",
    "snapbreaker.recover",
    "snapbreaker.rollback",
    "snapbreaker.monitor.monitor",
    "snapbreaker.report.text",
    "snapbreaker.report.markdown",
    "snapbreaker.report.events",
    "snapbreaker.cli.recover",
    "snapbreaker.cli.report",
    "runpy",
    # What Python imports by itself, late: to show a traceback, to encode a name, to end a thread.
    "traceback",
    "linecache",
    "tokenize",
    "threading",
    "unicodedata",
    "stringprep",
)
CODECS = ("utf-8", "ascii", "latin-1", "idna", "utf-8-sig")


def load(*more: str) -> None:
    """Import all of it, and ``more``, and have each codec built."""
    for name in (*MODULES, *more):
        importlib.import_module(name)
    for name in CODECS:
        codecs.lookup(name)
    for name in selection.names():
        with suppress(SnapbreakerError):  # a run that wants it is told why
            selection.load(name)
    try:
        raise RuntimeError("warm-up")
    except RuntimeError as error:
        importlib.import_module("traceback").format_exception(error)
    gc.freeze()  # or a collection in a forked process makes a copy of each page that it looks at
