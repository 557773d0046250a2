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

from tests.lab import debs_service


@dataclass(frozen=True, slots=True)
class File:
    """A file with a mode other than 0644."""

    content: bytes | str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Link:
    """A symlink."""

    target: str


@dataclass(frozen=True, slots=True)
class Package:
    """A package to build.

    ``files`` maps absolute paths to content, ``scripts`` maintainer scripts (``postinst`` …) to shell text;
    ``services`` maps names of systemd services to their command line, or to a whole unit file: the package
    installs, enables, starts, stops and forgets them as debhelper's packages do. ``conffiles`` are paths of
    ``files``, ``triggers`` is the text of deb-triggers(5), ``control`` further fields.
    """

    name: str
    version: str = "1.0"
    files: Mapping[str, bytes | str | File | Link] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    conffiles: tuple[str, ...] = ()
    triggers: str = ""
    control: Mapping[str, str] = field(default_factory=dict)
    architecture: str = "all"
    depends: tuple[str, ...] = ()
    services: Mapping[str, str] = field(default_factory=dict)


def build(package: Package, directory: Path) -> Path:
    """Build ``package`` into ``directory``; returns the .deb's path."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        for path, content in {**_units(package), **package.files}.items():
            _write(root / path.lstrip("/"), content)
        for name, text in _control_files(package).items():
            _write(root / "DEBIAN" / name, text)
        deb = directory / f"{package.name}_{package.version}_{package.architecture}.deb"
        _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(deb))
    return deb


def _units(package: Package) -> dict[str, str]:
    return {
        f"/lib/systemd/system/{name}.service": debs_service.unit(name, text)
        for name, text in package.services.items()
    }


def _control_files(package: Package) -> dict[str, str | File]:
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.architecture,
        "Maintainer": "Test <test@example.org>",
        "Description": f"test package {package.name}",
        **({"Depends": ", ".join(package.depends)} if package.depends else {}),
        **package.control,
    }
    files: dict[str, str | File] = {"control": "".join(f"{key}: {value}\n" for key, value in fields.items())}
    if package.conffiles:
        files["conffiles"] = "".join(path + "\n" for path in package.conffiles)
    if package.triggers:
        files["triggers"] = package.triggers
    for name, text in _scripts(package).items():
        files[name] = File(f"#!/bin/sh\nset -e\n{text}\n")
    return files


def _scripts(package: Package) -> dict[str, str]:
    """The package's own scripts, around them what debhelper adds: it starts last and stops first."""
    scripts = dict(package.scripts)
    for name, text in debs_service.scripts(list(package.services)).items():
        own = scripts.get(name, "")
        scripts[name] = f"{text}\n{own}" if name == "prerm" else f"{own}\n{text}"
    return scripts


def _write(path: Path, content: bytes | str | File | Link) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Link):
        path.symlink_to(content.target)
        return
    file = content if isinstance(content, File) else File(content, 0o644)
    path.write_bytes(file.content.encode() if isinstance(file.content, str) else file.content)
    path.chmod(file.mode)


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
