"""Where a restore stages what it puts in place, and where what it displaces stays until it is pruned.

Attempt K of a vault has the directory ``restore.K``: ``plan`` (what it displaces, see ``changeset``), ``domains``,
``staged`` (the identity of each staged file, on disk before the first one is put in place), ``unlocked``,
``sealed`` and ``slots/N``. rename(2) does not cross btrfs subvolumes, so each subvolume with changes is a *domain*
with slots of its own, in ``.snapbreaker`` at its top, which every walk leaves out; domain 0 is ``slots``.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from contextlib import suppress

from snapbreaker.errors import RestoreError
from snapbreaker.files import metadata, ops
from snapbreaker.files.exchange import mend
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux import btrfs
from snapbreaker.linux.inode import get_flags, get_project
from snapbreaker.linux.openat import exists_in, open_beneath
from snapbreaker.linux.xattr import read_xattrs

VAULT_NAME = b".snapbreaker"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STAGED = struct.Struct("<IIQ")  # domain, slot, identity
_UNLOCKED = struct.Struct("<I?I")  # flags, read-only subvolume, length of the path
_SUBVOLUME = 1 << 63


class Stage:
    """The directories of one attempt. Made by ``open``; ``path`` is absolute."""

    def __init__(self, vault: str, attempt: int | None = None) -> None:
        self.vault = vault
        self.attempt = attempt if attempt is not None else max(attempts(vault), default=0) + 1
        self.path = f"{vault}/restore.{self.attempt}"
        self.fd = -1
        self.slots: list[int] = []  # a descriptor for each domain
        self._subvolumes: list[bytes] = []  # the path in the tree for each domain but the first
        self._count = 0
        self._unlocked = -1

    @property
    def tag(self) -> bytes:
        """The name of this attempt's directory in the ``.snapbreaker`` of a nested subvolume."""
        checkpoint, _, volume = self.vault.rstrip("/").rpartition("/")
        return os.fsencode(f"{checkpoint.rpartition('/')[2]}-{volume}-restore.{self.attempt}")

    def open(self) -> None:
        """Make the directories, or leave nothing. Raises OSError (FileExistsError: it was made before)."""
        vault = os.open(self.vault, _DIRECTORY)
        name = b"restore.%d" % self.attempt
        try:
            ops.mkdir(vault, name)
            try:
                self.fd = os.open(name, _DIRECTORY, dir_fd=vault)
                ops.mkdir(self.fd, b"slots")
                self.slots.append(_open_plain(self.fd, b"slots"))
                os.fsync(vault)
            except OSError:
                self.close()
                with suppress(OSError):
                    remove_tree(vault, name)
                raise
        finally:
            os.close(vault)

    def close(self) -> None:
        for fd in (*self.slots, self.fd, self._unlocked):
            if fd >= 0:
                os.close(fd)
        self.slots, self.fd, self._unlocked = [], -1, -1

    def number(self) -> int:
        """A slot that nobody has."""
        self._count += 1
        return self._count

    def add_domain(self, subvolume: bytes, top: int) -> int:
        """Make slots in the subvolume at the path ``subvolume`` of the tree, whose top directory is ``top``.

        Noted on disk first, so that they are found again after a crash.
        """
        self._subvolumes.append(subvolume)
        self._write(b"domains", b"".join(path + b"\0" for path in self._subvolumes))
        if not exists_in(top, VAULT_NAME):
            ops.mkdir(top, VAULT_NAME)
        base = open_beneath(top, VAULT_NAME, _DIRECTORY, one_mount=True)
        try:
            status = os.fstat(base)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                where = os.fsdecode(subvolume + b"/" + VAULT_NAME)
                raise RestoreError(f"{where} is not a directory of ours", "remove it, or give it to root, 0700")
            ops.mkdir(base, self.tag)
            self.slots.append(_open_plain(base, self.tag))
        finally:
            os.close(base)
        return len(self.slots) - 1

    def note_staged(self, staged: list[tuple[int, int, int]]) -> None:
        """Write down (domain, slot, identity) of everything staged. From here on a slot may hold what was live."""
        self._write(b"staged", b"".join(_STAGED.pack(*one) for one in staged))

    def note_unlocked(self, path: bytes, flags: int, read_only: bool) -> None:
        """Write down which locks ``path`` is about to lose, before it does."""
        if self._unlocked < 0:
            flags_of_open = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._unlocked = os.open("unlocked", flags_of_open, 0o600, dir_fd=self.fd)
        ops.write(self._unlocked, _UNLOCKED.pack(flags, read_only, len(path)) + path)
        ops.fsync(self._unlocked)

    def seal(self) -> None:
        """Everything that was planned has been tried: what staged files are left are of no use."""
        self._sweep()
        self._write(b"sealed", b"")

    def clean(self, root_fd: int) -> None:
        """Remove what unfinished attempts before this one staged and did not use. ``root_fd`` is the live tree."""
        for attempt in sorted(attempts(self.vault)):
            if attempt < self.attempt:
                with opened(self.vault, attempt, root_fd) as earlier:
                    if not exists_in(earlier.fd, b"sealed"):
                        earlier._clean_unfinished(root_fd)

    def _clean_unfinished(self, root_fd: int) -> None:
        if exists_in(self.fd, b"staged"):
            self._sweep()
            return
        # Nothing was put in place yet, so nothing here was ever live.
        self.remove(root_fd)

    def _sweep(self) -> None:
        self._mend()
        for domain, number, identity in read_staged(self.fd):
            name = b"%d" % number
            if domain < len(self.slots) and self.slots[domain] >= 0:
                with suppress(FileNotFoundError):
                    if identity_of(self.slots[domain], name) == identity:
                        remove_tree(self.slots[domain], name)

    def _mend(self) -> None:
        for slots in self.slots:
            if slots >= 0:
                mend(slots)

    def remove(self, root_fd: int) -> None:
        """Remove this attempt with all it holds, for good. Directories in subvolumes that are gone are gone."""
        for subvolume in self._subvolumes:
            with suppress(FileNotFoundError, NotADirectoryError):
                top = open_beneath(root_fd, subvolume, _DIRECTORY, one_mount=True)
                try:
                    _remove_domain(top, self.tag)
                finally:
                    os.close(top)
        vault = os.open(self.vault, _DIRECTORY)
        try:
            remove_tree(vault, b"restore.%d" % self.attempt)
        finally:
            os.close(vault)

    def _write(self, name: bytes, data: bytes) -> None:
        temporary = name + b".new"
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=self.fd)
        fd = ops.create(self.fd, temporary)
        try:
            ops.write(fd, data)
            ops.fsync(fd)
        finally:
            os.close(fd)
        ops.replace(self.fd, temporary, name)
        ops.fsync(self.fd)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def opened(vault: str, attempt: int, root_fd: int) -> Stage:
    """An attempt made before, with the slots that can be found. ``root_fd`` is the root of the live tree."""
    stage = Stage(vault, attempt)
    stage.fd = os.open(stage.path, _DIRECTORY)
    try:
        stage.slots.append(os.open(b"slots", _DIRECTORY, dir_fd=stage.fd) if exists_in(stage.fd, b"slots") else -1)
        if exists_in(stage.fd, b"domains"):
            stage._subvolumes = _read(stage.fd, b"domains").split(b"\0")[:-1]
        for subvolume in stage._subvolumes:
            path = (subvolume + b"/" if subvolume else b"") + VAULT_NAME + b"/" + stage.tag
            try:
                stage.slots.append(open_beneath(root_fd, path, _DIRECTORY, one_mount=True))
            except OSError:
                stage.slots.append(-1)
        stage._mend()
    except BaseException:
        stage.close()
        raise
    return stage


def attempts(vault: str) -> list[int]:
    """The numbers of the attempts that the vault has a directory of."""
    found = (re.fullmatch(r"restore\.(\d+)", name) for name in os.listdir(vault))
    return [int(match[1]) for match in found if match]


def put_in_place(vault: str, attempt: int) -> bool:
    """Whether an attempt may have changed what is live; one that was cut off earlier left nothing to undo."""
    return os.path.exists(f"{vault}/restore.{attempt}/staged")


def remove_attempts(vault: str, root_fd: int) -> None:
    """Remove everything that restores left, in the vault and in subvolumes of the tree at ``root_fd``."""
    for attempt in sorted(attempts(vault)):
        with opened(vault, attempt, root_fd) as stage:
            stage.remove(root_fd)


def identity_of(directory: int, name: bytes) -> int:
    """What tells a staged file from anything else that its slot may hold: inode, or id of the subvolume."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    inode = status.st_ino
    if inode != btrfs.ROOT_INODE or not stat.S_ISDIR(status.st_mode):
        return inode
    fd = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        return _SUBVOLUME | btrfs.subvolume_info(fd).id if btrfs.is_subvolume(fd) else inode
    finally:
        os.close(fd)


def read_staged(stage_fd: int) -> list[tuple[int, int, int]]:
    data = _read(stage_fd, b"staged")
    return [_STAGED.unpack_from(data, at) for at in range(0, len(data), _STAGED.size)]


def read_unlocked(stage_fd: int) -> dict[bytes, tuple[int, bool]]:
    """The locks (flags, read-only subvolume) that paths lost during the attempt."""
    if not exists_in(stage_fd, b"unlocked"):
        return {}
    data = _read(stage_fd, b"unlocked")
    found: dict[bytes, tuple[int, bool]] = {}
    at = 0
    while at + _UNLOCKED.size <= len(data):
        flags, read_only, length = _UNLOCKED.unpack_from(data, at)
        at += _UNLOCKED.size + length
        found.setdefault(data[at - length : at], (flags, read_only))
    return found


def _remove_domain(top: int, tag: bytes) -> None:
    """Remove one attempt's slots in a subvolume, and ``.snapbreaker`` when empty, without a trace at its top."""
    base = open_beneath(top, VAULT_NAME, _DIRECTORY, one_mount=True)
    before = os.fstat(top)
    flags, read_only = metadata.unlock(top)
    try:
        remove_tree(base, tag)
        with suppress(OSError):
            ops.rmdir(top, VAULT_NAME)
            os.utime(top, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(base)
        if flags:
            ops.set_flags(top, get_flags(top) | flags)
        if read_only:
            ops.set_subvolume_read_only(top, True)


def _open_plain(parent: int, name: bytes) -> int:
    """A directory of ours without anything that files made in it would inherit."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(fd, 0o700)
        os.fchown(fd, os.geteuid(), os.getegid())
        for attribute, _ in read_xattrs(fd):
            if not attribute.startswith(b"security."):
                ops.remove_xattr(fd, attribute)
        if get_flags(fd):
            ops.set_flags(fd, 0)
        if get_project(fd):
            ops.set_project(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read(directory: int, name: bytes) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as file:
        return file.read()
