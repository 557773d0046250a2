"""Rolling back at the next boot: whole volumes are replaced, and nothing is changed under what runs until then.

schedule → reboot → carry_over (what is kept follows) → `recover` puts back what is left, and proves it.

A volume that cannot be replaced as a whole goes back early in that boot, by the file engine. But what is read
before it (/boot, the EFI system partition) goes back at once: the next boot's kernel has to fit its modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from snapbreaker import next_root, order, selection
from snapbreaker.backend import Availability, Backend, Capability, Reason, Volume
from snapbreaker.checkpoint.lock import carrying_file
from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.checkpoint.states import State
from snapbreaker.errors import CheckpointError, RestoreError, SnapbreakerError
from snapbreaker.files.policy import PathClass
from snapbreaker.foreign.watcher import Watcher
from snapbreaker.goal import Goal
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.process import boot_id
from snapbreaker.outcome import Outcome, VolumeOutcome
from snapbreaker.paths import relative
from snapbreaker.progress import Progress, silent
from snapbreaker.report.model import absolute
from snapbreaker.report.wording import count_text, path_text
from snapbreaker.rollback import begin, put_boot_back, roll_back, told
from snapbreaker.system import service
from snapbreaker.system.boot_files import NAME
from snapbreaker.trees import source
from snapbreaker.volumes import mounted

_NO_FIRST_AID = Reason(
    "its initramfs would find no root where the power goes in the middle of the change",
    "snapbreaker install-service",
)
_SHOWN = 5  # paths that are named of those that would not go back


def schedule(record: Record, goal: Goal, progress: Progress = silent, soft: bool = False) -> Outcome:
    """The record ends in *reboot-pending*, or in *failed* where what is read before the boot could not go back.

    ``soft``: a soft reboot is to be enough. Raises CheckpointError with every reason where no volume can be
    replaced: then nothing was changed. RestoreError where it was, and cannot go on. OSError.
    """
    ready, reasons = _able(record)
    if not ready:
        raise CheckpointError(
            f"checkpoint {record.id} cannot be gone back to at boot: "
            + "; ".join(f"{root}: {reason.text}" for root, reason in reasons),
            "; ".join(dict.fromkeys(reason.remedy for _, reason in reasons if reason.remedy))
            or "leave --at-boot out: the files go back while the machine runs",
        )
    for volume, _ in ready:
        _prove_whole(volume)
    here = all(volume.stored.volume.root != "/" for volume, _ in ready)  # what finishes it is not replaced itself
    if here and (why := service.missing(record.path.parent)):
        raise CheckpointError(
            f"after the boot nobody would bring over what is kept: {NAME}: {why}", "snapbreaker install-service"
        )
    for reason in next_root.refusals(ready) if soft else ():
        raise CheckpointError(reason.text, reason.remedy)
    before = record.state
    outcome = Outcome()
    begin(record, goal)
    record.note(at_boot={"boot": boot_id(), "before": str(before), "touched": False})
    outcome.volumes = put_boot_back(record, goal, outcome, progress)
    if any(volume.changes.total for volume in outcome.volumes):
        record.note(at_boot={"boot": boot_id(), "before": str(before), "touched": True})
    if outcome.volumes and not outcome.verified:
        record.enter(State.FAILED)
        return outcome
    try:
        for volume, backend in reversed(ready):
            backend.schedule(volume.stored)
    except (OSError, SnapbreakerError) as error:
        raise _given_up(record, told(volume.stored.volume.root, error)) from error
    outcome.notes += [
        f"{volume.stored.volume.root} becomes what it was at the next boot ({backend.name})"
        for volume, backend in ready
    ]
    late = [one for one in record.meta.volumes if not order.boots(one) and one not in [each for each, _ in ready]]
    outcome.notes += [f"{one.stored.volume.root} goes back early in the next boot ({one.backend})" for one in late]
    outcome.notes.append("what is written until then is lost, but for what is kept, such as logs")
    record.pass_through(State.VERIFYING)
    record.enter(State.REBOOT_PENDING)
    if soft:
        outcome.notes.append(_softened(ready))
    return outcome


def _given_up(record: Record, why: str) -> SnapbreakerError:
    """Nothing is to happen at the next boot. What to raise: whether anything was changed."""
    noted = record.status["at_boot"]
    try:
        withdraw(record)
        record.pass_through(State.VERIFYING)
        record.enter(State.FAILED if noted["touched"] else State(noted["before"]), at_boot={})
    except (OSError, SnapbreakerError) as error:
        return RestoreError(
            f"{why}; nor can it be called off: {error}",
            "a part of it may happen at the next boot; run `snapbreaker recover`",
        )
    if noted["touched"]:
        return RestoreError(f"{why}; /boot went back already", "`snapbreaker rollback` without --at-boot")
    return CheckpointError(f"{why}; nothing happens at the next boot")


def _softened(ready: next_root.Ready) -> str:
    try:
        next_root.prepare(ready)
    except (OSError, SnapbreakerError) as error:
        next_root.withdraw()
        return f"a soft reboot will not do: {next_root.POINT}: {error}"
    return "`systemctl soft-reboot` is enough: the kernel goes on"


def take_back(
    record: Record,
    goal: Goal,
    progress: Progress = silent,
    errors: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> Outcome:
    """As ``roll_back``; but what will not go back while the machine runs does so at the next boot, where it can.

    Only the whole of a checkpoint: what was changed since a run that is over is not the run's alone. Nor is what
    others write to be kept, which would go with the rest.
    """
    outcome = roll_back(record, goal, progress, errors, watcher)
    stuck = [volume for volume in outcome.volumes if volume.refused]
    tried = bool(record.status.get("at_boot"))
    if tried and record.state is State.READY:
        record.note(at_boot={})  # it may be gone back to again
    if not stuck or tried or goal.undo or goal.paths or record.meta.foreign == "keep":
        return outcome
    try:
        able = {volume.stored.volume.root for volume, _ in _able(record)[0]}
        if not able.issuperset(volume.root for volume in stuck):
            return outcome
        later = schedule(record, goal, progress)
    except (OSError, SnapbreakerError) as error:
        outcome.notes.append(f"nor can it go back at the next boot: {error}")
        return outcome
    if record.state is not State.REBOOT_PENDING:
        outcome.errors += later.errors
        return outcome
    whys = [f"not while the machine runs: {why}" for why in _whys(outcome, stuck)]
    later.notes = [*whys, *later.notes, "until then the machine is in part as the command left it"]
    later.volumes = [
        replace(each, failures=[], differences=[], ended=False, compared=True) for each in outcome.volumes
    ]
    return later


def _whys(outcome: Outcome, stuck: Sequence[VolumeOutcome]) -> Iterator[str]:
    yield from outcome.errors
    for volume in stuck:
        for path, text in volume.failures[:_SHOWN]:
            yield f"{path_text(absolute(volume.root, path))}: {text}"
        if len(volume.failures) > _SHOWN:
            yield f"{count_text(len(volume.failures) - _SHOWN, 'further path')} in {volume.root}"


def call_off(record: Record) -> None:
    """Leave everything as it is at the next boot, too. Raises CheckpointError where it is too late; OSError."""
    noted = record.status.get("at_boot", {})
    if record.state is not State.REBOOT_PENDING or noted.get("boot") != boot_id():
        raise CheckpointError(f"checkpoint {record.id} is {record.state}: nothing of it waits for a boot")
    if noted.get("touched"):
        raise CheckpointError(
            f"what checkpoint {record.id} holds of /boot went back already: the rest has to follow", "reboot"
        )
    withdraw(record)
    next_root.withdraw()
    record.enter(State(noted["before"]), at_boot={})


def withdraw(record: Record) -> bool:
    """Whatever of it was scheduled, and was not done yet, is not to be done. Whether any was done.

    Idempotent. Raises OSError.
    """
    done = False
    for volume in record.meta.volumes:
        backend = selection.load(volume.backend)
        if Capability.AT_BOOT not in backend.capabilities:
            continue
        if backend.reverted(volume.stored):
            done = True
        else:
            backend.call_off(volume.stored)
    return done


def carry_over() -> None:
    """Early in a boot, ahead of all else: the volumes that were replaced get what is kept. Raises OSError,
    SnapbreakerError: then nothing may be done by what the store holds, which may be as old as the checkpoint.
    """
    backends = [selection.load(name) for name in selection.loadable()]
    carrying = Path(carrying_file())
    carrying.parent.mkdir(mode=0o700, exist_ok=True)
    carrying.touch(mode=0o600)
    for volume in mounted():
        for backend in backends:
            if Capability.AT_BOOT in backend.capabilities:
                try:
                    backend.after_boot(volume)
                except (OSError, SnapbreakerError):
                    if _is_there(volume):
                        raise
    carrying.unlink(missing_ok=True)


def _is_there(volume: Volume) -> bool:
    """Or was it unmounted meanwhile?"""
    place = (volume.mountpoint, volume.device)
    return any((mount.mountpoint, mount.device) == place for mount in read_mounts())


def _prove_whole(volume: VolumeRecord) -> None:
    """Raise CheckpointError where the checkpoint is lost, or nobody would bring it to an end once it is booted."""
    with source(volume, undo=False) as old:
        top = volume.stored.volume.root
        unit = os.fsencode(relative(str(service.WANTS / NAME), top)) if top == "/" else b""
        if old.lookup(unit) is None:
            raise CheckpointError(
                f"the checkpoint holds no {NAME}: after the boot nobody would bring over what is kept",
                "leave --at-boot out; after `snapbreaker install-service` later checkpoints have it",
            )


def _able(record: Record) -> tuple[list[tuple[VolumeRecord, Backend]], list[tuple[str, Reason]]]:
    """The volumes that can be replaced at boot, and why the others cannot. One that is kept as a whole, as a
    filesystem of logs, goes back file by file: what has grown there stays.
    """
    ready, reasons = [], []
    for volume in record.meta.volumes:
        if volume.stored.policy.of(b"") is not PathClass.RESTORE:
            continue
        backend = selection.load(volume.backend)
        answer = backend.at_boot(volume.stored)
        if answer and not service.knows(backend.first_aid):
            answer = Availability((_NO_FIRST_AID,))
        if answer:
            ready.append((volume, backend))
        reasons += [(volume.stored.volume.root, reason) for reason in answer.reasons]
    return ready, reasons
