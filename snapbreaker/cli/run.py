"""`snapbreaker run`"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import SYSTEM, here, narrator_for, told
from snapbreaker.errors import CheckpointError, SnapbreakerError, UsageError

LONGEST = 2_000_000  # seconds: poll(2) counts milliseconds in an int

EXAMPLES = """\b
Examples:
  snapbreaker run -- apt-get install -y nginx-light
  snapbreaker run --scope /srv/app -- ./deploy.sh
  snapbreaker run --log /srv/app/log/app.log --journal -- systemctl restart app
  snapbreaker run --scope /etc --check 'nginx -t' --confirm 60 -- ./change-config
"""


@click.command(context_settings={"allow_interspersed_args": False}, epilog=EXAMPLES)
@click.option(
    "--scope",
    multiple=True,
    metavar="PATH",
    help="Directory to protect, again and again.  [default: the system]",
)
@click.option("--keep", multiple=True, metavar="PATH", help="Neither recorded nor touched, with all below it.")
@click.option(
    "--foreign",
    type=click.Choice(["restore", "keep"]),
    default="restore",
    show_default=True,
    help="After an issue, what others wrote meanwhile goes back too (a copy is saved), or stays.",
)
@click.option("--backend", metavar="NAME", help="Use this backend instead of the best one.")
@click.option(
    "--idle", default=30.0, show_default=True, metavar="S", help="Trip after S seconds of silence; 0: never."
)
@click.option("--idle-activity", is_flag=True, help="Do not count silence while it computes, reads or writes.")
@click.option(
    "--idle-hard",
    default=600.0,
    show_default=True,
    metavar="S",
    help="Trip after S seconds of silence all the same, also when it is stopped; 0: never.",
)
@click.option("--timeout", type=float, metavar="S", help="Trip when the command takes longer than S seconds.")
@click.option("--strict", is_flag=True, help="Trip at every line that no `expect` rule knows.")
@click.option("--observe", is_flag=True, help="Halt nothing; report what would have tripped.")
@click.option("--rules", multiple=True, metavar="FILE", help="More rules. May be given again; the last one wins.")
@click.option("--profile", multiple=True, metavar="NAME", help="Use this built-in rule pack too.")
@click.option(
    "--log", multiple=True, metavar="FILE", help="Judge what is written to this file, too. Again and again."
)
@click.option("--journal", is_flag=True, help="Judge what the units that it starts log, too.")
@click.option(
    "--unit", multiple=True, metavar="UNIT", help="Judge what this unit logs, instead of those. Again and again."
)
@click.option("--check", multiple=True, metavar="CMD", help="Health check after success; a failure trips.")
@click.option(
    "--confirm", type=float, metavar="S", help="Roll back unless `snapbreaker confirm` comes in S seconds."
)
@click.option("--pty/--no-pty", default=None, help="Run it on a terminal of its own.  [default: if we have one]")
@click.option("--cwd", metavar="DIR", help="Run it in this directory.")
@click.option("--env", multiple=True, metavar="K=V", help="Set this in its environment. May be given again.")
@click.option("--grace", default=0.0, metavar="S", help="At a halt send TERM and wait S seconds before KILL.")
@click.option(
    "--on-hangup",
    type=click.Choice(["rollback", "continue"]),
    default="rollback",
    show_default=True,
    help="When the terminal, the SSH session or the reader of the output goes away.",
)
@click.option("--hold", is_flag=True, help="Sandbox: leave the change there; confirm or rollback it later.")
@click.option("--upper", metavar="DIR", help="Sandbox: keep what the command writes here, instead of in memory.")
@click.option("--upper-size", metavar="N", help="Sandbox: memory for that.  [default: half of what is free]")
@click.option(
    "--share-socket", multiple=True, metavar="PATH", help="Sandbox: let it use this socket of the machine in /run."
)
@click.option("--snapshot-size", metavar="N", help="LVM: room for what changes, where a snapshot is not thin.")
@click.option("--note", default="", metavar="TEXT", help="Kept with the checkpoint.")
@click.option("--no-hint", is_flag=True, help="Do not say that a tool could say more.")
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line.")
@click.option("--report", metavar="FILE", help="Write the report here too (.md, .json, .html, else text).")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@click.pass_obj
def run(settings: Settings, /, command: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND behind the breaker.

    At the first issue (an error, a warning, a skipped step, silence, a failure) the command and all its
    processes are frozen and killed, the machine is put back exactly, with its packages and services, compared
    and reported: exit 1. Otherwise the change stays, and `snapbreaker rollback --last` can still undo it. With
    --scope just those directories are protected.
    """
    from snapbreaker import preload
    from snapbreaker.breaker import run as run_breaker
    from snapbreaker.checkpoint.lock import Lock
    from snapbreaker.config import configured
    from snapbreaker.monitor.hints import hint
    from snapbreaker.monitor.rules import RuleSet
    from snapbreaker.recover import rescue
    from snapbreaker.request import RunRequest
    from snapbreaker.supervisor import Lifeline, supervise

    cwd = _directory(options["cwd"])
    files = [Path(name) for name in options["rules"]]
    request = RunRequest(
        argv=command,
        scope=options["scope"] or SYSTEM,
        system=not options["scope"],
        rules=RuleSet.for_command(command, files, options["profile"], configured(cwd)),
        keep=options["keep"],
        backend=options["backend"],
        foreign=options["foreign"],
        idle=_seconds(options, "idle") or None,
        activity=options["idle_activity"],
        hard=_seconds(options, "idle_hard") or None,
        timeout=_seconds(options, "timeout") or None,
        grace=_seconds(options, "grace"),
        on_hangup=options["on_hangup"],
        logs=[_log(cwd, path) for path in options["log"]],
        journal=options["journal"] or bool(options["unit"]),
        units=options["unit"],
        strict=options["strict"],
        observe=options["observe"],
        checks=options["check"],
        confirm=None if options["confirm"] is None else _seconds(options, "confirm"),
        pty=options["pty"],
        cwd=cwd,
        env=dict(_assignment(text) for text in options["env"]),
        note=options["note"],
        invocation=_invocation(command),
        sandbox=_sandbox(options),
        snapshot_size=_size(options["snapshot_size"]),
        hold=options["hold"],
    )
    if options["hold"] and (options["check"] or options["confirm"] is not None):
        raise UsageError("--hold goes with neither --check nor --confirm: nothing is on the machine to be checked")
    store = settings.store
    narrator = narrator_for(options["as_json"], settings.verbosity)
    if not options["no_hint"] and (said := hint(command, {**os.environ, **request.env})):
        narrator.hint(said)

    def work(lifeline: Lifeline) -> int:
        return told(narrator, lambda: run_breaker(request, store, lifeline, narrator))

    def guarded() -> int:
        if not os.path.exists("/proc/self/stat"):
            raise CheckpointError("/proc is not mounted", "mount -t proc proc /proc")
        if request.on_hangup == "continue":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup(1), for the command too
        preload.load(*["sh"] if request.checks else [])  # health checks run behind the command
        with Lock("run " + " ".join(command)):
            return supervise(work, lambda worker: told(narrator, lambda: rescue(store, worker, narrator)))

    newest = _newest(store)
    code = told(narrator, guarded)
    if options["report"] and (record := _newest(store)) != newest and record:
        _write_report(record, options["report"])
    return code


def _sandbox(options: Any) -> Any:
    from snapbreaker.sandbox.sandbox import Options
    from snapbreaker.sandbox.size import parse

    return Options(
        upper=options["upper"] or "",
        size=parse(options["upper_size"]) if options["upper_size"] else 0,
        sockets=[_socket(path) for path in options["share_socket"]],
    )


def _size(text: str | None) -> int:
    from snapbreaker.sandbox.size import parse

    return parse(text, "--snapshot-size") if text else 0


def _socket(path: str) -> str:
    place = os.path.realpath(path)
    if not (place.startswith("/run/") and os.path.lexists(place)):
        raise UsageError(f"--share-socket {path} is nothing in /run", "all that lies elsewhere is shared anyway")
    return place


def _log(cwd: str, path: str) -> str:
    """Absolute; relative to where the command runs. The file may come later."""
    place = os.path.normpath(os.path.join(cwd, path))
    if os.path.lexists(place) and not os.path.isfile(place):
        raise UsageError(f"--log {path} is no file")
    return place


def _seconds(options: Any, name: str) -> float:
    value = float(options[name] or 0.0)
    if not 0 <= value <= LONGEST:  # nan is neither
        option = name.replace("_", "-")
        raise UsageError(f"--{option} {value:g} is no number of seconds from 0 to {LONGEST}")
    return value


def _directory(path: str | None) -> str:
    if path is None:
        return here()
    if not os.path.isdir(path):
        raise UsageError(f"--cwd {path} is not a directory")
    return path if os.path.isabs(path) else os.path.normpath(os.path.join(here(), path))


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"--env {text} is not NAME=VALUE")
    return name, value


def _invocation(command: tuple[str, ...]) -> list[str]:
    """Our own command line as typed, without the command."""
    typed = ["snapbreaker", *sys.argv[1:]]
    own = typed[: len(typed) - len(command)]
    return own[:-1] if own[-1:] == ["--"] else own


def _newest(store: Any) -> Any:
    records = store.records()
    return records[-1].path if records else None


def _write_report(record: Path, name: str) -> None:
    from snapbreaker.cli.report import render_as
    from snapbreaker.report.saved import load_report

    forms = {".md": "markdown", ".json": "json", ".html": "html"}
    try:
        text = render_as(load_report(record), forms.get(Path(name).suffix, "text"))
        Path(name).write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, SnapbreakerError) as error:  # how the run ended stands
        with suppress(OSError):
            print(f"snapbreaker: the report could not be written to {name}: {error}", file=sys.stderr)
