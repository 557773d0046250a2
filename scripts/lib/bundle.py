"""``bundle.py DEPENDENCIES OUT``: one executable zip file of snapbreaker, its backends and their dependencies.

The bytes depend only on the sources and on the Python version that compiles them. Each module is there twice: as
bytecode for this Python version, and as source, which zipimport takes when the version is another one. What every
start reads is not compressed: that saves 10 ms of it.
"""

from __future__ import annotations

import os
import py_compile
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "scripts/lib/bundle_start.py"
# Without the environment's modules (-I). Where there is no Python: 70, since 127 says that the command is missing.
HEAD = b"""#!/bin/sh
command -v python3 >/dev/null || { echo 'snapbreaker: there is no python3 here' >&2; exit 70; }
exec python3 -I "$0" "$@"
"""
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
LEFT_OUT_SUFFIXES = {".pyc", ".pyi", ".typed"}
LEFT_OUT_NAMES = {"INSTALLER", "RECORD", "REQUESTED", "WHEEL", "direct_url.json", "python3"}


def files(dependencies: Path) -> dict[str, Path]:
    """What goes in: the name in the bundle and the file. The same packages as in the wheel."""
    found = {"__main__.py": START}
    for parent, package in ((ROOT, "snapbreaker"), (ROOT / "backends", "snapbreaker_backends")):
        found.update((str(path.relative_to(parent)), path) for path in below(parent / package))
    found.update((str(path.relative_to(dependencies)), path) for path in below(dependencies))
    return dict(sorted(found.items()))


def below(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and path.suffix not in LEFT_OUT_SUFFIXES and path.name not in LEFT_OUT_NAMES:
            yield path


def bytecode(source: Path, name: str, scratch: Path) -> bytes:
    """Compiled without a time stamp and without a check against the source: only that is reproducible."""
    compiled = scratch / "compiled"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), str(compiled), name, doraise=True, invalidation_mode=mode)
    return compiled.read_bytes()


def write(target: Path, dependencies: Path, scratch: Path) -> None:
    with target.open("wb") as out:
        out.write(HEAD)
        with zipfile.ZipFile(out, "w", compresslevel=9) as bundle:
            for name, path in files(dependencies).items():
                bundle.writestr(entry(name), path.read_bytes())
                if path.suffix == ".py" and name != "__main__.py":
                    bundle.writestr(entry(name + "c"), bytecode(path, name, scratch))
    target.chmod(0o755)


def entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".py") else zipfile.ZIP_STORED
    info.external_attr = 0o100644 << 16
    return info


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[2].startswith("-"):
        sys.exit("usage: scripts/bundle OUT")
    dependencies, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".bundle-") as scratch:
        write(Path(scratch) / "bundle", dependencies, Path(scratch))
        os.replace(Path(scratch) / "bundle", out)


main()
