"""A VM of user-mode Linux with the judges in it: the hostile deploy, and the independent comparison."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.lab.uml import Uml

TESTS = Path(__file__).parents[1]
JUDGE = "/opt/lab"
IMPORTED = ("lab/inodes.py", "lab/subvolumes.py")
HOSTILE = f"cd {JUDGE} && python3 -m tests.lab.hostile"
COMPARE = f"cd {JUDGE} && python3 -m tests.comparer"


@dataclass(slots=True)
class JudgedVm(Uml):
    """As ``Uml``."""

    def put_judge(self) -> None:
        """The hostile deploy and the comparer, for ``python3 -m tests.…`` there in ``JUDGE``."""
        packed = self.session / f"{self.name}.judge"
        with tarfile.open(packed, "w") as tar:
            for pattern in ("__init__.py", "comparer.py", "lab/__init__.py", "lab/hostile*.py", *IMPORTED):
                for file in sorted(TESTS.glob(pattern)):
                    tar.add(file, f"tests/{file.relative_to(TESTS)}")
        self.put(packed, f"{JUDGE}.tar")
        self.sh(f"mkdir -p {JUDGE} && tar -C {JUDGE} -xf {JUDGE}.tar")

    def sh(self, script: str, timeout: float = 120) -> str:
        """What a shell script says there, which must succeed."""
        done = self.run("sh", "-ec", script, timeout=timeout)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout
