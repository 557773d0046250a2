"""A login session of our own: org.freedesktop.login1(5), what pam_systemd(8) asks for.

A process that is in a session's scope stays there whatever it runs: `su -` and `sudo` open a session, which moves
them to another cgroup, only where there is none yet.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, Message, Parser, new_method_call
from jeepney.bus_messages import message_bus
from jeepney.fds import FileDescriptor, fds_buf_size
from jeepney.io.blocking import prep_socket
from jeepney.wrappers import unwrap_msg

from snapbreaker.linux.process import cgroup_of

BUS = "/run/dbus/system_bus_socket"
_MANAGER = DBusAddress("/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager")
_CREATE = "uusssssussbssa(sv)"
_TIMEOUT = 15.0  # s for all of it: a user manager is started along with the first session of a user
_kept: list[int] = []  # what holds our sessions open; nobody closes it, this process' end does


def in_session() -> bool:
    """Whether this process is in the scope of a login session."""
    parts = (cgroup_of(os.getpid()) or "").split("/")
    return any(part.startswith("session-") and part.endswith(".scope") for part in parts)


def open_session(service: str) -> bool:
    """Put this process into a session of its own, which ends with this process; what else runs in it lives on.

    False where logind is not there, does not answer, or refuses: then we are in a session already.
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
        deadline = time.monotonic() + _TIMEOUT
        with prep_socket(BUS, enable_fds=True, timeout=_TIMEOUT) as connection:
            parser = Parser()
            _answer(connection, parser, message_bus.Hello(), 1, deadline)
            call = new_method_call(_MANAGER, "CreateSession", _CREATE, body)
            fd = int(_answer(connection, parser, call, 2, deadline)[3].to_raw_fd())
            os.set_inheritable(fd, False)
            _kept.append(fd)
            return True
    return False


def _answer(connection: socket.socket, parser: Parser, call: Message, serial: int, deadline: float) -> Any:
    """Call and wait for the answer, which may hold descriptors. Raises TimeoutError at ``deadline``.

    Not by jeepney's own connection: its first call waits for a dbus-daemon that hangs as long as that hangs.
    """
    _limit(connection, deadline)
    connection.sendall(call.serialise(serial=serial))
    while True:
        message = parser.get_next_message()
        if message is None:
            _limit(connection, deadline)
            data, ancillary, _, _ = connection.recvmsg(parser.bytes_desired(), fds_buf_size())
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            parser.add_data(data, fds=FileDescriptor.from_ancdata(ancillary))
        elif message.header.fields.get(HeaderFields.reply_serial) == serial:
            return unwrap_msg(message)


def _limit(connection: socket.socket, deadline: float) -> None:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    connection.settimeout(left)
