"""What is written through overlays is copied, or doubted, on kernels that do not tell of it."""

from __future__ import annotations

import pytest

from snapbreaker.backend import Volume
from snapbreaker.linux.mountinfo import parse_mount
from snapbreaker_backends.filecopy.unheard import container_stores, upper_directories

OVERLAY = (
    b"99 28 0:50 / /var/lib/docker/overlay2/abc/merged rw - overlay overlay "
    b"rw,lowerdir=/l,upperdir=/var/lib/docker/overlay2/abc/diff,workdir=/w"
)


@pytest.mark.parametrize("release", ["6.1.0-18-amd64", "5.15.0", "6.7.12+"])
def test_old_kernels(release: str) -> None:
    assert upper_directories(root(), [parse_mount(OVERLAY)], release) == [b"var/lib/docker/overlay2/abc/diff"]
    assert b"var/lib/docker/overlay2" in container_stores(root(), release)


@pytest.mark.parametrize("release", ["6.8.0-31-generic", "6.12.9", "7.0-rc1"])
def test_kernels_that_tell(release: str) -> None:
    assert upper_directories(root(), [parse_mount(OVERLAY)], release) == []
    assert container_stores(root(), release) == []


def test_elsewhere() -> None:
    assert upper_directories(volume("/srv"), [parse_mount(OVERLAY)], "6.1.0") == []


def root() -> Volume:
    return volume("/")


def volume(root: str) -> Volume:
    return Volume(0, root, "/", "ext4", "/dev/x", "8:1")
