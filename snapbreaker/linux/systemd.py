"""systemd as PID 1, spoken to by D-Bus over its private socket: org.freedesktop.systemd1(5).

Only system calls, so it works while the machine's programs and libraries are broken: systemd itself is in memory,
and neither systemctl nor dbus-daemon takes part. The private socket is for root alone and needs no Hello.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Self

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import SnapbreakerError

SOCKET = "/run/systemd/private"
NAME, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = DBusAddress(PATH, NAME, f"{NAME}.Manager")
_PROPERTIES = "org.freedesktop.DBus.Properties"
_CALL = 25.0  # s that PID 1 may take to answer
RELOAD = 90.0  # s: generators run meanwhile
_POLL = 0.01


class SystemdError(SnapbreakerError):
    """PID 1 refused, or did not answer. ``name`` is the D-Bus error, empty where there is none."""

    def __init__(self, message: str, hint: str = "", name: str = "") -> None:
        super().__init__(message, hint)
        self.name = name


@dataclass(frozen=True, slots=True)
class Unit:
    """One loaded unit. ``load``, ``active``, ``sub`` are the words of systemctl(1), ``path`` its D-Bus object."""

    name: str
    load: str
    active: str
    sub: str
    path: str
    job: int = 0

    @property
    def running(self) -> bool:
        """Whether it is up, or on its way there."""
        return self.active in ("active", "activating", "reloading", "refreshing")


def booted() -> bool:
    """Whether PID 1 of this machine is systemd: sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def open_private(path: str) -> tuple[socket.socket, bytes]:
    """An authenticated connection (D-Bus specification, "Authentication Protocol"). Raises OSError.

    What had arrived right behind the answer comes with it: PID 1 sends each signal to all who are connected.

    All is said in one go, as systemctl does it. Where BEGIN comes by itself with a message right behind it, PID 1
    may read both at once and look at the message only when more arrives: never (seen with systemd 252).
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CALL)
        connection.connect(path)
        connection.sendall(b"\0AUTH EXTERNAL %s\r\nBEGIN\r\n" % str(os.geteuid()).encode().hex().encode())
        answer = b""
        while b"\r\n" not in answer:
            data = connection.recv(256)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "it does not accept us")
            answer += data
        if not answer.startswith(b"OK "):
            raise PermissionError(errno.EACCES, "it does not accept us")
    except BaseException:
        connection.close()
        raise
    return connection, answer.partition(b"\r\n")[2]


class Manager:
    """A connection to PID 1. Every method raises SystemdError."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._parser = Parser()
        self._serial = 0

    @classmethod
    def connect(cls) -> Self:
        manager = cls()
        manager._connected()
        return manager

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # what there is

    def units(self) -> dict[str, Unit]:
        """Every unit in memory, by name."""
        (rows,) = self._call(_MANAGER, "ListUnits")
        return {row[0]: Unit(row[0], row[2], row[3], row[4], row[6], row[7]) for row in rows}

    def jobs(self) -> dict[int, tuple[str, str]]:
        """Queued and running jobs: (unit, kind) by id."""
        return {job: (unit, kind) for job, (unit, kind, _) in self.job_states().items()}

    def job_states(self) -> dict[int, tuple[str, str, str]]:
        """The same with how far each is, ``waiting`` for others or ``running``."""
        (rows,) = self._call(_MANAGER, "ListJobs")
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def state(self) -> str:
        """``running``, ``degraded``, ``starting``, ``stopping`` …: systemctl(1) is-system-running."""
        return str(self.property(PATH, f"{NAME}.Manager", "SystemState"))

    def properties(self, unit: str, kind: str = "Unit") -> dict[str, Any]:
        """All properties of a unit, loaded for that if need be; ``kind`` is the interface (Unit, Service …)."""
        (path,) = self._call(_MANAGER, "LoadUnit", "s", (unit,))
        address = DBusAddress(path, NAME, _PROPERTIES)
        (found,) = self._call(address, "GetAll", "s", (f"{NAME}.{kind}",))
        return {name: value for name, (_, value) in found.items()}

    def property(self, path: str, interface: str, name: str) -> Any:
        ((_, value),) = self._call(DBusAddress(path, NAME, _PROPERTIES), "Get", "ss", (interface, name))
        return value

    def enablement(self, unit: str) -> str:
        """``enabled``, ``disabled``, ``masked`` …; empty when there is no such unit file."""
        try:
            return str(self._call(_MANAGER, "GetUnitFileState", "s", (unit,))[0])
        except SystemdError as error:
            if error.name.endswith(("NoSuchUnit", "FileNotFound")):
                return ""
            raise

    # what can be done

    def start(self, units: Iterable[str]) -> dict[str, str]:
        """Queue start jobs; what was refused at once, with the reason."""
        return self._queued("StartUnit", units)

    def stop(self, units: Iterable[str]) -> dict[str, str]:
        return self._queued("StopUnit", units)

    def restart(self, units: Iterable[str]) -> dict[str, str]:
        return self._queued("RestartUnit", units)

    def kill(self, unit: str) -> None:
        """SIGKILL to every process of the unit; one that is gone is no error."""
        with suppress(SystemdError):
            self._call(_MANAGER, "KillUnit", "ssi", (unit, "all", 9))

    def cancel(self, jobs: Iterable[int]) -> None:
        for job in jobs:
            with suppress(SystemdError):  # it may just have ended
                self._call(_MANAGER, "CancelJob", "u", (job,))

    def reset_failed(self, unit: str) -> None:
        with suppress(SystemdError):
            self._call(_MANAGER, "ResetFailedUnit", "s", (unit,))

    def reload(self) -> None:
        """Read all unit files again, as `systemctl daemon-reload`."""
        self._call(_MANAGER, "Reload", timeout=RELOAD)

    def reexecute(self) -> None:
        """Execute systemd's program anew, as `systemctl daemon-reexec`; it cuts the connection."""
        with suppress(SystemdError):
            self._call(_MANAGER, "Reexecute", timeout=RELOAD)
        self.close()
        self.wait(lambda: bool(self.units()), RELOAD)

    def isolate(self, target: str) -> None:
        """Queue what `systemctl isolate --no-block` would."""
        self._call(_MANAGER, "StartUnit", "ss", (target, "isolate"))

    def settle(self, units: Iterable[str], timeout: float) -> bool:
        """Wait until none of ``units`` has a job any more; whether that came within ``timeout`` seconds."""
        wanted = frozenset(units)
        return self.wait(lambda: not any(unit in wanted for unit, _ in self.jobs().values()), timeout)

    def wait(self, done: Callable[[], bool], timeout: float) -> bool:
        """Ask ``done`` until it says yes, or ``timeout`` seconds are over; a cut connection is made anew."""
        deadline = time.monotonic() + timeout
        pause = _POLL
        while True:
            with suppress(SystemdError):
                if done():
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    # D-Bus

    def _queued(self, method: str, units: Iterable[str]) -> dict[str, str]:
        refused = {}
        for unit in units:
            try:
                self._call(_MANAGER, method, "ss", (unit, "replace"))
            except SystemdError as error:
                refused[unit] = error.message
        return refused

    def _connected(self) -> socket.socket:
        if self._socket is None:
            try:
                self._socket, behind = open_private(SOCKET)
            except OSError as error:
                raise SystemdError(
                    f"cannot speak to systemd by {SOCKET}: {error}", "is systemd PID 1, and are we root?"
                ) from error
            self._parser = Parser()
            self._parser.add_data(behind)
        return self._socket

    def _call(
        self,
        address: DBusAddress,
        method: str,
        signature: str | None = None,
        body: Sequence[Any] = (),
        timeout: float = _CALL,
    ) -> tuple[Any, ...]:
        """Call and wait for the answer. A connection that PID 1 had closed (reexecute) is made again."""
        message = new_method_call(address, method, signature, tuple(body))
        while True:
            fresh = self._socket is None
            try:
                return self._answer(message, timeout)
            except TimeoutError as error:
                self.close()
                raise SystemdError(f"systemd did not answer {method} within {timeout:g} s") from error
            except OSError as error:
                self.close()
                if fresh or error.errno not in (errno.EPIPE, errno.ECONNRESET):
                    raise SystemdError(f"systemd did not answer {method}: {error}") from error

    def _answer(self, message: Message, timeout: float) -> tuple[Any, ...]:
        connection, deadline = self._connected(), time.monotonic() + timeout
        self._serial += 1
        connection.settimeout(timeout)
        connection.sendall(message.serialise(serial=self._serial))
        while True:
            reply = self._parser.get_next_message()
            if reply is None:
                if (left := deadline - time.monotonic()) <= 0:  # signals may keep coming
                    raise TimeoutError
                connection.settimeout(left)
                data = connection.recv(1 << 16)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                self._parser.add_data(data)
            elif reply.header.fields.get(HeaderFields.reply_serial) == self._serial:
                break
        if reply.header.message_type is MessageType.error:
            name = str(reply.header.fields.get(HeaderFields.error_name, ""))
            raise SystemdError(str(reply.body[0]) if reply.body else name, name=name)
        return tuple(reply.body)
