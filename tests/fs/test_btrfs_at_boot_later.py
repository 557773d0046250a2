"""What becomes of a volume that was replaced at boot when others have changed since, by us or by somebody else."""

from __future__ import annotations

import pytest

from snapbreaker.errors import CheckpointError
from snapbreaker_backends.btrfs import exchange
from tests import comparer
from tests.fs.rooted import Root, killed_before, schedule


def test_an_older_checkpoint_goes_and_the_root_stays(root: Root) -> None:
    """Twice replaced: what the first one had displaced is not what runs by now."""
    first = root.checkpoint("1-first")
    root.sh("echo second >etc/file")
    second, before = root.checkpoint("2-second"), root.look()
    for stored in (first, second):
        root.sh("echo changed >etc/file")
        schedule(stored)
        root.reboot()
        assert exchange.carry_over(stored.volume) == stored.data["checkpoint"]
    assert comparer.differences(before, root.look()) == []
    exchange.remove(first.volume, first.vault)
    assert comparer.differences(before, root.look()) == []
    root.reboot()
    assert comparer.differences(before, root.look()) == []
    exchange.remove(second.volume, second.vault)
    assert [path for path in root.top_level() if "at-boot" in path] == []


def test_somebody_else_replaces_the_root_afterwards(root: Root) -> None:
    stored = root.checkpoint()
    schedule(stored)
    root.reboot()
    exchange.carry_over(stored.volume)
    root.other_takes_over("echo other >etc/file")
    root.reboot()
    before = root.look()
    assert root.sh("cat etc/file") == "other\n"
    exchange.remove(stored.volume, stored.vault)
    assert comparer.differences(before, root.look()) == []
    root.reboot()
    assert comparer.differences(before, root.look()) == []


def test_somebody_else_replaces_the_root_before_the_boot(root: Root) -> None:
    stored = root.checkpoint()
    schedule(stored)
    root.other_takes_over("echo other >etc/file")
    root.reboot()
    before = root.look()
    assert root.sh("cat etc/file") == "other\n"
    assert not exchange.reverted(stored.volume, stored.vault)
    exchange.call_off(stored.volume, stored.vault)
    root.reboot()
    assert comparer.differences(before, root.look()) == []


def test_what_is_kept_is_not_lost_before_it_came_over(root: Root) -> None:
    stored = root.checkpoint()
    root.sh("echo new >>var/log/messages")
    kept = root.kept()
    schedule(stored)
    root.reboot()
    with pytest.raises(CheckpointError, match="recover"):
        exchange.remove(stored.volume, stored.vault)
    exchange.carry_over(stored.volume)
    assert root.kept() == kept
    exchange.remove(stored.volume, stored.vault)


def test_back_to_the_same_checkpoint_twice(root: Root) -> None:
    stored, before = root.checkpoint(), root.look()
    for _ in range(2):
        root.sh("echo new >etc/file")
        schedule(stored)
        root.reboot()
        exchange.carry_over(stored.volume)
        assert comparer.differences(before, root.look()) == []
    exchange.remove(stored.volume, stored.vault)
    assert [path for path in root.top_level() if "at-boot" in path] == []


def test_no_plan_of_a_stranger_counts(root: Root) -> None:
    """Where others can write to the top level, they could say what is booted, removed and copied."""
    stored, before = root.checkpoint(), root.look()
    top = root.path.parent / "top"
    top.mkdir()
    root.sh(f"mount -o subvolid=5 {root.device} {top}")
    for make in ("mkdir {0}; chown 65534 {0}", "mkdir {0}; chmod 1777 {0}", "ln -s /tmp {0}", "touch {0}"):
        root.sh(make.format(top / ".snapbreaker"))
        assert exchange.carry_over(stored.volume) == ""
        assert not exchange.reverted(stored.volume, stored.vault)
        with pytest.raises((CheckpointError, OSError)):
            schedule(stored)
        exchange.remove(stored.volume, stored.vault)
        root.sh(f"rm -r {top}/.snapbreaker")
    root.sh(f"umount {top}; rmdir {top}")
    assert comparer.differences(before, root.look()) == []


def test_half_carried_it_is_not_called_off(root: Root) -> None:
    """Whoever boots the old one by hand then must not lose what has gone over already."""
    stored = root.checkpoint()
    kept = root.kept()
    schedule(stored)
    root.reboot()
    assert killed_before("rename", lambda: exchange.carry_over(stored.volume))
    root.boot(".snapbreaker/at-boot/7-test-0/other")
    for work in (exchange.call_off, exchange.remove):
        with pytest.raises(CheckpointError, match="half"):
            work(stored.volume, stored.vault)
    root.reboot()
    assert exchange.carry_over(stored.volume) == "7-test"
    assert root.kept() == kept


def test_the_old_one_is_booted_by_hand_long_after(root: Root) -> None:
    stored = root.checkpoint()
    schedule(stored)
    root.reboot()
    exchange.carry_over(stored.volume)
    root.sh("echo since >etc/file")
    root.boot(".snapbreaker/at-boot/7-test-0/other")
    for work in (exchange.call_off, exchange.remove):
        with pytest.raises(CheckpointError, match="runs on what"):
            work(stored.volume, stored.vault)
    root.reboot()
    assert root.sh("cat etc/file") == "since\n"
    exchange.remove(stored.volume, stored.vault)
    assert [path for path in root.top_level() if "at-boot" in path] == []
