"""What of the system has to be in order before a checkpoint is taken."""

from __future__ import annotations

from snapbreaker.errors import CheckpointError
from snapbreaker.linux.systemd import Manager, SystemdError
from snapbreaker.system import packages
from snapbreaker.system.holds import BUSY
from snapbreaker.system.owners import is_session
from snapbreaker.system.parts import Parts

PATIENCE = 5.0  # s for queued jobs to end


def check(parts: Parts) -> None:
    """Raise CheckpointError where packages or units are in the middle of something: nobody wants that back."""
    try:
        if parts.packages:
            packages.refuse_unsound()
        if parts.services:
            with Manager.connect() as manager:
                _refuse_busy(manager)
    except SystemdError as error:
        raise CheckpointError(error.message, error.hint) from error


def _refuse_busy(manager: Manager) -> None:
    state = manager.state()
    if state == "stopping":
        raise CheckpointError("the machine is shutting down", "run it again after the boot")
    units = manager.units()
    for name in BUSY:
        if name in units and units[name].running:
            raise CheckpointError(f"{name} is at work", f"wait until it has ended: systemctl status {name}")
    if not manager.wait(lambda: not _jobs(manager), PATIENCE):
        unit, kind = next(iter(_jobs(manager).values()))
        raise CheckpointError(
            f"systemd has jobs queued: {kind} of {unit}", "wait until they have ended: systemctl list-jobs"
        )


def _jobs(manager: Manager) -> dict[int, tuple[str, str]]:
    """Those that matter. Somebody may log in at any time; a backup may be starting for hours, and that is a state
    of its own; a target waits for others and does nothing itself.
    """
    return {
        job: (unit, kind)
        for job, (unit, kind, progress) in manager.job_states().items()
        if not is_session(unit) and not (kind == "start" and (progress == "running" or unit.endswith(".target")))
    }
