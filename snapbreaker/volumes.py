"""Which volumes a scope consists of: the mounts that hold its directories, and the filesystems below them."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from snapbreaker import layout
from snapbreaker.backend import Volume
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.linux.filesystems import Kind, filesystem_type, kind
from snapbreaker.linux.mountinfo import Mount, read_mounts
from snapbreaker.linux.swaps import active_swap_files
from snapbreaker.paths import below, is_below, relative

ZFS_CONTROL = ".zfs"  # at a dataset's top, seen or hidden: its snapshots
_WHY = {
    Kind.KERNEL: "an interface of the kernel",
    Kind.MEMORY: "lies in memory",
    Kind.NETWORK: "network filesystem",
    Kind.SERVED: "served by a program",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A mount point in scope that no checkpoint covers, and the reason in words."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What a checkpoint covers. ``policies[n]`` is the policy of ``volumes[n]``; ``volumes[n].number == n``."""

    volumes: tuple[Volume, ...]
    policies: tuple[Policy, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A volume with the mount that it lies on."""

    root: str
    mount: Mount

    @property
    def inside(self) -> str:
        """Where ``root`` lies within the filesystem itself, whatever is mounted where."""
        return below(self.mount.root, relative(self.root, self.mount.mountpoint))


def discover(
    scopes: Sequence[str],
    keep: Sequence[str] = (),
    excluded: Sequence[str] = (),
    keep_content: Sequence[str] = (),
    *,
    system: bool = False,
) -> Scope:
    """The volumes of the directories ``scopes``, outermost first.

    ``keep`` and ``excluded`` (records) are neither recorded nor touched; they may lie anywhere and need not exist.
    The same holds for active swap files and what ``layout`` keeps inside a scope; of ``keep_content`` and logs
    growth stays. Of the ``system`` those filesystems are left out that do not hold it. Raises UsageError for a
    scope that is no directory, is the kernel's own (/proc, /sys …) or is kept as a whole, CheckpointError
    without /proc.
    """
    if "" in (*scopes, *keep):
        raise UsageError("a path is empty", "perhaps a variable that is not set")
    roots = [_directory(scope) for scope in scopes]
    kept = [_place(path) for path in (*keep, *excluded)]
    swaps = [path for path, _ in active_swap_files()]
    for root in roots:
        for path in kept:
            if is_below(root, path):
                raise UsageError(f"nothing of the scope {root} is left: {path} is kept", "choose another scope")
    mounts = _mounts()
    found: list[_Found] = []
    left_out: dict[str, str] = {}
    usual = [path for path in map(_place, layout.KEPT) if _is_inside(path, roots)]
    for root in sorted(set(roots), key=_order):
        if not _covered(root, found, mounts):
            _add_scope(root, mounts, [*kept, *usual], found, left_out, system)
    found.sort(key=lambda volume: _order(volume.root))
    volumes = tuple(_volume(number, one, mounts) for number, one in enumerate(found))
    classes = [(path, PathClass.KEEP) for path in (*kept, *usual, *swaps)]
    logs = [*map(_place, keep_content), *(path for path in map(_place, layout.LOGS) if _is_inside(path, roots))]
    classes += [(path, PathClass.KEEP_CONTENT) for path in logs]
    return Scope(
        volumes,
        tuple(_policy(volume, volumes, classes) for volume in volumes),
        tuple(LeftOut(path, left_out[path]) for path in sorted(left_out, key=_order)),
    )


def mounted() -> list[Volume]:
    """All that is seen of filesystems of this machine's own disks, each view once. Raises CheckpointError."""
    mounts = _mounts()
    found: dict[tuple[str, str], Mount] = {}
    for mount in mounts:
        if kind(mount.fstype) is Kind.LOCAL and os.path.isdir(mount.mountpoint):
            with suppress(OSError):
                if _mount_id(mount.mountpoint) == mount.id:
                    found.setdefault((mount.device, mount.root), mount)
    return [_volume(number, _Found(one.mountpoint, one), mounts) for number, one in enumerate(found.values())]


def _is_inside(path: str, roots: Sequence[str]) -> bool:
    """Whether a scope holds ``path``, and none is asked for at it or below it."""
    return any(is_below(path, root) for root in roots) and not any(is_below(root, path) for root in roots)


def _directory(scope: str) -> str:
    try:
        path = os.path.realpath(os.path.abspath(scope), strict=True)
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UsageError(f"scope {scope}: {error.strerror}", "a scope is an existing directory") from error
    if not stat.S_ISDIR(mode):
        raise UsageError(f"scope {scope} is not a directory", "a scope is an existing directory")
    return path


def _place(path: str) -> str:
    """Absolute, with the links in its directory resolved, but not a link that it is itself."""
    parent, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(parent), name) if name else parent


def _order(path: str) -> list[str]:
    return path.rstrip("/").split("/")


def _mounts() -> list[Mount]:
    try:
        return [mount for mount in read_mounts() if not mount.shows_snapshot]
    except OSError as error:
        raise CheckpointError(f"cannot read the mounts: {error}", "/proc must be mounted") from error


def _holding(path: str, mounts: Sequence[Mount]) -> Mount:
    """By mount id; in a chroot the mount of ``/`` may not be listed: then it is made up of what is known."""
    identity = _mount_id(path)
    for mount in mounts:
        if mount.id == identity:
            return mount
    top = path
    while top != "/" and _mount_id(os.path.dirname(top)) == identity:
        top = os.path.dirname(top)
    device = os.stat(top).st_dev
    return Mount(
        id=identity,
        parent=0,
        device=f"{os.major(device)}:{os.minor(device)}",
        root="/",
        mountpoint=top,
        options="ro" if os.statvfs(top).f_flag & os.ST_RDONLY else "rw",
        fstype=filesystem_type(top),
        source="",
        super_options="",
    )


def _mount_id(path: str) -> int:
    """The id as in mountinfo, out of fdinfo: Python has no statx(2)."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("mnt_id:"):
                    return int(line.split()[1])
    except OSError as error:
        raise CheckpointError(f"cannot tell the mount of {path}: {error}", "/proc must be mounted") from error
    finally:
        os.close(fd)
    raise CheckpointError(f"cannot tell the mount of {path}", "Linux 3.15 or newer is needed")


def _covered(root: str, found: Sequence[_Found], mounts: Sequence[Mount]) -> bool:
    """Whether ``root`` lies in a volume that was found already, on the same mount."""
    identity = _holding(root, mounts).id
    return any(volume.mount.id == identity and is_below(root, volume.root) for volume in found)


def _add_scope(
    root: str,
    mounts: Sequence[Mount],
    kept: Sequence[str],
    found: list[_Found],
    left_out: dict[str, str],
    system: bool,
) -> None:
    top = _holding(root, mounts)
    if kind(top.fstype) is Kind.KERNEL:
        raise UsageError(
            f"scope {root} is an interface of the kernel ({top.fstype})", "choose a directory of files"
        )
    left_out.pop(root, None)  # a mount that an outer scope leaves out may be asked for by name
    found.append(_Found(root, top))
    # Of several views of one filesystem the widest comes first: the others are parts of it.
    for mount in sorted(_submounts(top, root, mounts), key=lambda mount: len(_order(mount.root))):
        if any(volume.root == mount.mountpoint for volume in found):
            continue
        why = _why_left_out(mount, mounts, kept, found) or (_no_system(mount) if system else "")
        if not why:
            found.append(_Found(mount.mountpoint, mount))
        elif not _is_part_of_one(mount, left_out):
            left_out[mount.mountpoint] = why


def _submounts(top: Mount, root: str, mounts: Sequence[Mount]) -> list[Mount]:
    """The mounts that are seen below ``root``, a parent before its children.

    Of several on one mount point only the last is seen (its parent is the one that it covers), and one whose mount
    point lies below that of a sibling was covered by the sibling.
    """
    children = [mount for mount in mounts if mount.parent == top.id and mount.id != top.id]
    points = [child.mountpoint for child in children]
    seen: list[Mount] = []
    for child in sorted(children, key=lambda mount: _order(mount.mountpoint)):
        covered = any(child.mountpoint != point and is_below(child.mountpoint, point) for point in points)
        if covered or child.mountpoint == root or not is_below(child.mountpoint, root):
            continue
        child = _uppermost(child, mounts)
        seen += [child, *_submounts(child, child.mountpoint, mounts)]
    return seen


def _uppermost(mount: Mount, mounts: Sequence[Mount]) -> Mount:
    for other in mounts:
        if other.parent == mount.id and other.id != mount.id and other.mountpoint == mount.mountpoint:
            return _uppermost(other, mounts)
    return mount


def _why_left_out(mount: Mount, mounts: Sequence[Mount], kept: Sequence[str], found: Sequence[_Found]) -> str:
    """Why a mount below a scope is not covered; empty when it is."""
    if any(is_below(mount.mountpoint, path) for path in kept):
        return "kept"
    if kind(mount.fstype) is not Kind.LOCAL:
        return f"{_WHY[kind(mount.fstype)]} ({mount.fstype})"
    if not os.path.isdir(mount.mountpoint):
        return "a file with another mounted over it"
    if "ro" in mount.options.split(","):
        return f"mounted read-only ({mount.fstype})"
    return _seen_elsewhere(mount, mounts, found)


def _is_part_of_one(mount: Mount, left_out: Collection[str]) -> bool:
    """Whether it is no filesystem of files, below one that is left out: nobody asks for /dev/pts by name."""
    above = (path for path in left_out if path != mount.mountpoint and is_below(mount.mountpoint, path))
    return kind(mount.fstype) in (Kind.KERNEL, Kind.MEMORY) and any(above)


def _no_system(mount: Mount) -> str:
    if any(is_below(mount.mountpoint, path) for path in layout.SYSTEM):
        return ""
    return f"does not hold the system: --scope {mount.mountpoint} protects it too"


def _seen_elsewhere(mount: Mount, mounts: Sequence[Mount], found: Sequence[_Found]) -> str:
    upper = next((o[9:] for o in mount.super_options.split(",") if o.startswith("upperdir=")), "")
    for volume in found:
        if upper and is_below(upper, volume.root):
            return f"overlay: what is written there lies in {upper}"
        if volume.mount.device != mount.device:
            continue
        if is_below(mount.root, volume.inside) and not _hidden(mount.root, volume, mounts):
            return f"bind mount of {below(volume.root, relative(mount.root, volume.inside))}"
        if is_below(volume.inside, mount.root):
            return f"shows the filesystem of {volume.root} from further above"
    return ""


def _hidden(inside: str, volume: _Found, mounts: Sequence[Mount]) -> bool:
    """Whether the place ``inside`` the volume's filesystem is covered by a mount: then its own walk misses it."""
    for mount in mounts:
        if mount.parent == volume.mount.id and is_below(mount.mountpoint, volume.root):
            point = below(volume.mount.root, relative(mount.mountpoint, volume.mount.mountpoint))
            if is_below(inside, point):
                return True
    return False


def _volume(number: int, found: _Found, mounts: Sequence[Mount]) -> Volume:
    mount = found.mount
    skip = {
        other.mountpoint
        for other in mounts
        if other.parent == mount.id and other.mountpoint != found.root and is_below(other.mountpoint, found.root)
    }
    if mount.fstype == "zfs" and mount.root == "/":
        skip |= {path for path in (below(mount.mountpoint, ZFS_CONTROL),) if is_below(path, found.root)}
    volume = Volume(number, found.root, mount.mountpoint, mount.fstype, mount.source, mount.device)
    return replace(volume, skip=tuple(sorted(skip, key=_order)))


def _policy(volume: Volume, volumes: Sequence[Volume], classes: Sequence[tuple[str, PathClass]]) -> Policy:
    """Each path belongs to the innermost volume that holds it; a class of what surrounds a volume covers it."""
    own: dict[bytes, PathClass] = {}
    for path, path_class in classes:
        if is_below(volume.root, path):
            own.setdefault(b"", path_class)
        elif is_below(path, volume.root) and _innermost(path, volumes) == volume:
            own.setdefault(os.fsencode(relative(path, volume.root)), path_class)  # keep comes first, and stays
    return Policy(tuple(sorted(own.items())))


def _innermost(path: str, volumes: Sequence[Volume]) -> Volume:
    return max((volume for volume in volumes if is_below(path, volume.root)), key=lambda volume: len(volume.root))
