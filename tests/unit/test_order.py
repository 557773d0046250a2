"""What boots goes back first."""

from __future__ import annotations

from snapbreaker.backend import Stored, Volume
from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.order import in_order, modules_apart


def volumes(*roots: str) -> list[VolumeRecord]:
    made = []
    for number, root in enumerate(roots):
        volume = Volume(number, root, root, "ext4", "", "")
        made.append(VolumeRecord("", Stored(volume, "", "", Policy(), {}), Proof.none(), 0.0))
    return made


def roots(found: list[VolumeRecord]) -> list[str]:
    return [one.stored.volume.root for one in found]


def test_boot_and_its_inner_volumes_come_first() -> None:
    found = in_order(volumes("/", "/boot", "/boot/efi", "/bootstrap", "/home", "/var"))
    assert roots(found) == ["/boot", "/boot/efi", "/", "/bootstrap", "/home", "/var"]
    assert roots(in_order(volumes("/", "/efi"))) == ["/efi", "/"]


def test_modules_come_back_ahead_only_of_a_kernel_elsewhere() -> None:
    assert roots(modules_apart(volumes("/", "/boot", "/home"))) == ["/"]
    assert roots(modules_apart(volumes("/", "/usr", "/efi"))) == ["/", "/usr"]
    assert modules_apart(volumes("/", "/home")) == []
    assert modules_apart(volumes("/boot", "/home")) == []
