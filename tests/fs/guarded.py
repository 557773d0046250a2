"""A run on an ext4 whose files are kept by links and a guard, and what is left of the guard afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import comparer
from tests.lab import inplace
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Result, Tool

PLAIN = ("-m", "snapbreaker")
# As on a kernel before 6.14, which does not ask before truncate(2).
OLD_KERNEL = (
    "-c",
    """
import snapbreaker.guard.guard as guard
from snapbreaker.cli.main import launch
guard.ASK_BEFORE_ACCESS = False
launch()
""",
)
MODES = {"asked": PLAIN, "told": OLD_KERNEL}
INPLACE = (sys.executable, inplace.__file__)


@dataclass
class Scene:
    """One scope, as it was, and snapbreaker in one of the two modes."""

    tool: Tool
    filesystem: LoopFilesystem
    mode: str
    before: dict[bytes, comparer.Facts] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.filesystem.path / "scope"

    def seed(self, *names: str, content: str = "as it was before\n") -> None:
        self.root.mkdir(exist_ok=True)
        for name in names:
            (self.root / name).write_text(content)
        os.sync()
        self.before = comparer.snapshot(self.root)

    def run(self, *command: str | Path, **more: Any) -> Result:
        result = self.tool.run(self.root, *command, entry=MODES[self.mode], **more)
        assert self.data()["linked"], "hard links were not used"
        return result

    def sh(self, script: str, **more: Any) -> Result:
        """``script`` runs in the scope; ``$INPLACE WAY FILE`` changes a file."""
        env = {"INPLACE": " ".join(INPLACE)}
        return self.run("sh", "-c", f"cd {self.root}; {script}", env=env, **more)

    def start(self, script: str) -> subprocess.Popen[bytes]:
        return self.tool.start(
            *("run", "--scope", self.root, "--", "sh", "-c", f"cd {self.root}; {script}"),
            entry=MODES[self.mode],
            env={"INPLACE": " ".join(INPLACE)},
        )

    def record(self) -> Path:
        return max(self.tool.store.glob("[0-9]*-*T*"), key=lambda path: int(path.name.partition("-")[0]))

    def data(self) -> dict[str, Any]:
        """What the backend noted."""
        meta = json.loads((self.record() / "meta.json").read_text())
        found: dict[str, Any] = meta["volumes"][0]["data"]
        return found

    def vault(self) -> Path:
        (found,) = (self.filesystem.path / ".snapbreaker").glob("*/0")
        return found

    def guard(self) -> int:
        return int(json.loads((self.vault() / "guard.log").read_bytes().split(b"\n")[0][9:])["pid"])

    def assert_exact(self) -> None:
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == []

    def assert_nothing_left(self) -> None:
        """No process of snapbreaker, no mark on the filesystem, no link in a vault."""
        assert list(processes(f"SNAPBREAKER_STORE={self.tool.store}".encode())) == []
        device = os.stat(self.filesystem.path).st_dev
        assert list(marks(device)) == []
        assert list(self.filesystem.path.glob(".snapbreaker/*/*/links")) == []


def processes(marker: bytes) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except OSError:
            continue


def marks(device: int) -> Iterator[str]:
    """The fanotify marks of a filesystem (proc_pid_fdinfo(5))."""
    wanted = f"sdev:{os.major(device) << 20 | os.minor(device):x} "
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            for info in (process / "fdinfo").iterdir():
                text = info.read_text()
                if "fanotify sdev:" in text and wanted in text:
                    yield str(info)
