"""nft(8) and iptables(8) for a root that has neither: Debian's packages unpacked, which dpkg does not know of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.lab import cache
from tests.lab.debian import SUITE

LIBRARIES = (
    "libnftables1",
    "libnftnl11",
    "libmnl0",
    "libjansson4",
    "libxtables12",
    "libedit2",
    "libbsd0",
    "libmd0",
)
PACKAGES = ("nftables", "iptables", *LIBRARIES)
DIRECTORY = "usr/local/lib/firewall"
# iptables is found by its name, and finds its modules by the environment.
PROGRAM = """#!/bin/sh
here=/{directory}
export LD_LIBRARY_PATH=$here/usr/lib/{triplet} XTABLES_LIBDIR=$here/usr/lib/{triplet}/xtables
exec $here/usr/sbin/{program} {words}"$@"
"""
PROGRAMS = {
    "nft": ("nft", ""),
    "iptables": ("xtables-nft-multi", "iptables "),
    "iptables-save": ("xtables-nft-multi", "iptables-save "),
    "ip6tables": ("xtables-nft-multi", "ip6tables "),
}


def missing() -> str:
    """What keeps this machine from having them, with the remedy."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            return f"{tool} is missing: this needs a Debian or Ubuntu"
    return ""


def put_into(root: Path) -> None:
    """Unpack them below ``root``."""
    subprocess.run(["tar", "-C", root, "-xf", packed()], check=True)


def packed() -> Path:
    """An archive for the top of a root: DIRECTORY, and a small program for each in ``/usr/local/sbin``."""

    def make(work: Path, result: Path) -> None:
        subprocess.run(
            ["apt-get", "-qq", "-oAPT::Sandbox::User=root", "download", *PACKAGES], cwd=work, check=True
        )
        root = work / "root"
        (root / DIRECTORY).mkdir(parents=True)
        (root / "usr/local/sbin").mkdir()
        for deb in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, root / DIRECTORY], check=True)
        triplet = next((root / DIRECTORY / "usr/lib").glob("*-linux-gnu*")).name
        for name, (program, words) in PROGRAMS.items():
            file = root / "usr/local/sbin" / name
            file.write_text(PROGRAM.format(directory=DIRECTORY, triplet=triplet, program=program, words=words))
            file.chmod(0o755)
        subprocess.run(["tar", "-C", root, "-cf", result, "usr"], check=True)

    return cache.made_once("firewall", [SUITE, PACKAGES, DIRECTORY, PROGRAM, PROGRAMS], make)
