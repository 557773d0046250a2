"""Every way to change a file in place. As a program: ``inplace.py WAY FILE``.

Stands alone, so that a run can execute it: nothing but Python and the kernel.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable

NEW = b"AFTER!"
_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
_RING_SETUP, _RING_ENTER = 425, 426
_OP_OPENAT, _OP_WRITE = 18, 23


def _write(path: str, flags: int, at: int = 0) -> None:
    fd = os.open(path, flags)
    os.pwrite(fd, NEW, at)
    os.close(fd)


def overwrite(path: str) -> None:
    _write(path, os.O_WRONLY, 3)


def append(path: str) -> None:
    _write(path, os.O_WRONLY | os.O_APPEND)


def truncate_writing(path: str) -> None:
    _write(path, os.O_WRONLY | os.O_TRUNC)


def truncate_reading(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))


def create(path: str) -> None:
    os.close(_checked(_libc.creat(path.encode(), 0o644)))


def again(path: str) -> None:
    """Read first, then opened once more through the descriptor, for writing."""
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 10)
    _write(f"/proc/self/fd/{fd}", os.O_RDWR)
    os.close(fd)


def thread(path: str) -> None:
    other = threading.Thread(target=truncate_reading, args=(path,))
    other.start()
    other.join()


def mapped(path: str) -> None:
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 0) as memory:
        os.close(fd)
        memory[: len(NEW)] = NEW


def openat2(path: str) -> None:
    how = struct.pack("=QQQ", os.O_RDONLY | os.O_TRUNC, 0, 0)
    os.close(_checked(_libc.syscall(_OPENAT2, -100, path.encode(), how, len(how))))


def by_handle(path: str) -> None:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 8 + 128)
    mount = ctypes.c_int()
    _checked(_libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0))
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.close(_checked(_libc.open_by_handle_at(directory, handle, os.O_RDONLY | os.O_TRUNC)))


def nameless(path: str) -> None:
    """O_TMPFILE, then a name (linkat(2)): the file is another one."""
    fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(fd, NEW)
    os.unlink(path)
    root = os.open("/", os.O_RDONLY)
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=root, follow_symlinks=True)  # else it would be link(2)
    os.close(root)
    os.close(fd)
    overwrite(path)


def ring(path: str) -> None:
    """io_uring: its workers open and write, and no system call of the task says so."""
    params = bytearray(120)  # struct io_uring_params
    view = (ctypes.c_char * len(params)).from_buffer(params)
    fd = _checked(_libc.syscall(_RING_SETUP, 4, view))
    sq, cq = struct.unpack_from("=10I", params, 40), struct.unpack_from("=10I", params, 80)
    queue = mmap.mmap(fd, max(sq[6] + 16, cq[5] + 64))
    entries = mmap.mmap(fd, 4 * 64, offset=0x10000000)
    name = ctypes.create_string_buffer(path.encode())
    data = ctypes.create_string_buffer(NEW)

    def submit(operation: int, number: int, offset: int, address: int, length: int, flags: int) -> int:
        # IOSQE_ASYNC: always by a worker of the kernel.
        entries[:32] = struct.pack("=BBHiQQII", operation, 16, 0, number, offset, address, length, flags)
        entries[32:64] = bytes(32)
        (tail,) = struct.unpack_from("=I", queue, sq[1])
        struct.pack_into("=I", queue, sq[6] + 4 * (tail & 3), 0)
        struct.pack_into("=I", queue, sq[1], tail + 1)
        _checked(_libc.syscall(_RING_ENTER, fd, 1, 1, 1, None, 0))
        head, end = struct.unpack_from("=I", queue, cq[0])[0], struct.unpack_from("=I", queue, cq[1])[0]
        assert end == head + 1
        (mask,) = struct.unpack_from("=I", queue, cq[2])
        result: int = struct.unpack_from("=Qi", queue, cq[5] + 16 * (head & mask))[1]
        struct.pack_into("=I", queue, cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result), path)
        return result

    opened = submit(_OP_OPENAT, -100, 0, ctypes.addressof(name), 0o644, os.O_RDWR | os.O_TRUNC)
    submit(_OP_WRITE, opened, 0, ctypes.addressof(data), len(NEW), 0)
    os.close(opened)
    os.close(fd)


def compat(path: str) -> None:
    """A 32-bit program: its system calls have other numbers."""
    fd = os.memfd_create("i386")
    os.write(fd, _i386())
    pid = os.posix_spawn(f"/proc/self/fd/{fd}", ["i386", path], {})
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status


def _i386() -> bytes:
    """open(argv[1], O_WRONLY | O_TRUNC); write(...); exit(...): a whole ELF program."""
    base, start = 0x08048000, 84
    code = bytearray.fromhex(
        "8b5c2408 b805000000 b901020000 31d2 cd80 89c3 85c0 7800"
        "b804000000 b900000000 ba06000000 cd80 83e806 89c3 b801000000 cd80"
    )
    jump = code.index(0x78)
    code[jump + 1] = code.rindex(bytes.fromhex("b801000000")) - jump - 2
    at = code.index(bytes.fromhex("b900000000")) + 1
    struct.pack_into("=I", code, at, base + start + len(code))
    size = start + len(code) + len(NEW)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("=HHIIIIIHHHHHH", 2, 3, 1, base + start, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    header += struct.pack("=8I", 1, 0, base, base, size, size, 5, 4096)
    return header + bytes(code) + NEW


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


WAYS: dict[str, Callable[[str], None]] = {
    one.__name__: one
    for one in (
        overwrite,
        append,
        truncate_writing,
        truncate_reading,
        create,
        again,
        thread,
        mapped,
        openat2,
        by_handle,
        nameless,
        ring,
        compat,
    )
}


def by_name(path: str) -> None:
    """truncate(2): no descriptor at all."""
    os.truncate(path, 4)


def down_and_up(path: str) -> None:
    """The same, and everything that can be seen from outside set back."""
    facts = os.stat(path)
    os.truncate(path, 4)
    os.truncate(path, facts.st_size)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


UNASKED: dict[str, Callable[[str], None]] = {one.__name__: one for one in (by_name, down_and_up)}

if __name__ == "__main__":
    for path in sys.argv[2:]:
        ({**WAYS, **UNASKED})[sys.argv[1]](path)
