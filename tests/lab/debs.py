"""Tiny Debian packages that do what a test needs, and the index of a local repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Package:
    """A package to build.

    ``files`` maps absolute paths to content, ``scripts`` maintainer scripts (``postinst`` …) to shell text;
    ``conffiles`` are paths of ``files``, ``triggers`` is the text of deb-triggers(5), ``control`` further fields.
    """

    name: str
    version: str = "1.0"
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    triggers: str = ""
    control: Mapping[str, str] = field(default_factory=dict)


def build(package: Package, directory: Path) -> Path:
    """Build ``package`` into ``directory``; returns the .deb's path."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        for path, content in package.files.items():
            _write(root / path.lstrip("/"), content)
        for name, text in _control_files(package).items():
            _write(root / "DEBIAN" / name, text, 0o755 if name in package.scripts else 0o644)
        deb = directory / f"{package.name}_{package.version}_all.deb"
        _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(deb))
    return deb


def _control_files(package: Package) -> dict[str, str]:
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": "all",
        "Maintainer": "Test <test@example.org>",
        "Description": f"test package {package.name}",
        **package.control,
    }
    files = {"control": "".join(f"{key}: {value}\n" for key, value in fields.items())}
    if package.conffiles:
        files["conffiles"] = "".join(path + "\n" for path in package.conffiles)
    if package.triggers:
        files["triggers"] = package.triggers
    for name, text in package.scripts.items():
        files[name] = f"#!/bin/sh\nset -e\n{text}\n"
    return files


def _write(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def index(repository: Path) -> None:
    """Write the ``Packages`` file of a flat repository (sources.list: ``deb [trusted=yes] file:///… ./``)."""
    stanzas = []
    for deb in sorted(repository.glob("*.deb")):
        content = deb.read_bytes()
        stanzas.append(
            f"{_run('dpkg-deb', '--field', str(deb)).rstrip()}\nFilename: ./{deb.name}\nSize: {len(content)}\n"
            f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    (repository / "Packages").write_text("\n".join(stanzas))


def add(root: Path, *packages: Package) -> None:
    """Build ``packages`` into the repository of the Debian root ``root`` and let its apt know them."""
    repository = root / "debs"
    for package in packages:
        build(package, repository)
    index(repository)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    _run("chroot", str(root), "apt-get", "-qq", "update", env=environment)


def missing() -> str:
    """What keeps this machine from building packages, with the remedy."""
    return "" if shutil.which("dpkg-deb") else "dpkg-deb is missing: run on Debian or Ubuntu"


def _run(*argv: str, env: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=dict(env) if env else os.environ
    )
    if result.returncode:
        raise OSError(f"{' '.join(argv)} ended with {result.returncode}: {result.stderr.strip()}")
    return result.stdout
