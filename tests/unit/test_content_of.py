"""How much content a restore writes, at most: what a snapshot must have room for."""

from __future__ import annotations

import os
from pathlib import Path

from snapbreaker.files.diff import Proof, diff
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.room import content_of
from snapbreaker_backends.lvm.gauges import fills

MIB = 1 << 20


def test_deleted_and_changed_content_counts_once_and_without_holes(tmp_path: Path) -> None:
    old, live = tmp_path / "old", tmp_path / "live"
    for top in (old, live):
        top.mkdir()
        (top / "same").write_bytes(b"s" * 5000)
        (top / "mode").write_bytes(b"m" * 7000)
        (top / "changed").write_bytes(b"c" * 100)
    (old / "deleted").write_bytes(b"d" * 3000)
    (old / "linked").write_bytes(b"l" * 200)
    os.link(old / "linked", old / "again")
    with (old / "sparse").open("wb") as file:
        file.write(b"x" * MIB)
        file.truncate(900 * MIB)
    (live / "changed").write_bytes(b"C" * 90_000)
    (live / "added").write_bytes(b"a" * 90_000)
    (live / "mode").chmod(0o600)
    with LiveTree(os.fsencode(old), Policy()) as before, LiveTree(os.fsencode(live), Policy()) as now:
        changes = list(diff(before, now, Policy(), Proof.none()))
        assert {change.path for change in changes} >= {b"mode", b"changed", b"deleted", b"added", b"sparse"}
        assert content_of(before, changes) == 100 + 3000 + 200 + MIB


def test_what_device_mapper_says() -> None:
    (space,) = fills("snapshot", "2048/131072 16")
    assert (space.what, space.free) == ("space", (131072 - 2048) * 512)
    metadata, data = fills("thin-pool", "1 40/2048 100/1000 - rw no_discard_passdown queue_if_no_space - 1024")
    assert (metadata.what, metadata.free, data.what, data.free) == ("metadata", 2008, "data", 900)
    assert list(fills("snapshot", "Invalid")) == []
