"""Real Debian roots with a local repository of real packages, made once and unpacked in a second."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import cache, debs
from tests.lab.loopfs import LabError

SUITE = "bookworm"
APT_OPTIONS = ('Acquire::Languages "none"', 'APT::Install-Recommends "false"')
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
)
SOURCES = "deb [trusted=yes] file:///debs ./\n"
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "HOME": "/root",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a root is made of; another recipe is another root.

    ``include`` is installed, ``repository`` can be installed from ``/debs``. ``files`` maps paths in the root to
    (mode, text), ``masked`` are units that systemd shall not start. ``finish`` changes the root at last; raise
    ``version`` when what it does changes.
    """

    name: str
    include: tuple[str, ...]
    repository: tuple[str, ...]
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    finish: Callable[[Path], None] | None = None
    version: int = 1
    components: str = "main"  # of the archive
    suite: str = SUITE

    def key(self) -> list[object]:
        """All that the result depends on, as JSON can hold it."""
        common = [SUITE, APT_OPTIONS, DPKG_OPTIONS, SOURCES]
        more = [] if self.components == "main" else [self.components]
        more += [] if self.suite == SUITE else [self.suite]
        return [*common, self.include, self.repository, dict(self.files), self.masked, self.version, *more]


# A root for chroot. python3 and the tools let it stand for a machine that snapbreaker itself runs on.
BARE = Recipe(
    name="debian",
    include=("apt", "python3", "btrfs-progs", "e2fsprogs", "procps", "attr", "acl", "libcap2-bin"),
    repository=("nginx-light", "git", "libgpg-error-dev", "redis-server", "cron", "sqlite3", "liberror-perl"),
    files={
        "usr/sbin/policy-rc.d": (0o755, "#!/bin/sh\nexit 101\n"),
        "etc/machine-id": (0o444, ""),
        "etc/hostname": (0o644, "lab\n"),
    },
)
REPOSITORY = BARE.repository


def missing() -> str:
    """What keeps this machine from making a Debian root, with the remedy; empty when nothing does."""
    if os.geteuid() != 0:
        return "needs root for chroot(2) and mknod(2): run the tests as root"
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("tar", "tar"), ("dpkg-deb", "dpkg")):
        if not shutil.which(tool):
            return f"{tool} is missing: apt-get install {package}"
    return ""


def golden(recipe: Recipe = BARE) -> Path:
    """The tar of the root, made when the cache has none of this recipe (about a minute, needs the mirror)."""
    return cache.made_once(recipe.name, recipe.key(), lambda work, result: _make(recipe, work, result))


def unpack(destination: Path, recipe: Recipe = BARE) -> None:
    """Unpack the root into the directory ``destination``, which may exist."""
    tar = golden(recipe)
    destination.mkdir(exist_ok=True)
    _run("tar", "-C", str(destination), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xf", str(tar))


def pack(root: Path, result: Path) -> None:
    """The opposite of ``unpack``."""
    _run("tar", "-C", str(root), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf", str(result), ".")


def chroot(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``root`` with nothing mounted; raises LabError when it fails."""
    return _run("chroot", str(root), *argv)


def _make(recipe: Recipe, work: Path, result: Path) -> None:
    root = work / "root"
    try:
        _bootstrap(root, recipe)
        _fill_repository(root, recipe.repository)
        _write_files(root, recipe)
        if recipe.finish:
            recipe.finish(root)
        pack(root, result)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _write_files(root: Path, recipe: Recipe) -> None:
    for name, (mode, text) in recipe.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
    for unit in recipe.masked:
        link = root / "etc/systemd/system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")


def _bootstrap(root: Path, recipe: Recipe) -> None:
    options = [f"--aptopt={option}" for option in APT_OPTIONS] + [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    mode = ["--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(recipe.include)}"]
    _run("mmdebstrap", *mode, *options, recipe.suite, str(root), *mirrors(recipe.components, recipe.suite))


def mirrors(components: str = "main", suite: str = SUITE) -> list[str]:
    """The sources of ``suite`` that this machine's own apt uses; none leaves the choice to mmdebstrap."""
    fields = "$(CODENAME) $(REPO_URI) $(RELEASE)"
    listing = _run("apt-get", "indextargets", "--format", fields, "Origin: Debian", "Created-By: Packages")
    lines = sorted({line for line in listing.stdout.splitlines() if line.startswith(SUITE)})
    parts = [line.split() for line in lines]
    if suite != SUITE:  # from where the main part of ours comes
        parts = [[suite, uri, suite] for _, uri, release in parts if release == SUITE]
    return [f"deb {uri} {release} {components}" for _, uri, release in parts]


def _fill_repository(root: Path, packages: tuple[str, ...]) -> None:
    """Download the packages with what they depend on, and make /debs the only source."""
    chroot(root, "apt-get", "-qq", "update")
    chroot(root, "apt-get", "-qq", "-y", "--download-only", "install", *packages)
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
