"""Which mounts become volumes: judged on lines of mountinfo, and on the directories of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapbreaker import volumes
from snapbreaker.backend import Volume
from snapbreaker.errors import UsageError
from snapbreaker.files.policy import PathClass
from snapbreaker.linux.filesystems import Kind, filesystem_type, kind
from snapbreaker.linux.mountinfo import Mount, parse_mount
from snapbreaker.paths import below, is_below, relative
from snapbreaker.volumes import LeftOut, discover


class Machine:
    """Mounts that exist only on paper, over the directories of a real one."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top, self.mounts = top, list[Mount]()
        monkeypatch.setattr(volumes, "read_mounts", lambda: self.mounts)
        monkeypatch.setattr(volumes, "_mount_id", self._holder)

    def mount(
        self,
        number: int,
        parent: int,
        where: str,
        fstype: str = "ext4",
        device: str = "8:1",
        root: str = "/",
        options: str = "rw",
        extra: str = "rw",
    ) -> None:
        point = str(self.top) + where
        os.makedirs(point, exist_ok=True)
        line = f"{number} {parent} {device} {root} {point} {options} shared:1 - {fstype} /dev/x {extra}"
        self.mounts.append(parse_mount(line.encode()))

    def _holder(self, path: str) -> int:
        """The last mounted of those whose mount point is nearest above."""
        holding = [mount for mount in self.mounts if is_below(path, mount.mountpoint)]
        longest = max(len(mount.mountpoint) for mount in holding)
        return [mount.id for mount in holding if len(mount.mountpoint) == longest][-1]

    def discover(self, *scopes: str, keep: tuple[str, ...] = ()) -> tuple[list[str], dict[str, str]]:
        """Roots of volumes and what is left out, as paths of the machine."""
        found = discover([str(self.top) + scope for scope in scopes], [str(self.top) + path for path in keep])
        self.found = found.volumes
        assert [volume.number for volume in found.volumes] == list(range(len(found.volumes)))
        assert len(found.policies) == len(found.volumes)
        return [self._short(volume.root) for volume in found.volumes], {
            self._short(left.path): left.why for left in found.left_out
        }

    def skips(self) -> list[list[str]]:
        return [[self._short(path) for path in volume.skip] for volume in self.found]

    def _short(self, path: str) -> str:
        return path.removeprefix(str(self.top)) or "/"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    made.mount(1, 0, "")
    return made


def test_local_filesystems_below_are_volumes_and_the_rest_is_named(machine: Machine) -> None:
    machine.mount(2, 1, "/boot", device="8:2")
    machine.mount(3, 2, "/boot/efi", "vfat", device="8:3")
    machine.mount(4, 1, "/proc", "proc", device="0:4")
    machine.mount(5, 1, "/run", "tmpfs", device="0:5")
    machine.mount(6, 1, "/nfs", "nfs4", device="0:6")
    machine.mount(7, 1, "/sshfs", "fuse.sshfs", device="0:7")
    machine.mount(8, 1, "/snap/core", "squashfs", device="7:0", options="ro,nodev")
    roots, left = machine.discover("/")
    assert roots == ["/", "/boot", "/boot/efi"]
    assert left == {
        "/nfs": "network filesystem (nfs4)",
        "/proc": "an interface of the kernel (proc)",
        "/run": "lies in memory (tmpfs)",
        "/snap/core": "mounted read-only (squashfs)",
        "/sshfs": "served by a program (fuse.sshfs)",
    }
    assert machine.skips() == [["/boot", "/nfs", "/proc", "/run", "/snap/core", "/sshfs"], ["/boot/efi"], []]


def test_subvolumes_of_one_btrfs_are_volumes_of_their_own(machine: Machine) -> None:
    machine.mounts.clear()
    machine.mount(1, 0, "", "btrfs", device="0:30", root="/@")
    machine.mount(2, 1, "/home", "btrfs", device="0:30", root="/@home")
    machine.mount(3, 1, "/mnt/pool", "btrfs", device="0:30", root="/")
    roots, left = machine.discover("/")
    assert roots == ["/", "/home"]
    assert "from further above" in left["/mnt/pool"]


def test_bind_mounts_of_what_is_in_scope_are_left_out(machine: Machine) -> None:
    machine.mount(2, 1, "/srv/seen", root=f"{machine.top}/data")
    machine.mount(3, 1, "/other", device="8:9", root="/")
    machine.mount(4, 1, "/again", device="8:9", root="/sub")
    roots, left = machine.discover("/")
    assert roots == ["/", "/other"]
    assert left["/srv/seen"].startswith("bind mount of ")
    assert left["/again"] == f"bind mount of {machine.top}/other/sub"


def test_a_bind_mount_of_what_another_mount_hides_is_not_left_out(machine: Machine) -> None:
    machine.mounts.clear()
    machine.mount(1, 0, "", root="/")
    machine.mount(2, 1, "/data", device="8:2")
    machine.mount(3, 1, "/old-data", root="/data")
    roots, left = machine.discover("/")
    assert roots == ["/", "/data", "/old-data"]
    assert left == {}


def test_a_directory_mounted_on_itself_is_one_volume(machine: Machine) -> None:
    machine.mounts.clear()
    machine.mount(1, 0, "", root="/")
    machine.mount(2, 1, "/data", root="/data")
    assert machine.discover("/") == (["/", "/data"], {})


def test_of_several_on_one_mount_point_the_last_is_seen(machine: Machine) -> None:
    machine.mount(2, 1, "/mnt", device="8:2")
    machine.mount(3, 2, "/mnt/inner", device="8:3")
    machine.mount(4, 2, "/mnt", "xfs", device="8:4")
    roots, _ = machine.discover("/")
    assert roots == ["/", "/mnt"]
    assert machine.found[1].fstype == "xfs"


def test_a_mount_that_another_covers_is_not_seen(machine: Machine) -> None:
    machine.mount(2, 1, "/a/b/c", device="8:2")
    machine.mount(3, 1, "/a/b", device="8:3")
    assert machine.discover("/")[0] == ["/", "/a/b"]


def test_overlay_of_layers_in_scope(machine: Machine) -> None:
    machine.mount(2, 1, "/docker/merged", "overlay", "0:50", extra=f"rw,upperdir={machine.top}/docker/diff")
    machine.mount(3, 1, "/other", "overlay", "0:51", extra="rw,upperdir=/elsewhere/diff")
    roots, left = machine.discover("/")
    assert roots == ["/", "/other"]
    assert left["/docker/merged"].startswith("overlay: ")


def test_kept_mounts_and_scopes(machine: Machine) -> None:
    machine.mount(2, 1, "/kept/deep", device="8:2")
    roots, left = machine.discover("/", keep=("/kept",))
    assert roots == ["/"]
    assert left == {"/kept/deep": "kept"}
    with pytest.raises(UsageError, match="is kept"):
        machine.discover("/kept/deep", keep=("/kept",))


def test_overlapping_scopes_are_merged_and_hidden_ones_found(machine: Machine) -> None:
    machine.mount(2, 1, "/run", "tmpfs", device="0:5")
    (machine.top / "srv/app").mkdir(parents=True)
    (machine.top / "run/app").mkdir()
    roots, _ = machine.discover("/srv", "/srv/app", "/srv")
    assert roots == ["/srv"]
    roots, left = machine.discover("/", "/srv", "/run/app")
    assert roots == ["/", "/run/app"]
    assert "/run" in left
    assert machine.found[1].mountpoint == str(machine.top / "run")


def test_policies_belong_to_the_innermost_volume(tmp_path: Path, machine: Machine) -> None:
    machine.mount(2, 1, "/var", device="8:2")
    top = str(tmp_path)
    scope = discover([top], [top + "/cache", top + "/var/a\udcff"], [top + "/store"])
    assert scope.policies[0].classes == ((b"cache", PathClass.KEEP), (b"store", PathClass.KEEP))
    assert scope.policies[1].classes == ((b"a\xff", PathClass.KEEP),)


def test_what_is_kept_by_default_unless_it_is_asked_for() -> None:
    """Of a scope that holds them; one at or below them asks for them by name."""
    (policy,) = {discover(["/var"]).policies[0]}
    assert policy.of(b"tmp/x") is PathClass.KEEP
    assert policy.of(b"log/journal/x") is PathClass.KEEP
    assert policy.of(b"log/dpkg.log") is PathClass.KEEP_CONTENT
    assert policy.of(b"lib/x") is PathClass.RESTORE
    assert discover(["/var/log"]).policies[0].of(b"dpkg.log") is PathClass.RESTORE
    assert discover(["/var", "/var/tmp"]).policies[0].of(b"tmp/x") is PathClass.RESTORE


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "missing", Path("/proc/self/task"), Path("/sys/kernel")):
        with pytest.raises(UsageError):
            discover([str(bad)])


def test_links_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    scope = discover([str(tmp_path / "link")], [str(tmp_path / "link/inner")])
    volume = scope.volumes[0]
    assert volume.root == str(tmp_path / "real")
    assert volume.mountpoint in ("/", *map(str, tmp_path.parents))
    assert volume.fstype == filesystem_type(str(tmp_path))
    assert scope.policies[0].keeps(b"inner")
    assert volume.vault_base == volume.mountpoint.rstrip("/") + "/.snapbreaker"


def test_a_mount_that_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chroot the mount of / is not in mountinfo."""
    monkeypatch.setattr(volumes, "read_mounts", list)
    volume = discover([str(tmp_path)]).volumes[0]
    facts = os.stat(tmp_path).st_dev
    assert volume.mountpoint in ("/", *map(str, tmp_path.parents))
    assert os.stat(volume.mountpoint).st_dev == facts
    assert volume.device == f"{os.major(facts)}:{os.minor(facts)}"
    assert volume.fstype == filesystem_type(str(tmp_path))


def test_paths() -> None:
    assert is_below("/a/b", "/")
    assert is_below("/a", "/a")
    assert not is_below("/ab", "/a")
    assert [relative("/a/b", "/"), relative("/a", "/a"), relative("/a/b/c", "/a")] == ["a/b", "", "b/c"]
    assert [below("/", "a"), below("/a", ""), below("/a", "b")] == ["/a", "/a", "/a/b"]


def test_kinds() -> None:
    assert [kind(name) for name in ("ext4", "proc", "tmpfs", "nfs4", "fuse.sshfs", "fuseblk")] == [
        Kind.LOCAL,
        Kind.KERNEL,
        Kind.MEMORY,
        Kind.NETWORK,
        Kind.SERVED,
        Kind.SERVED,
    ]
    assert filesystem_type("/proc") == "proc"
    assert isinstance(LeftOut("/x", "y"), LeftOut)
    assert Volume(0, "/", "/", "ext4", "", "").vault_base == "/.snapbreaker"
