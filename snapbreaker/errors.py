"""One tree of exceptions. Each has a message (what and where), a hint (what to do) and an exit code."""

from __future__ import annotations

from snapbreaker.exits import Exit


class SnapbreakerError(Exception):
    """Base of every error that snapbreaker raises on purpose.

    ``message`` says what failed and where, in one line; ``hint`` says what to do next (may be empty).
    """

    exit_code: Exit = Exit.INTERNAL

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(SnapbreakerError):
    """Bad input from the caller: options, rule files, ids."""

    exit_code = Exit.USAGE


class CheckpointError(SnapbreakerError):
    """No valid checkpoint could be made, or the one asked for cannot be used. Nothing was run or changed."""

    exit_code = Exit.NOT_STARTED


class ContentLost(CheckpointError):
    """A file was changed in place, and what it held before was not saved."""


class LockHeld(CheckpointError):
    """Another snapbreaker is at work on this machine."""


class Conflict(CheckpointError):
    """Paths changed again since the run; undoing it would lose that. Nothing was changed."""

    def __init__(self, message: str, paths: list[bytes], hint: str = "") -> None:
        super().__init__(message, hint)
        self.paths = paths


class RestoreError(SnapbreakerError):
    """Files could not be put back."""

    exit_code = Exit.MANUAL


class CommandNotFound(SnapbreakerError):
    exit_code = Exit.NOT_FOUND


class CommandNotExecutable(SnapbreakerError):
    exit_code = Exit.NOT_EXECUTABLE


class ToolError(SnapbreakerError):
    """An external program failed. Carries everything there is to know about it."""

    def __init__(self, argv: list[str], status: int, stdout: str, stderr: str) -> None:
        detail = (stderr.strip() or stdout.strip() or "no output").splitlines()[-1]
        super().__init__(f"{argv[0]} ended with {status}: {detail}")
        self.argv, self.status, self.stdout, self.stderr = argv, status, stdout, stderr
