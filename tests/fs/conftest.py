"""Fixtures of the tier that works on real filesystems. Everything is unmounted at the end, whatever happened."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from snapbreaker.system import service
from snapbreaker_backends.btrfs import place
from tests.fs.rooted import Root
from tests.lab import debian, loopfs
from tests.lab.tool import Tool, cgroups


class MakeFilesystem(Protocol):
    def __call__(
        self, fstype: str, size: int = ..., options: str = ..., name: str = ...
    ) -> loopfs.LoopFilesystem: ...


@pytest.fixture(scope="session", autouse=True)
def _runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is done in this process has locks of its own, and is in no other worker's way."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SNAPBREAKER_RUNTIME", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def make_filesystem(request: pytest.FixtureRequest, _numbers: Iterator[int]) -> Iterator[MakeFilesystem]:
    """A factory of filesystems that live as long as the test: ``make_filesystem("xfs", size=512 << 20)``."""
    made: list[loopfs.LoopFilesystem] = []

    def make(
        fstype: str, size: int = loopfs.GIB, options: str = "noatime", name: str = ""
    ) -> loopfs.LoopFilesystem:
        if reason := loopfs.missing_for(fstype):
            pytest.skip(reason)
        session = request.getfixturevalue("lab")
        made.append(loopfs.make(fstype, session, name or f"{fstype}-{next(_numbers)}", size, options))
        return made[-1]

    yield make
    left = [user for filesystem in reversed(made) for user in filesystem.close()]
    assert not left, f"processes outlived the test on its filesystem: {left}"


@pytest.fixture(params=loopfs.FSTYPES)
def filesystem(request: pytest.FixtureRequest, make_filesystem: MakeFilesystem) -> loopfs.LoopFilesystem:
    """An empty filesystem of 1 GiB, once for each of ext4, xfs and btrfs."""
    return make_filesystem(request.param)


@pytest.fixture
def btrfs(make_filesystem: MakeFilesystem) -> loopfs.LoopFilesystem:
    return make_filesystem("btrfs")


@pytest.fixture(params=["default", "named"])
def root(
    request: pytest.FixtureRequest, btrfs: loopfs.LoopFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Root:
    """A root that can be replaced at boot: the default subvolume, or one that fstab(5) names."""
    monkeypatch.setattr(place, "FSTAB", str(tmp_path / "fstab"))
    monkeypatch.setattr(service, "missing", lambda store: "")  # of this machine
    return Root(btrfs, tmp_path / "fstab" if request.param == "named" else None)


@pytest.fixture
def ext4(make_filesystem: MakeFilesystem) -> loopfs.LoopFilesystem:
    return make_filesystem("ext4")


@pytest.fixture
def xfs(make_filesystem: MakeFilesystem) -> loopfs.LoopFilesystem:
    return make_filesystem("xfs")


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[Tool]:
    """snapbreaker with a store and a lock of its own. It must leave no cgroup behind."""
    before = cgroups()
    called = Tool(tmp_path)
    yield called
    called.close()
    left = {name for name in cgroups() - before if name.removeprefix("snapbreaker-") in _ids(called)}
    assert not left, f"cgroups are left: {left}"


def _ids(called: Tool) -> set[str]:
    return {entry.name for entry in called.store.iterdir()} if called.store.exists() else set()


@pytest.fixture
def debian_root(filesystem: loopfs.LoopFilesystem) -> Path:
    """A Debian root in a directory of each filesystem."""
    if reason := debian.missing():
        pytest.skip(reason)
    root = filesystem.path / "root"
    debian.unpack(root)
    return root


@pytest.fixture
def ext4_debian(ext4: loopfs.LoopFilesystem) -> Path:
    """A Debian root in a directory of an ext4, for what does not depend on the filesystem."""
    if reason := debian.missing():
        pytest.skip(reason)
    debian.unpack(ext4.path / "root")
    return ext4.path / "root"
