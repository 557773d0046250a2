"""Two checkpoints that keep links at the same time: neither counts those of the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import comparer
from tests.fs.checkpointed import Checkpointed
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool


@pytest.mark.parametrize("first_goes", ["before", "between", "after"])
def test_links_of_another_vault_do_not_count(
    ext4: LoopFilesystem, tmp_path: Path, first_goes: str, request: pytest.FixtureRequest
) -> None:
    """As after a rollback that failed, whose checkpoint keeps its links, or with two scopes on one filesystem."""
    roots = [ext4.path / name for name in ("one", "two")]
    for root in roots:
        root.mkdir()
        for name in ("deleted", "replaced", "rewritten"):
            (root / name).write_text("before")
    before = [comparer.snapshot(root) for root in roots]
    first, second = Checkpointed(ext4.path, tmp_path), Checkpointed(roots[1], tmp_path)
    request.addfinalizer(first.discard)
    request.addfinalizer(second.discard)
    first.begin()
    if first_goes == "before":
        first.halt()
        first.discard()
    second.begin()
    for root in roots:
        (root / "deleted").unlink()
        (root / "new").write_text("after")
        (root / "new").rename(root / "replaced")
        (root / "rewritten").write_text("after")
    if first_goes == "between":
        assert first.halt().verified
        first.discard()
    outcome = second.halt()
    said = [(one.failures, one.differences) for one in outcome.volumes]
    assert comparer.differences(before[1], comparer.snapshot(roots[1])) == [], said
    assert outcome.verified, said
    if first_goes == "after":
        outcome = first.halt()
        assert outcome.verified, [(one.failures, one.differences) for one in outcome.volumes]
        first.discard()
    assert comparer.differences(before[0], comparer.snapshot(roots[0])) == [] or first_goes == "before"


def test_two_scopes_on_one_filesystem(ext4: LoopFilesystem, tool: Tool) -> None:
    """Two guards of one filesystem, each asked before the other writes."""
    scopes = [ext4.path / name for name in ("one", "two")]
    for scope in scopes:
        scope.mkdir()
        for name in ("deleted", "rewritten"):
            (scope / name).write_text("before")
    before = comparer.snapshot(ext4.path)
    script = f"cd {ext4.path}; rm */deleted; for f in */rewritten; do echo after >$f; done; exit 1"
    result = tool.run(scopes[0], "sh", "-c", script, options=["--scope", scopes[1]])
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(ext4.path)) == []
