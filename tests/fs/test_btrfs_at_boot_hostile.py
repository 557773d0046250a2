"""What lies in the way of a replacement at boot: mounts, names, and what became of directories that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapbreaker import at_boot
from snapbreaker_backends.btrfs import exchange
from tests import comparer
from tests.fs.rooted import BACKEND, KEPT, Root, schedule

AWAY = {
    "a link": "mv var/lib/machines moved; ln -s /etc var/lib/machines",
    "a file": "mv var/lib/machines moved; echo file >var/lib/machines",
    "gone": "mv var/lib/machines moved",
    "above it a link": "mv var/lib moved; ln -s /etc var/lib",
    "above it a file": "mv var moved; echo file >var",
    "above it gone": "mv var moved",
    "above what is in it a link": "mv var/log/inner moved; ln -s /etc var/log/inner",
    "above what is in it gone": "mv var/log/inner moved",
}


@pytest.mark.parametrize("how", AWAY)
def test_what_was_kept_is_something_else(root: Root, how: str) -> None:
    """A user may own the directory that is kept, or the one above it: nobody else's records wait for that."""
    root.sh("mkdir -p var/log/inner/most; echo x >var/log/inner/most/file")
    stored, before = root.checkpoint(keep=[*KEPT, "var/log/inner/most"]), root.look()
    schedule(stored)
    root.sh(f"{AWAY[how]}; echo new >keptsub/file")
    root.reboot()
    for _ in range(2):
        assert exchange.carry_over(stored.volume) == "7-test"
    assert comparer.differences(before, root.look()) == []
    assert root.sh("cat keptsub/file; ls /etc | grep -cx 'messages\\|store\\|most\\|file' || true") == "new\n0\n"


def test_what_is_kept_is_deep(root: Root) -> None:
    """Deeper than a path can be long, as anybody may make it in /var/tmp."""
    stored, before = root.checkpoint(), root.look()
    schedule(stored)
    name = "d" * 200
    root.sh(f"cd var/log; for i in $(seq 30); do mkdir {name}; cd -P {name}; done; echo deep >file")
    root.sh("echo new >keptsub/file")
    root.reboot()
    assert exchange.carry_over(stored.volume) == "7-test"
    assert comparer.differences(before, root.look()) == []
    assert (
        root.sh(f"cat keptsub/file; cd var/log; for i in $(seq 30); do cd -P {name}; done; cat file")
        == "new\ndeep\n"
    )


def test_a_volume_that_holds_no_system_is_carried_over_too(root: Root) -> None:
    stored = root.checkpoint()
    root.sh("echo new >>var/log/messages")
    kept = root.kept()
    schedule(stored)
    root.reboot()
    at_boot.carry_over()
    assert root.kept() == kept


def test_a_subvolume_in_it_that_is_mounted_by_itself(root: Root) -> None:
    """It would go with the old one, and be missed by the mount of the next boot."""
    root.sh(f"mount -o subvol=@/home {root.device} home")
    assert _told(root) == [
        f"{root.path}/home is mounted over the subvolume home in it, which would go with the rest"
    ]
    root.sh("umount home; mount -t tmpfs none home")
    assert _told(root) == [
        f"{root.path}/home is mounted over the subvolume home in it, which would go with the rest"
    ]
    root.sh("umount home; mount --bind etc var")
    assert _told(root) == []
    root.sh("umount var")


def test_a_kept_subvolume_that_the_boot_wants(root: Root, tmp_path: Path) -> None:
    """It comes over only after all that fstab(5) names was mounted."""
    fstab = tmp_path / "fstab"
    before = fstab.read_text() if fstab.exists() else ""
    fstab.write_text(f"{before}{root.device} /srv/home btrfs subvol=/@/home 0 0\n")
    assert _told(root) == []
    fstab.write_text(f"{before}{root.device} /srv/kept btrfs subvol=@/keptsub 0 0\n")
    assert _told(root) == [f"{fstab} mounts the kept subvolume keptsub in it at /srv/kept, before it comes over"]


def test_what_is_mounted_for_a_soft_reboot(root: Root) -> None:
    stored, point = root.checkpoint(), root.path.parent / "next"
    root.sh("echo new >etc/file")
    schedule(stored)
    point.mkdir()
    BACKEND.mount_next(stored, str(point))
    assert (point / "etc/file").read_text() == "old\n"
    root.sh(f"umount {point}; rmdir {point}")
    exchange.call_off(stored.volume, stored.vault)


def test_the_name_that_is_booted_is_another_ones(root: Root, tmp_path: Path) -> None:
    root.other_takes_over("true")
    told = _told(root)
    assert len(told) == 1
    assert told[0] in (
        f"{tmp_path}/fstab mounts @ at {root.path}, and not aside, which is there now",
        f"{root.path} is neither mounted by subvol= at boot nor the filesystem's default subvolume",
    )


def _told(root: Root) -> list[str]:
    stored = root.checkpoint()
    told = [reason.text for reason in BACKEND.at_boot(stored).reasons]
    BACKEND.discard(stored.volume, stored.vault, stored.record)
    Path(stored.vault).rmdir()
    return told
