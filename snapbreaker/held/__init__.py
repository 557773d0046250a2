"""Services of a command that runs in the overlay's sandbox: held back, recorded, carried out after the commit.

PID 1 runs outside of the sandbox and must hear nothing while the change may still be thrown away. So in the
sandbox `systemctl` is a program of ours (``shims/``). It records what the running systemd is to do, answers what
can be answered, and lets the real program work on unit files. After the commit ``carry_out`` asks the real one.

held.prepare(directory)                          # before the sandbox is made
held.bindings(directory)                         # what is bind-mounted in it
actions = held.recorded(directory)               # when the command has ended
issue = held.carry_out(actions, directory)       # when its change is committed

**What the sandbox's /run must have.** Maintainer scripts take `[ -d /run/systemd/system ]` (sd_booted(3)) for
"systemd runs here". Without it deb-systemd-invoke(1) is not called, so that restarts are lost, and invoke-rc.d(8)
and service(8) run init scripts, which start daemons in the sandbox. So it must be a directory there if, and only
if, the machine has it; ``bindings`` has an empty one. It must be the only thing of systemd's there: by
/run/systemd/private, /run/systemd/notify or /run/dbus a request would reach PID 1.

**Why no policy-rc.d.** deb-systemd-invoke asks it for one unit after the other and ends at the first 101: of
`deb-systemd-invoke start a b` b would never be heard of. It asks before it looks whether a unit is enabled, so
that disabled ones would be started later. Without it the script goes on to `systemctl`, with those units that are
to be started, and an administrator's own policy-rc.d keeps its word. service(8) and invoke-rc.d go on to
`systemctl` as well, or to the init script, and that to ``shims/40-systemd``. Where init is not systemd they are
replaced themselves (``shims/record``), and called after the commit: the policy is applied then.
"""

from __future__ import annotations

from snapbreaker.held.action import Action
from snapbreaker.held.carry_out import carry_out
from snapbreaker.held.log import recorded
from snapbreaker.held.programs import bindings, prepare

__all__ = ["Action", "bindings", "carry_out", "prepare", "recorded"]
