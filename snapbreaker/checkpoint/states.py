"""The states of a checkpoint and the only ways from one to another (DESIGN §3)."""

from __future__ import annotations

from enum import StrEnum

from snapbreaker.errors import SnapbreakerError


class State(StrEnum):
    CREATING = "creating"
    READY = "ready"
    RUNNING = "running"
    HELD = "held"  # the change waits in its sandbox
    APPLYING = "applying"  # what was tried in a sandbox comes to the machine
    CHECKING = "checking"
    CONFIRMING = "confirming"
    COMMITTED = "committed"
    TRIPPED = "tripped"
    RESTORING = "restoring"
    VERIFYING = "verifying"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"
    REBOOT_PENDING = "reboot-pending"


EDGES: dict[State, frozenset[State]] = {
    State.CREATING: frozenset({State.READY}),
    State.READY: frozenset({State.RUNNING, State.RESTORING}),
    State.RUNNING: frozenset({State.CHECKING, State.COMMITTED, State.TRIPPED, State.HELD, State.APPLYING}),
    State.HELD: frozenset({State.APPLYING, State.TRIPPED, State.RESTORING}),
    State.APPLYING: frozenset({State.CHECKING, State.COMMITTED, State.TRIPPED}),
    State.CHECKING: frozenset({State.CONFIRMING, State.COMMITTED, State.TRIPPED}),
    State.CONFIRMING: frozenset({State.COMMITTED, State.TRIPPED, State.RESTORING}),
    State.TRIPPED: frozenset({State.RESTORING}),
    State.RESTORING: frozenset({State.VERIFYING, State.FAILED, State.REBOOT_PENDING}),
    # READY: a checkpoint made by hand can be used again; COMMITTED: only a part of a run was undone.
    State.VERIFYING: frozenset(
        {State.ROLLED_BACK, State.FAILED, State.REBOOT_PENDING, State.RESTORING, State.READY, State.COMMITTED}
    ),
    State.COMMITTED: frozenset({State.RESTORING}),
    State.FAILED: frozenset({State.RESTORING}),
    # READY, COMMITTED, FAILED: it was called off before the boot.
    State.REBOOT_PENDING: frozenset(
        {State.RESTORING, State.VERIFYING, State.FAILED, State.READY, State.COMMITTED}
    ),
    State.ROLLED_BACK: frozenset({State.RESTORING}),
}

# Where a checkpoint may rest. In any other state its owner is at work, or died and `recover` is needed.
SETTLED = frozenset(
    {State.READY, State.HELD, State.COMMITTED, State.ROLLED_BACK, State.FAILED, State.REBOOT_PENDING}
)

# A checkpoint whose owner died in one of these was of no command's use yet.
NEVER_STARTED = frozenset({State.CREATING, State.READY})


class IllegalTransition(SnapbreakerError):
    """A bug in the caller: the state machine has no such edge."""


def check_edge(old: State, new: State) -> None:
    """Raise IllegalTransition unless ``old → new`` is an edge, or a resumed step (``old is new``)."""
    if old is not new and new not in EDGES[old]:
        raise IllegalTransition(f"a checkpoint cannot go from {old} to {new}")
