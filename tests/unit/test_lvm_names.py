"""Two logical volumes change their names in the description that vgcfgbackup(8) writes of their group."""

from __future__ import annotations

import pytest

from snapbreaker.errors import CheckpointError
from snapbreaker_backends.lvm.names import exchanged

HEAD = """contents = "Text Format Volume Group"
creation_host = "root"	# Linux root 6.1

system {
	id = "2zyELP"
	seqno = 10
	status = ["RESIZEABLE", "READ", "WRITE"]
	flags = []

	physical_volumes {

		root {
			id = "dAkcP8"
			device = "/dev/root"	# Hint only

			flags = []
		}
	}

	logical_volumes {
"""


def volume(name: str, identity: str, stays: str, segment: str) -> str:
    return f"""
		{name} {{
			id = "{identity}"
			status = ["READ", "WRITE", "VISIBLE"]
{stays}
			creation_host = "root"
			segment_count = 1

			segment1 {{
				start_extent = 0
				extent_count = 100	# 400 Megabytes

{segment}
			}}
		}}
"""


FLAGS, SKIPPED = '\t\t\tflags = []\n\t\t\ttags = ["root", "mine"]', '\t\t\tflags = ["ACTIVATION_SKIP"]'
THIN = '\t\t\t\ttype = "thin"\n\t\t\t\tthin_pool = "pool"\n\t\t\t\tdevice_id = {}'
STRIPED = '\t\t\t\ttype = "striped"\n\n\t\t\t\tstripes = [\n\t\t\t\t\t"root", {}\n\t\t\t\t]'
SNAPSHOT = '\t\t\t\ttype = "snapshot"\n\t\t\t\torigin = "{}"\n\t\t\t\tcow_store = "snap"'
END = "\t}\n\n}\n"


def group(*volumes: str) -> str:
    return HEAD + "".join(volumes) + END


def test_what_was_root_has_the_other_name() -> None:
    """Identity and blocks go along; flags and tags, which say what is done with whoever has the name, stay."""
    snap = volume("snap", "sss", SKIPPED, THIN.format(2) + '\n\t\t\t\torigin = "{}"')
    before = group(
        volume("root", "rrr", FLAGS, THIN.format(1)),
        snap.replace("{}", "root"),
        volume("snap_boot", "bbb", SKIPPED, THIN.format(3) + '\n\t\t\t\torigin = "snap"'),
    )
    after = exchanged(before, "root", "snap_boot")
    lines = [line.strip() for line in after.splitlines()]
    for name, identity, device, flags in (
        ("root", "bbb", 3, ["flags = []", 'tags = ["root", "mine"]']),
        ("snap_boot", "rrr", 1, ['flags = ["ACTIVATION_SKIP"]']),
    ):
        start = lines.index(f"{name} {{", lines.index("logical_volumes {"))
        section = lines[start : lines.index(f"device_id = {device}", start)]
        assert f'id = "{identity}"' in section
        assert [line for line in section if line.startswith(("flags", "tags"))] == flags
        assert sum(line.endswith("{") for line in section) == 2
    assert snap.replace("{}", "snap_boot") in after
    assert after.startswith(HEAD)
    assert sorted(map(str.strip, exchanged(after, "snap_boot", "root").splitlines())) == sorted(
        map(str.strip, before.splitlines())
    )


def test_snapshots_stay_with_their_classic_origin() -> None:
    before = group(
        volume("root", "rrr", FLAGS, STRIPED.format(0)),
        volume("snapshot0", "000", "\t\t\tflags = []", SNAPSHOT.format("root")),
        volume("new", "nnn", SKIPPED, STRIPED.format(9)),
    )
    after = exchanged(before, "new", "root")
    assert volume("snapshot0", "000", "\t\t\tflags = []", SNAPSHOT.format("new")) in after
    assert after.count('"root", ') == 3  # a physical volume's name, twice, and a tag


def test_a_volume_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="what new is"):
        exchanged(group(volume("root", "rrr", FLAGS, THIN.format(1))), "root", "new")
