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

# What a code means to one verb, where that is more than MEANING says. 2 and 70 any verb can end with.
VERBS: dict[str, dict[Exit, str]] = {
    "run": {
        Exit.OK: "no issue: the change stays (`--observe`: whatever was seen)",
        Exit.ROLLED_BACK: MEANING[Exit.ROLLED_BACK],
        Exit.MANUAL: MEANING[Exit.MANUAL],
        Exit.NOT_STARTED: MEANING[Exit.NOT_STARTED],
        Exit.AT_REBOOT: MEANING[Exit.AT_REBOOT],
        Exit.NOT_EXECUTABLE: MEANING[Exit.NOT_EXECUTABLE],
        Exit.NOT_FOUND: MEANING[Exit.NOT_FOUND],
    },
    "checkpoint": {
        Exit.OK: "done",
        Exit.MANUAL: "`checkpoint diff --exit-code`: the differences are listed",
        Exit.NOT_STARTED: "no checkpoint could be made, or the one asked for cannot be used",
    },
    "rollback": {
        Exit.OK: "rolled back and verified (`--dry-run`: it could be)",
        Exit.MANUAL: MEANING[Exit.MANUAL],
        Exit.NOT_STARTED: "refused: nothing to undo, or paths changed again since the run; nothing was changed",
        Exit.AT_REBOOT: MEANING[Exit.AT_REBOOT],
    },
    "verify": {
        Exit.OK: "nothing differs",
        Exit.MANUAL: "the differences are listed",
        Exit.NOT_STARTED: "the checkpoint cannot be used",
    },
    "confirm": {
        Exit.OK: "confirmed: the change stays",
        Exit.ROLLED_BACK: "what was held could not be applied, or a unit failed then: rolled back and verified",
        Exit.MANUAL: MEANING[Exit.MANUAL],
        Exit.NOT_STARTED: "the run does not wait for it, or others changed the same files: nothing was changed",
    },
    "recover": {
        Exit.OK: "nothing is left unfinished",
        Exit.MANUAL: MEANING[Exit.MANUAL],
        Exit.AT_REBOOT: "what will not go back while the machine runs does so at the next reboot",
        Exit.NOT_STARTED: "another snapbreaker is at work",
    },
    "attach": {
        Exit.OK: "the run ended well",
        Exit.ROLLED_BACK: MEANING[Exit.ROLLED_BACK],
        Exit.MANUAL: MEANING[Exit.MANUAL],
        Exit.NOT_STARTED: "there is no report: the command was never run",
        Exit.AT_REBOOT: MEANING[Exit.AT_REBOOT],
    },
    "report": {
        Exit.OK: "shown",
        Exit.NOT_STARTED: "there is no report",
    },
    "rules": {
        Exit.OK: "done (`rules check`: the log holds no issue)",
        Exit.ROLLED_BACK: "`rules check`: the log holds an issue",
    },
    "install-service": {
        Exit.OK: "installed (or removed)",
        Exit.NOT_STARTED: "it cannot be installed here",
    },
    "doctor": {
        Exit.OK: "shown",
        Exit.NOT_STARTED: "the scope cannot be protected",
    },
}
