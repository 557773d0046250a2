"""A copy of all that `recover` runs on, for the day when the machine's own interpreter is gone.

It holds the very files that this process has loaded: interpreter, dynamic loader, shared libraries, extension
modules, modules of Python and of snapbreaker. It lies in the store, outside every scope, and is made once for
each set of files. ``STORE/lifeboat/recover`` starts it; the same line typed into any shell that is still open does
too, since the first program it needs is its own copy of the dynamic loader.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from snapbreaker.linux.durable import sync_directory, write_file
from snapbreaker.linux.writeback import sync_filesystem

KEY = "key"
RECOVER, BOOT = "recover", "boot"

_RECOVER = """\
#!/bin/sh
{environment} {command} "${{@:-recover}}"
"""
# Run by the shell of an initramfs, which mounts the root at $rootmnt: nothing of the root itself is needed.
_BOOT = """\
#!/bin/sh
{environment} chroot "$rootmnt" {command} recover --early
"""


def needed(roots: Iterable[str]) -> bool:
    """Whether the scope ``roots`` holds any file that this process runs on."""
    prefixes = tuple(root.rstrip("/") + "/" for root in roots)
    directory = cache(os.path.realpath)  # of hundreds of files in a few directories
    for path in [*_libraries(), *_modules().values()]:
        real = os.path.join(directory(os.path.dirname(path)), os.path.basename(path))
        if (os.path.realpath(real) if os.path.islink(real) else real).startswith(prefixes):
            return True
    return False


def prepare(store: Path) -> Path:
    """Make the lifeboat in ``store`` if there is none of just these files, whole; returns its directory.

    It is on disk before it has its name. Must be called when everything is loaded (``preload``). Raises OSError.
    """
    libraries = _libraries()
    interpreter = os.path.realpath("/proc/self/exe")
    copies = {f"lib/{os.path.basename(path)}": path for path in libraries}
    copies |= {"lib/python": interpreter} | {f"python/{name}": source for name, source in _modules().items()}
    facts = {source: os.stat(source) for source in copies.values()}
    sizes = {name: facts[source].st_size for name, source in copies.items()}
    key = _key(facts)
    boat = store / "lifeboat"
    with suppress(OSError):
        if (boat / KEY).read_text() == key and _whole(boat, sizes):
            return boat
    new = store / f"lifeboat.{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    for name, source in copies.items():
        _copy(source, new / name)
    environment, command = _command(boat, libraries, store)
    for name, form in ((RECOVER, _RECOVER), (BOOT, _BOOT)):
        write_file(str(new / name), form.format(environment=environment, command=command).encode())
        (new / name).chmod(0o700)
    write_file(str(new / KEY), key.encode())
    sync_filesystem(str(new))
    shutil.rmtree(boat, ignore_errors=True)
    new.rename(boat)
    sync_directory(str(store))
    return boat


def _whole(boat: Path, sizes: Mapping[str, int]) -> bool:
    """Whether each copy has its size: a power cut, or somebody's cleaning up, may have taken from them."""
    top = f"{boat}/"
    if any(os.stat(top + name).st_size != size for name, size in sizes.items()):
        return False
    return all(os.path.getsize(top + name) for name in (RECOVER, BOOT))


def _command(boat: Path, libraries: list[str], store: Path) -> tuple[str, str]:
    """The environment and the command line of a snapbreaker that runs on the copies alone, for a shell."""
    loader = next(path for path in libraries if os.path.basename(path).startswith("ld-"))
    archives = [str(boat / "python" / name) for name in _archives()]
    path = ":".join([*archives, f"{boat}/python", f"{boat}/lib"])
    words = [f"{boat}/lib/{os.path.basename(loader)}", "--library-path", f"{boat}/lib", f"{boat}/lib/python"]
    words += ["-S", "-s", "-B", "-m", "snapbreaker", "--store", str(store)]
    environment = f"PYTHONHOME={shlex.quote(str(boat))} PYTHONPATH={shlex.quote(path)}"
    return environment, " ".join(shlex.quote(word) for word in words)


def _libraries() -> list[str]:
    """Every shared object that is mapped into this process, the dynamic loader and extension modules included."""
    found = set()
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            if line.count(b"/"):
                found.add(os.fsdecode(line.rstrip(b"\n").split(maxsplit=5)[5]))
    return sorted(path for path in found if ".so" in os.path.basename(path) and os.path.isfile(path))


def _modules() -> dict[str, str]:
    """Where the source of each loaded module belongs (relative), and where it lies now."""
    found = dict(_archives())
    for name, module in list(sys.modules.items()):
        source = getattr(module, "__file__", None)
        if not source or not source.endswith(".py") or not os.path.isfile(source) or name == "__main__":
            continue
        place = name.replace(".", "/")
        is_package = os.path.basename(source) == "__init__.py"
        found[f"{place}/__init__.py" if is_package else f"{place}.py"] = source
    for name in ("__main__.py", "__init__.py"):  # `-m snapbreaker` runs a module that nobody imports
        main = os.path.join(os.path.dirname(__file__), name)
        if os.path.isfile(main):
            found[f"snapbreaker/{name}"] = main
    return found


def _archives() -> dict[str, str]:
    """The zip file that snapbreaker itself is loaded from, if it is the one-file program."""
    archive = getattr(getattr(__spec__, "loader", None), "archive", None)
    return {os.path.basename(archive): archive} if isinstance(archive, str) else {}


def _key(found: Mapping[str, os.stat_result]) -> str:
    digest = hashlib.sha256((sys.version + _RECOVER + _BOOT).encode())
    for path, facts in sorted(found.items()):
        digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _copy(source: str, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)
