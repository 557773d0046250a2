"""fanotify(7): which process did what to which file of a whole filesystem.

Constants and structures: <linux/fanotify.h>; behaviour: fs/notify/fanotify/fanotify_user.c. A group's events carry
an open descriptor, or with FAN_REPORT_FID a file handle. Only the latter hear of changes that the kernel knows by
a directory entry (truncate(2), utimensat(2): fsnotify_dentry), and they cannot mark a btrfs subvolume (EXDEV).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from snapbreaker.linux.libc import check, function

FAN_MODIFY = 0x2
FAN_CLOSE_WRITE = 0x8
FAN_MOVED_FROM = 0x40
FAN_DELETE = 0x200
FAN_Q_OVERFLOW = 0x4000
FAN_ONDIR = 0x40000000
FAN_OPEN_PERM = 0x10000  # with CONFIG_FANOTIFY_ACCESS_PERMISSIONS
FAN_PRE_ACCESS = 0x100000  # Linux 6.14

FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_CLASS_NOTIF = 0x0
FAN_CLASS_CONTENT = 0x4
FAN_CLASS_PRE_CONTENT = 0x8
FAN_UNLIMITED_QUEUE = 0x10
FAN_UNLIMITED_MARKS = 0x20
FAN_REPORT_TID = 0x100  # Linux 4.20
FAN_REPORT_FID = 0x200  # Linux 5.1
FAN_REPORT_DFID_NAME = 0xC00  # Linux 5.9
FAN_REPORT_FD_ERROR = 0x2000  # Linux 6.13

FAN_MARK_ADD = 0x1
FAN_MARK_IGNORED_MASK = 0x20
FAN_MARK_IGNORED_SURV_MODIFY = 0x40
FAN_MARK_FILESYSTEM = 0x100  # Linux 4.20
FAN_MARK_EVICTABLE = 0x200  # Linux 5.19

FAN_ALLOW = 0x1

FAN_EVENT_INFO_TYPE_FID = 1
FAN_EVENT_INFO_TYPE_DFID_NAME = 2

FAN_NOFD = -1
FAN_EVENT_METADATA_LEN = 24
FANOTIFY_METADATA_VERSION = 3

_AT_FDCWD = -100
_METADATA = struct.Struct("=IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid
_INFO_FID = struct.Struct("=BBH8xIi")  # info_type, pad, len, fsid, handle_bytes, handle_type
_RESPONSE = struct.Struct("=iI")  # fd, response

_fanotify_init = function("fanotify_init", ctypes.c_uint, ctypes.c_uint)
_fanotify_mark = function(
    "fanotify_mark", ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p
)


class Event(NamedTuple):
    """One struct fanotify_event_metadata.

    ``fd`` is the file, open as ``fanotify_init`` was told, for the reader to close. It is negative
    with FAN_Q_OVERFLOW (FAN_NOFD), and with FAN_REPORT_FD_ERROR when the file could not be opened (its errno).
    ``pid`` is the process (with FAN_REPORT_TID the thread) in the reader's pid namespace, 0 when it lies
    outside of that one. It is a number only: the process may be gone.
    """

    mask: int
    fd: int
    pid: int


def fanotify_init(flags: int, event_f_flags: int) -> int:
    """A new notification group; its descriptor. Raises OSError: see ``explain``."""
    return check(_fanotify_init(flags, event_f_flags), "fanotify_init")


def fanotify_mark(group: int, flags: int, mask: int, path: str | bytes) -> None:
    """Add, change or remove a mark of the object (or its mount, or its filesystem) at ``path``. Raises OSError."""
    check(_fanotify_mark(group, flags, mask, _AT_FDCWD, os.fsencode(path)), "fanotify_mark", path)


def mark_inode(group: int, flags: int, mask: int, fd: int) -> None:
    """Add, change or remove a mark of the open file ``fd`` itself. Raises OSError."""
    check(_fanotify_mark(group, flags, mask, fd, None), "fanotify_mark")


def allow(group: int, event: Event) -> None:
    """Let the task go that waits for the answer to a permission event. Raises OSError."""
    os.write(group, _RESPONSE.pack(event.fd, FAN_ALLOW))


def read_events(group: int, most: int) -> list[Event]:
    """Take up to ``most`` events off the queue; their descriptors are ours to close.

    Raises OSError. BlockingIOError: the queue is empty. Without FAN_REPORT_FD_ERROR an event whose file cannot be
    opened is lost, and told only when it was the first: then its errno comes out here (fanotify_read).
    """
    return parse_events(os.read(group, most * FAN_EVENT_METADATA_LEN))


def parse_events(data: bytes) -> list[Event]:
    """What a read(2) of a group returned. Raises ValueError for another version of the structure."""
    events = []
    offset = 0
    while offset < len(data):
        length, version, _, _, mask, fd, pid = _METADATA.unpack_from(data, offset)
        if version != FANOTIFY_METADATA_VERSION or length < FAN_EVENT_METADATA_LEN:
            raise ValueError(f"fanotify events of version {version}, not {FANOTIFY_METADATA_VERSION}")
        events.append(Event(mask, fd, pid))
        offset += length
    return events


def parse_handles(data: bytes) -> list[tuple[int, bytes]]:
    """The file handles (type, bytes) in what a read(2) of a group with FAN_REPORT_FID returned."""
    found = _parse_info(data, FAN_EVENT_INFO_TYPE_FID)
    return [(kind, handle) for mask, kind, handle, _ in found if not mask & FAN_Q_OVERFLOW]


def parse_names(data: bytes) -> list[tuple[tuple[int, bytes], bytes]]:
    """The directories' handles and the names in what a read(2) of a group with FAN_REPORT_DFID_NAME returned.

    Raises OverflowError: events were lost.
    """
    names = []
    for mask, kind, handle, rest in _parse_info(data, FAN_EVENT_INFO_TYPE_DFID_NAME):
        if mask & FAN_Q_OVERFLOW:
            raise OverflowError
        names.append(((kind, handle), rest.split(b"\0", 1)[0]))
    return names


def _parse_info(data: bytes, wanted: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Of each record of the type ``wanted``: the event's mask, type and bytes of the handle, what comes after it.

    An overflow has no record, and comes with an empty handle.
    """
    offset = 0
    while offset < len(data):
        length, _, _, start, mask, *_ = _METADATA.unpack_from(data, offset)
        at, offset = offset + start, offset + length
        if mask & FAN_Q_OVERFLOW:
            yield mask, 0, b"", b""
            continue
        while at < offset:
            kind, _, size, count, handle_type = _INFO_FID.unpack_from(data, at)
            if kind == wanted:
                begin = at + _INFO_FID.size
                yield mask, handle_type, data[begin : begin + count], data[begin + count : at + size]
            at += size


def explain(error: OSError) -> str:
    """Why one of the calls failed, for a person. fanotify_init(2), fanotify_mark(2)."""
    if error.errno == errno.ENOSYS:
        return "this kernel has no fanotify (CONFIG_FANOTIFY)"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "fanotify is not permitted: it needs CAP_SYS_ADMIN in the first user namespace"
    if error.errno == errno.EMFILE:
        return "there are too many fanotify groups or open files"
    if error.errno == errno.EINVAL:
        return "this kernel cannot watch a whole filesystem (Linux 4.20 or newer is needed)"
    return f"{error.strerror}"
