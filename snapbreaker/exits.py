"""The one table of exit codes. ``docs/exit-codes.md`` is generated from it (``scripts/docs``)."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a snapbreaker process ends. Signals are ``128 + n`` and not listed here."""

    OK = 0
    ROLLED_BACK = 1
    USAGE = 2
    MANUAL = 3
    NOT_STARTED = 4
    AT_REBOOT = 5
    INTERNAL = 70
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127


MEANING: dict[Exit, str] = {
    Exit.OK: "success",
    Exit.ROLLED_BACK: "issue found; rolled back and verified",
    Exit.USAGE: "usage error",
    Exit.MANUAL: "rolled back with differences, or failed: manual intervention needed (the report lists what)",
    Exit.NOT_STARTED: "no valid checkpoint or refused beforehand; nothing was run or changed",
    Exit.AT_REBOOT: "rolled back; takes effect at reboot",
    Exit.INTERNAL: "internal error, state unknown: run `snapbreaker recover`",
    Exit.NOT_EXECUTABLE: "the command cannot be executed",
    Exit.NOT_FOUND: "the command was not found",
}
