"""Bytes and holes: edits of every kind, also those that hide."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

MIB = 1 << 20
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2  # linux/falloc.h
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def seed(root: Path) -> None:
    top = root / "content"
    (top / "tree/of/directories").mkdir(parents=True)
    for name in ("edited", "hidden", "mapped", "replaced", "truncated", "grown", "removed", "emptied", "middle"):
        (top / name).write_bytes(name.encode() * 20_000)
    for number in range(50):
        (top / f"tree/of/directories/{number}").write_text(f"{number}\n" * number)
    (top / "empty").touch()
    for name in ("filled", "punched", "moved-hole", "removed-sparse", "cut"):
        _sparse(top / name)
    with (top / "only-hole").open("wb") as file:
        file.truncate(16 * MIB)
    (top / "solid").write_bytes(bytes(3 * MIB))  # zeros that are written, not a hole


def mutate(root: Path) -> None:
    top = root / "content"
    with (top / "edited").open("a") as file:
        file.write("more")
    _hidden_edit(top / "hidden")
    _mapped_edit(top / "mapped")
    (top / "staged").write_bytes(b"replaced by rename")
    (top / "staged").rename(top / "replaced")
    os.truncate(top / "truncated", 100)
    os.truncate(top / "grown", 10 * MIB)
    for name in ("removed", "removed-sparse", "only-hole"):
        (top / name).unlink()
    (top / "emptied").write_bytes(b"")
    (top / "empty").write_bytes(b"no longer")
    with (top / "middle").open("r+b") as file:
        file.seek(50_000)
        file.write(b"!")
    for number in range(0, 50, 2):
        (top / f"tree/of/directories/{number}").unlink()
    (top / "filled").write_bytes((top / "filled").read_bytes())  # the same bytes, no holes
    _punch(top / "punched", MIB, MIB)
    _punch(top / "solid", MIB, MIB)  # the same zeros, a hole
    with (top / "moved-hole").open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"y" * MIB)
    os.truncate(top / "cut", 3 * MIB // 2)
    _sparse(top / "made-sparse")


def _sparse(path: Path) -> None:
    """8 MiB: a hole, 1 MiB of data at 1 MiB, a hole, 4 KiB at 4 MiB, a hole to the end."""
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        file.seek(MIB)
        file.write(b"x" * MIB)
        file.seek(4 * MIB)
        file.write(b"island" * 600)


def _hidden_edit(path: Path) -> None:
    """The same size and the same times: only content and ctime tell."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _mapped_edit(path: Path) -> None:
    """By a shared mapping, with no sync."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[5000:5010] = b"0123456789"


def _punch(path: Path, offset: int, length: int) -> None:
    with path.open("r+b") as file:
        if _fallocate(file.fileno(), FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, offset, length):
            raise OSError(ctypes.get_errno(), "fallocate", str(path))
