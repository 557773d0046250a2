"""Which variables of the firmware count."""

from __future__ import annotations

from pathlib import Path

from snapbreaker.system import efi

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"


def test_what_is_booted_counts_and_no_counter(tmp_path: Path) -> None:
    names = [f"BootOrder-{GLOBAL}", f"Boot0001-{GLOBAL}", "dbx-d719b2cb-3d3a-4596-a3bc-dad00e67656f"]
    others = ["MTC-eb704011-1402-11d3-8e77-00a0c969723b", f"ConOut-{GLOBAL}", "Boot0001-0", f"Boot0001-{GLOBAL}x"]
    for name in (*names, *others):
        (tmp_path / name).write_bytes(b"\7\0\0\0" + name.encode())
    first = efi.read(str(tmp_path))
    assert sorted(first) == sorted(names)
    (tmp_path / names[0]).write_bytes(b"\7\0\0\0other")
    second = efi.read(str(tmp_path))
    assert {name for name in first if first[name] != second[name]} == {names[0]}
    assert efi.read(str(tmp_path / "none")) == {}
