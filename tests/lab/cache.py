"""What takes long to make and never changes is made once a machine, outside the repository."""

from __future__ import annotations

import faulthandler
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

UNUSED_AFTER = 14 * 86400  # seconds


def directory() -> Path:
    """``$SNAPBREAKER_CACHE``, else ``$XDG_CACHE_HOME/snapbreaker-lab``, else ``/var/cache/snapbreaker-lab``."""
    if chosen := os.environ.get("SNAPBREAKER_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "snapbreaker-lab"
    return Path("/var/cache/snapbreaker-lab")


def made_once(name: str, recipe: object, make: Callable[[Path, Path], None]) -> Path:
    """The file ``NAME-HASH`` of the cache; ``make(scratch, result)`` makes it when it is not there.

    HASH is of ``recipe`` (anything that JSON can hold). ``scratch`` is an empty directory on the cache's
    filesystem, ``result`` the file to write. One process makes, others wait; a result is whole or absent.
    """
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    cache = directory()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / f"{name}-{key}"
    if not wanted.exists():  # on a busy machine it takes minutes, which is no test that hangs
        faulthandler.cancel_dump_traceback_later()
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted.exists():
            os.utime(wanted)
            return wanted
        scratch = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        try:
            result = scratch / "result"
            work = scratch / "work"
            work.mkdir()
            make(work, result)
            _forget_unused(cache, name)
            result.rename(wanted)
        finally:
            shutil.rmtree(scratch)
    return wanted


def _forget_unused(cache: Path, name: str) -> None:
    """Results of recipes that no branch has asked for lately."""
    for old in cache.glob(f"{name}-*"):
        if old.is_file() and old.stat().st_mtime < time.time() - UNUSED_AFTER:
            old.unlink()
