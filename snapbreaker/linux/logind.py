"""A login session of our own: org.freedesktop.login1(5), what pam_systemd(8) asks for.

A process that is in a session's scope stays there whatever it runs: `su -` and `sudo` open a session, which moves
them to another cgroup, only where there is none yet.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.blocking import DBusConnection, prep_socket
from jeepney.wrappers import unwrap_msg

from snapbreaker.linux.process import cgroup_of

BUS = "/run/dbus/system_bus_socket"
_MANAGER = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager")
_CREATE = "uusssssussbssa(sv)"
_TIMEOUT = 15.0  # s: a user manager is started along with the first session of a user


def in_session() -> bool:
    """Whether this process is in the scope of a login session."""
    parts = (cgroup_of(os.getpid()) or "").split("/")
    return any(part.startswith("session-") and part.endswith(".scope") for part in parts)


def open_session(service: str) -> int | None:
    """Put this process into a session of its own; the descriptor that keeps it open.

    It ends with the descriptor, or with this process; what else runs in it then lives on. None where logind is not
    there or refuses: then we are in a session already, or on a machine without one.
    """
    # uid, pid, service, type, class, desktop, seat, vtnr, tty,
    # display, remote, remote user, remote host, properties.
    body: tuple[Any, ...] = (
        os.geteuid(),
        os.getpid(),
        service,
        "unspecified",
        "background",
        "",
        "",
        0,
        "",
        "",
        False,
        "",
        "",
        [],
    )
    with suppress(OSError, ValueError, DBusErrorResponse, RuntimeError):
        connection = DBusConnection(prep_socket(BUS, enable_fds=True), enable_fds=True)
        try:
            call = new_method_call(_MANAGER, "CreateSession", _CREATE, body)
            reply = unwrap_msg(connection.send_and_get_reply(call, timeout=_TIMEOUT))
            fd = int(reply[3].to_raw_fd())
            os.set_inheritable(fd, False)
            return fd
        finally:
            connection.close()
    return None
