"""A system that lies on several filesystems: one checkpoint, all or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests import comparer
from tests.lab import loopfs
from tests.lab.loopfs import LoopFilesystem
from tests.lab.machine import Machine
from tests.system.facts import facts
from tests.system.scene import report, script, until

END = "\necho 'ERROR: enough'\nsleep 60\n"
MIB = 1 << 20
VOLUMES = {"/srv": "xfs", "/home": "btrfs", "/opt": "ext4"}


class MakeVolume(Protocol):
    def __call__(self, fstype: str, size: int = ...) -> LoopFilesystem: ...


@pytest.fixture
def make_volume(lab: Path, request: pytest.FixtureRequest) -> Iterator[MakeVolume]:
    """Further filesystems. A test names this fixture before the machine, which then ends first."""
    made: list[LoopFilesystem] = []

    def make(fstype: str, size: int = 512 * MIB) -> LoopFilesystem:
        if reason := loopfs.missing_for(fstype):
            pytest.skip(reason)
        made.append(loopfs.make(fstype, lab, f"volume-{os.getpid()}-{len(made)}", size))
        return made[-1]

    yield make
    left = [user for volume in made for user in volume.close()]
    assert not left, f"processes outside of the machine used a volume: {left}"


def mount(machine: Machine, volume: LoopFilesystem, point: str) -> None:
    """As seen from outside it is at ``volume.path``, too."""
    number = os.stat(volume.device).st_rdev
    node = f'[ -e "$0" ] || mknod "$0" b {os.major(number)} {os.minor(number)}'
    machine.run("sh", "-c", node, volume.device, session=False)
    result = machine.run("mount", volume.device, point, session=False)
    assert result.returncode == 0, result.stderr


def mounted(machine: Machine, make_volume: MakeVolume) -> dict[str, LoopFilesystem]:
    found = {point: make_volume(fstype) for point, fstype in VOLUMES.items()}
    for point, volume in found.items():
        mount(machine, volume, point)
        script = f"mkdir -p {point}/app/data; echo old >{point}/app/file; ln {point}/app/file {point}/app/link"
        machine.run("sh", "-ec", script, session=False)
    machine.run("sh", "-ec", "btrfs subvolume create /home/sub; echo old >/home/sub/file", session=False)
    return found


Snapshot = dict[str, dict[bytes, comparer.Facts]]


def snapshots(machine: Machine, volumes: dict[str, LoopFilesystem]) -> Snapshot:
    return {"/": machine.snapshot(), **{point: comparer.snapshot(each.path) for point, each in volumes.items()}}


def differences(before: Snapshot, now: Snapshot) -> dict[str, list[str]]:
    found = {point: comparer.differences(before[point], now[point]) for point in before}
    return {point: lines for point, lines in found.items() if lines}


def doctor(machine: Machine, *options: str) -> list[dict[str, Any]]:
    said = machine.snapbreaker("doctor", "--json", *options, session=False).stdout
    return [json.loads(line) for line in said.splitlines()]


CHANGE = r"""
useradd --create-home deploy
echo new >>/etc/issue
for place in /srv /home /opt; do
	echo new >>$place/app/file
	rm $place/app/link
	mkdir $place/new && echo x >$place/new/file
	mv $place/app/data $place/app/moved
	chmod 700 $place/app
	chown 1:1 $place
done
btrfs -q subvolume create /home/more; echo x >/home/more/file
btrfs -q subvolume delete /home/sub 2>/dev/null >&2
mv /srv/app/file /opt/from-srv
"""


def test_all_go_back_together(make_volume: MakeVolume, machine: Machine) -> None:
    volumes = mounted(machine, make_volume)
    fail, change = script(machine, CHANGE + END, "/root/fail.sh"), script(machine, CHANGE)
    chosen = {one["volume"]: one["chosen"] for one in doctor(machine) if "volume" in one}
    assert set(chosen) == {"/", *VOLUMES}
    assert chosen["/home"] == "btrfs"
    assert chosen["/opt"] == chosen["/srv"] == "filecopy"
    system, before = facts(machine), snapshots(machine, volumes)
    result = machine.snapbreaker("run", "--", fail)
    assert result.returncode == 1, result.stderr
    told = report(machine)
    assert told["issue"]["line"] == "ERROR: enough"
    assert {one["root"] for one in told["volumes"]} == {"/", *VOLUMES}
    assert {one["what"] for one in told["compared"]} >= {f"files below {place}" for place in ("/", *VOLUMES)}
    assert differences(before, snapshots(machine, volumes)) == {}
    assert system.differences(facts(machine)) == {}
    # The same without an error: it stays, and goes, and comes again.
    done = machine.snapbreaker("run", "--", change)
    assert done.returncode == 0, done.stderr
    after = snapshots(machine, volumes)
    assert set(differences(before, after)) == {"/", *VOLUMES}
    for words, wanted in ((), before), (("--redo",), after):
        back = machine.snapbreaker("rollback", "--last", *words, "--yes")
        assert back.returncode == 0, back.stderr
        assert differences(wanted, snapshots(machine, volumes)) == {}


def test_what_is_left_out_is_named(make_volume: MakeVolume, ext4_machine: Machine) -> None:
    opt, data, srv = (make_volume("ext4", 64 * MIB) for _ in range(3))
    mount(ext4_machine, opt, "/opt")
    ext4_machine.run("mount", "-o", "remount,bind,ro", "/opt", session=False)
    mount(ext4_machine, srv, "/srv")
    ext4_machine.run(
        "sh",
        "-ec",
        "mkdir /mnt/data /srv/memory /srv/bound /srv/lower /srv/upper /srv/work /srv/merged\n"
        "mount -t tmpfs tmpfs /srv/memory; mount --bind /etc /srv/bound\n"
        "mount -t overlay -o lowerdir=/srv/lower,upperdir=/srv/upper,workdir=/srv/work overlay /srv/merged",
        session=False,
    )
    mount(ext4_machine, data, "/mnt/data")
    why = {
        "/opt": "mounted read-only (ext4)",
        "/mnt/data": "does not hold the system: --scope /mnt/data protects it too",
        "/srv/memory": "lies in memory (tmpfs)",
        "/srv/bound": "bind mount of /etc",
        "/srv/merged": "overlay: what is written there lies in /srv/upper",
    }
    asked = {one["left_out"]: one["why"] for one in doctor(ext4_machine) if "left_out" in one}
    assert {path: asked.get(path) for path in why} == why
    change = script(
        ext4_machine,
        "echo x >/mnt/data/file; echo x >/srv/memory/file; echo x >/srv/bound/issue; echo x >/srv/merged/file"
        + END,
    )
    volumes = {"/srv": srv, "/opt": opt}
    before = snapshots(ext4_machine, volumes)
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    told = report(ext4_machine)
    assert told["issue"]["line"] == "ERROR: enough"
    named = {one["path"]: one["text"] for one in told["left_out"]}
    assert {path: named.get(path) for path in why} == why
    markdown = ext4_machine.snapbreaker("report", "--last", "--format", "markdown", session=False).stdout
    assert all(path in markdown for path in why)
    # What lies in a volume goes back, whichever way it was written; what is left out stays.
    assert differences(before, snapshots(ext4_machine, volumes)) == {}
    assert ext4_machine.run("cat", "/mnt/data/file", "/srv/memory/file").stdout == "x\nx\n"
    asked = {
        one["volume"]: one["chosen"] for one in doctor(ext4_machine, "--scope", "/mnt/data") if "volume" in one
    }
    assert asked == {"/mnt/data": "filecopy"}


def test_one_that_is_full_means_no_checkpoint(make_volume: MakeVolume, ext4_machine: Machine) -> None:
    volumes = {
        "/srv": make_volume("ext4", 64 * MIB),
        "/home": make_volume("btrfs"),
        "/opt": make_volume("ext4", 64 * MIB),
    }
    for point, volume in volumes.items():
        mount(ext4_machine, volume, point)
    ext4_machine.run("sh", "-c", "head -c 20M /dev/urandom >/srv/data; cat /dev/zero >/srv/full", session=False)
    ext4_machine.run(
        "sh", "-ec", "systemctl unmask apt-daily.timer; systemctl start apt-daily.timer", session=False
    )
    before = snapshots(ext4_machine, volumes)
    result = ext4_machine.snapbreaker("run", "--", "touch", "/tmp/was-run")
    assert result.returncode == 4, result.stderr
    assert "/srv" in result.stderr
    assert ext4_machine.run("test", "-e", "/tmp/was-run").returncode == 1
    assert differences(before, snapshots(ext4_machine, volumes)) == {}
    assert ext4_machine.run("systemctl", "is-active", "apt-daily.timer").stdout == "active\n"
    vaults = [f"{place}/.snapbreaker" for place in ("", *volumes)]
    left = ext4_machine.run("find", "/var/lib/snapbreaker", *vaults, "-mindepth", "1", "-not", "-name", "lock*")
    assert {
        line for line in left.stdout.splitlines() if "/lifeboat" not in line and "sequence" not in line
    } == set()
    assert ext4_machine.run("btrfs", "subvolume", "list", "/home").stdout == ""
    ext4_machine.run("rm", "/srv/full", "/srv/data")
    assert ext4_machine.snapbreaker("run", "--", "true").returncode == 0


def mount_points(machine: Machine) -> list[str]:
    listed = machine.run("findmnt", "-rno", "TARGET", session=False).stdout
    return [line for line in listed.splitlines() if not line.startswith("/run/user/")]


def test_mounts_of_the_run(make_volume: MakeVolume, ext4_machine: Machine) -> None:
    srv, extra = make_volume("ext4", 64 * MIB), make_volume("ext4", 64 * MIB)
    mount(ext4_machine, srv, "/srv")
    mount(ext4_machine, extra, "/mnt")
    ext4_machine.run("umount", "/mnt", session=False)
    ext4_machine.run("sh", "-ec", "mkdir /srv/a; echo old >/srv/a/file", session=False)
    change = script(
        ext4_machine,
        f"mount {extra.device} /srv/a; echo x >/srv/a/file; mount -t tmpfs tmpfs /home; touch /home/x\n"
        "mount --bind /etc /srv/a; mount -t tmpfs tmpfs /srv; echo y >/srv/z" + END,
    )
    before = snapshots(ext4_machine, {"/srv": srv})
    points = mount_points(ext4_machine)
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    told = report(ext4_machine)
    assert told["issue"]["line"] == "ERROR: enough"
    assert sum(text.startswith("unmounted /") for text in told["warnings"]) == 4, told["warnings"]
    assert differences(before, snapshots(ext4_machine, {"/srv": srv})) == {}
    assert mount_points(ext4_machine) == points


def test_a_mount_that_the_run_takes_away_is_told(make_volume: MakeVolume, ext4_machine: Machine) -> None:
    srv = make_volume("ext4", 64 * MIB)
    mount(ext4_machine, srv, "/srv")
    ext4_machine.run("sh", "-ec", "mkdir /srv/memory; mount -t tmpfs tmpfs /srv/memory", session=False)
    change = script(ext4_machine, "umount /srv/memory; echo x >>/etc/issue" + END)
    before = snapshots(ext4_machine, {"/srv": srv})
    # A stick that somebody else takes out is told, and no difference.
    stick = "mkdir -p /mnt/stick; mount -t tmpfs tmpfs /mnt/stick"
    ext4_machine.run("sh", "-ec", stick, session=False)
    script(ext4_machine, "umount /srv/memory /mnt/stick; echo x >>/etc/issue" + END)
    before = snapshots(ext4_machine, {"/srv": srv})
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 3, result.stderr
    told = report(ext4_machine)
    assert {one["path"]: one["text"] for one in told["differences"]} == {
        "/srv/memory": "was mounted, is no longer"
    }
    assert "no longer mounted: /mnt/stick" in told["warnings"]
    assert differences(before, snapshots(ext4_machine, {"/srv": srv})) == {}
    # A volume itself: what it holds cannot be reached until it is mounted again.
    ext4_machine.run("mount", "-t", "tmpfs", "tmpfs", "/srv/memory", session=False)
    script(ext4_machine, "echo x >>/srv/file; umount -l /srv; echo x >/srv/below; echo x >>/etc/issue" + END)
    before["/"] = ext4_machine.snapshot()
    result = ext4_machine.snapbreaker("run", "--", change)
    assert result.returncode == 3, result.stderr
    assert "is the filesystem of /srv still mounted?" in report(ext4_machine)["failures"][0]["text"]
    mount(ext4_machine, srv, "/srv")
    again = ext4_machine.snapbreaker("rollback", "--last", "--yes")
    assert again.returncode == 3, again.stderr
    assert {one["path"] for one in report(ext4_machine)["differences"]} == {"/srv/memory"}
    assert differences({"/srv": before["/srv"]}, snapshots(ext4_machine, {"/srv": srv})) == {}


def test_a_volume_that_is_missing_after_a_crash(make_volume: MakeVolume, make_machine: Any) -> None:
    machine = make_machine("ext4")
    machine.boot()
    volumes = mounted(machine, make_volume)
    change = script(machine, CHANGE + "touch /root/done\nsync\nsleep 60\n")
    before = snapshots(machine, volumes)
    machine.start("snapbreaker", "run", "--", change)
    until(machine, "test -e /root/done")
    machine.crash()
    assert machine.boot() == "running"
    for point in ("/srv", "/opt"):
        mount(machine, volumes[point], point)
    back = machine.snapbreaker("recover")
    assert back.returncode == 3, back.stderr
    assert "/home" in back.stderr
    told = report(machine)
    assert told["outcome"] == "failed"
    assert any("is the filesystem of /home still mounted?" in one["text"] for one in told["failures"])
    assert set(differences(before, snapshots(machine, volumes))) == {"/home"}, told
    mount(machine, volumes["/home"], "/home")
    again = machine.snapbreaker("rollback", "--last", "--yes")
    assert again.returncode == 0, again.stderr
    assert differences(before, snapshots(machine, volumes)) == {}
