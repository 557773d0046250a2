"""A real Debian root with a local repository of real packages, made once and unpacked in a second."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab import cache, debs
from tests.lab.loopfs import LabError

SUITE = "bookworm"
# python3 and the tools let a root stand for a whole machine that snapbreaker itself runs on.
INCLUDE = ("apt", "python3", "btrfs-progs", "e2fsprogs", "procps", "attr", "acl", "libcap2-bin")
REPOSITORY = ("nginx-light", "git", "libgpg-error-dev", "redis-server", "cron", "sqlite3", "liberror-perl")
APT_OPTIONS = ('Acquire::Languages "none"', 'APT::Install-Recommends "false"')
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)
SOURCES = "deb [trusted=yes] file:///debs ./\n"
POLICY = "#!/bin/sh\nexit 101\n"
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
}


def missing() -> str:
    """What keeps this machine from making a Debian root, with the remedy; empty when nothing does."""
    if os.geteuid() != 0:
        return "needs root for chroot(2) and mknod(2): run the tests as root"
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("tar", "tar"), ("dpkg-deb", "dpkg")):
        if not shutil.which(tool):
            return f"{tool} is missing: apt-get install {package}"
    return ""


def golden() -> Path:
    """The tar of the root, made when the cache has none of this recipe (about a minute, needs the mirror)."""
    recipe = [SUITE, INCLUDE, REPOSITORY, APT_OPTIONS, DPKG_OPTIONS, SOURCES, POLICY, 1]
    return cache.made_once("debian", recipe, _make)


def unpack(destination: Path) -> None:
    """Unpack the root into the directory ``destination``, which may exist."""
    tar = golden()
    destination.mkdir(exist_ok=True)
    _run("tar", "-C", str(destination), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xf", str(tar))


def chroot(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``root`` with nothing mounted; raises LabError when it fails."""
    return _run("chroot", str(root), *argv)


def _make(work: Path, result: Path) -> None:
    root = work / "root"
    try:
        _bootstrap(root)
        _fill_repository(root)
        (root / "usr/sbin/policy-rc.d").write_text(POLICY)
        (root / "usr/sbin/policy-rc.d").chmod(0o755)
        (root / "etc/machine-id").write_text("")
        (root / "etc/hostname").write_text("lab\n")
        _run("tar", "-C", str(root), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf", str(result), ".")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _bootstrap(root: Path) -> None:
    options = [f"--aptopt={option}" for option in APT_OPTIONS] + [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    mode = ["--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(INCLUDE)}"]
    _run("mmdebstrap", *mode, *options, SUITE, str(root), *_mirrors())


def _mirrors() -> list[str]:
    """The sources of the suite that this machine's own apt uses; none leaves the choice to mmdebstrap."""
    fields = "$(CODENAME) $(REPO_URI) $(RELEASE)"
    listing = _run("apt-get", "indextargets", "--format", fields, "Origin: Debian", "Created-By: Packages")
    lines = sorted({line for line in listing.stdout.splitlines() if line.startswith(SUITE)})
    return [f"deb {uri} {release} main" for _, uri, release in (line.split() for line in lines)]


def _fill_repository(root: Path) -> None:
    """Download the packages with what they depend on, and make /debs the only source."""
    chroot(root, "apt-get", "-qq", "update")
    chroot(root, "apt-get", "-qq", "-y", "--download-only", "install", *REPOSITORY)
    repository = root / "debs"
    repository.mkdir()
    for deb in (root / "var/cache/apt/archives").glob("*.deb"):
        deb.rename(repository / deb.name.replace("%3a", ":"))
    debs.index(repository)
    shutil.rmtree(root / "var/lib/apt/lists")
    for leftover in (root / "var/cache/apt").glob("*.bin"):
        leftover.unlink()
    (root / "etc/apt/sources.list").write_text(SOURCES)
    for extra in (root / "etc/apt/sources.list.d").iterdir():
        extra.unlink()
    chroot(root, "apt-get", "-qq", "update")


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENVIRONMENT)
    if result.returncode:
        detail = (result.stderr or result.stdout).strip()[-2000:]
        raise LabError(f"{' '.join(argv)} ended with {result.returncode}: {detail}")
    return result
