"""Real package installations in a real Debian root, behind the breaker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import debian, debs
from tests.lab.tool import Result, Tool

ENVIRONMENT = ("--env", "DEBIAN_FRONTEND=noninteractive", "--env", "LANG=C.UTF-8")


def install(tool: Tool, root: Path, *packages: str) -> Result:
    return tool.run(root, "chroot", root, "apt-get", "install", "-y", *packages, options=ENVIRONMENT)


def installed(root: Path) -> set[str]:
    listing = debian.chroot(root, "dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n").stdout
    return {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}


def test_installs_and_rolls_back_exactly(tool: Tool, debian_root: Path) -> None:
    before = comparer.snapshot(debian_root.parent)
    packages, before_use = installed(debian_root), used(debian_root)
    result = install(tool, debian_root, "nginx-light")
    assert result.status == 0, result.stderr
    assert "nginx-light" in installed(debian_root)
    assert (debian_root / "usr/sbin/nginx").exists()
    assert tool.report()["outcome"] == "committed"
    # 7 MB are installed; what was replaced is dpkg's and apt's state. A snapshot costs nothing by itself.
    assert used(debian_root) - before_use < 48 << 20
    assert tool("verify", "--last").status == 3
    back = tool("rollback", "--last", "--yes")
    assert back.status == 0, back.stderr
    assert comparer.differences(before, comparer.snapshot(debian_root.parent)) == []
    assert installed(debian_root) == packages
    assert tool("verify", "--last").status == 0


def used(root: Path) -> int:
    """Bytes in use on the filesystem."""
    os.sync()
    state = os.statvfs(root)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def test_failing_postinst_is_rolled_back(tool: Tool, debian_root: Path) -> None:
    debs.add(debian_root, debs.Package("bad", files={"/etc/bad": "x"}, scripts={"postinst": "exit 3"}))
    before = comparer.snapshot(debian_root.parent)
    result = install(tool, debian_root, "bad")
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(debian_root.parent)) == []
    report = tool.report()
    assert report["issue"]["type"] == "ERROR"
    assert "bad" in report["issue"]["line"]


@pytest.mark.parametrize("stream", ["1", "2"])
def test_warning_of_a_postinst_is_rolled_back(tool: Tool, ext4_debian: Path, stream: str) -> None:
    warning = "WARNING: the old configuration is no longer supported"
    script = f'echo "{warning}" >&{stream}; echo x > /etc/too-late'
    debs.add(ext4_debian, debs.Package("warns", scripts={"postinst": script}))
    before = comparer.snapshot(ext4_debian.parent)
    result = install(tool, ext4_debian, "warns")
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(ext4_debian.parent)) == []
    issue = tool.report()["issue"]
    assert (issue["type"], issue["line"]) == ("WARNING", warning)


def test_names_with_error_in_them_are_not_halted(tool: Tool, ext4_debian: Path) -> None:
    result = install(tool, ext4_debian, "git", "libgpg-error-dev", "liberror-perl")
    assert result.status == 0, result.stderr
    assert {"git", "libgpg-error-dev", "liberror-perl"} <= installed(ext4_debian)


def test_package_that_does_not_exist(tool: Tool, ext4_debian: Path) -> None:
    before = comparer.snapshot(ext4_debian.parent)
    result = install(tool, ext4_debian, "no-such-package")
    assert result.status == 1
    assert tool.report()["issue"]["line"] == "E: Unable to locate package no-such-package"
    assert comparer.differences(before, comparer.snapshot(ext4_debian.parent)) == []


def test_upgrade_with_conffile_and_trigger(tool: Tool, ext4_debian: Path) -> None:
    """A rollback of an upgrade: the old version, its conffile and what its trigger made are back."""
    old = debs.Package(
        "service",
        "1.0",
        {"/etc/service.conf": "old\n"},
        {"postinst": "touch /var/lib/made"},
        ("/etc/service.conf",),
    )
    new = debs.Package(
        "service", "2.0", {"/etc/service.conf": "new\n"}, {"postinst": "rm /var/lib/made"}, ("/etc/service.conf",)
    )
    debs.add(ext4_debian, old)
    assert install(tool, ext4_debian, "service").status == 0
    before = comparer.snapshot(ext4_debian.parent, exclude=[b"root/debs"])
    debs.add(ext4_debian, new)
    assert install(tool, ext4_debian, "service").status == 0
    assert (ext4_debian / "etc/service.conf").read_text() == "new\n"
    assert tool("rollback", "--last", "--yes").status == 0
    found = comparer.differences(before, comparer.snapshot(ext4_debian.parent, exclude=[b"root/debs"]))
    assert [line for line in found if "var/lib/apt/lists" not in line and "var/cache/apt" not in line] == []
    assert "Version: 1.0" in debian.chroot(ext4_debian, "dpkg", "-s", "service").stdout
