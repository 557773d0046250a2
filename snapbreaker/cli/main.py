"""The command line. Each verb is a file of its own, imported when it is asked for."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from itertools import takewhile
from typing import NoReturn, TextIO

import click

from snapbreaker import __version__, progress
from snapbreaker.checkpoint.store import Store
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import SnapbreakerError, UsageError
from snapbreaker.exits import Exit
from snapbreaker.monitor.streams import fill_standard_descriptors
from snapbreaker.report.wording import path_text
from snapbreaker.signals import Interrupted

AFTERWARDS = "if a run was going on: snapbreaker recover"

VERBS = {
    "run": ("run", "run"),
    "checkpoint": ("checkpoint", "checkpoint"),
    "rollback": ("rollback", "rollback"),
    "verify": ("verify", "verify"),
    "confirm": ("confirm", "confirm"),
    "recover": ("recover", "recover"),
    "attach": ("attach", "attach"),
    "report": ("report", "report"),
    "rules": ("rules", "rules"),
    "doctor": ("doctor", "doctor"),
    "install-service": ("install_service", "install_service"),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options before the verb say."""

    store: Store
    verbosity: int = 0


class LazyGroup(click.Group):
    """A group that imports a verb's module only when that verb is used, or all of them for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name]
        command = getattr(import_module(f"snapbreaker.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes and the whole contract: docs/. Begin with `snapbreaker doctor`.",
)
@click.option("--store", metavar="DIR", envvar="SNAPBREAKER_STORE", help="Where records live.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless something went wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.version_option(__version__, prog_name="snapbreaker")
@click.pass_context
def main(ctx: click.Context, store: str | None, quiet: bool, verbose: bool) -> None:
    """A circuit breaker for changes to a Linux machine.

    It takes a checkpoint, runs a command, watches every line, and at the first issue halts, puts everything
    back exactly, and proves it.
    """
    ctx.obj = Settings(Store(store), -1 if quiet else int(verbose))


def launch() -> NoReturn:
    """Entry point: whatever happens, the exit code is one of the table."""
    fill_standard_descriptors()  # before anything else gets 0, 1 or 2, and the command's output with it
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the locale cannot show must not end a verb
    code = _code()
    progress.clear()
    _let_go(sys.stdout)
    _let_go(sys.stderr)
    os._exit(code)  # Python's own end takes each object apart, 15 ms after a run; nothing is left to do


def _code() -> int:
    try:
        code = main(standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        _tell_program(UsageError(error.format_message()))
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except Interrupted as stop:
        return 128 + stop.number
    except SnapbreakerError as error:
        _say(f"snapbreaker: {error.message}", f"snapbreaker: hint: {error.hint}" if error.hint else "")
        _tell_program(error)
        return error.exit_code
    except SystemExit:  # how click takes EPIPE (`snapbreaker verify | head`); its status would be 1
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = f": {path_text(os.fsdecode(error.filename))}" if error.filename else ""
        _say(f"snapbreaker: {error.strerror or error}{where}", AFTERWARDS)
        return Exit.INTERNAL
    except BaseException:
        _say(traceback.format_exc().rstrip("\n"), f"snapbreaker: internal error; {AFTERWARDS}")
        return Exit.INTERNAL
    return code if isinstance(code, int) else Exit.OK


def _tell_program(error: SnapbreakerError) -> None:
    """With --json an error that no verb has told is on standard output too, as events."""
    if "--json" in takewhile(lambda argument: argument != "--", sys.argv[1:]):
        from snapbreaker.narrator import EventNarrator

        sys.stdout.flush()
        EventNarrator().failed(error)


def _say(*lines: str) -> None:
    """On standard error. One that is gone or full must not change the exit code."""
    progress.clear()
    with suppress(OSError):
        for line in filter(None, lines):
            print(line, file=sys.stderr)


def _let_go(stream: TextIO) -> None:
    """Flush it, or Python does so at its end, and makes the exit code 120 where that fails."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
