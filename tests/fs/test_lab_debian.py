"""The Debian root and the packages that tests build into it."""

from __future__ import annotations

import pytest

from tests.lab import debian, debs
from tests.lab.loopfs import LabError, LoopFilesystem


@pytest.fixture
def root(ext4: LoopFilesystem) -> LoopFilesystem:
    if reason := debian.missing():
        pytest.skip(reason)
    debian.unpack(ext4.path)
    return ext4


def test_root_installs_from_its_own_repository(root: LoopFilesystem) -> None:
    listing = debian.chroot(root.path, "apt-get", "-qq", "-s", "install", *debian.REPOSITORY).stdout
    assert all(f"Inst {name} " in listing for name in debian.REPOSITORY)
    sources = debian.chroot(root.path, "apt-get", "indextargets", "--format", "$(REPO_URI)").stdout
    assert set(sources.split()) == {"file:/debs/"}


def test_built_packages_install_and_fail_as_told(root: LoopFilesystem) -> None:
    debs.add(
        root.path,
        debs.Package("good", files={"/etc/good.conf": "a = 1\n"}, conffiles=("/etc/good.conf",)),
        debs.Package("bad", scripts={"postinst": "echo cannot configure >&2; exit 3"}),
    )
    debian.chroot(root.path, "apt-get", "-y", "install", "good")
    assert (root.path / "etc/good.conf").read_text() == "a = 1\n"
    with pytest.raises(LabError, match="post-installation script subprocess returned error exit status 3"):
        debian.chroot(root.path, "apt-get", "-y", "install", "bad")
