"""What is changed in place during a run: saved before its first writer gets it, on both kinds of kernel."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.fs.guarded import MODES, Scene
from tests.lab import inplace
from tests.lab.tool import Tool, wait_for

MIB = 1 << 20


@pytest.fixture(params=MODES)
def scene(request: pytest.FixtureRequest, make_filesystem: MakeFilesystem, tool: Tool) -> Scene:
    return Scene(tool, make_filesystem("ext4", size=256 * MIB), request.param)


def test_every_way_to_write(scene: Scene) -> None:
    scene.seed(*inplace.WAYS)
    script = " && ".join(f"$INPLACE {way} {scene.root}/{way}" for way in inplace.WAYS)
    result = scene.sh(f"{script}; echo $?; exit 1")
    assert (result.status, result.stdout) == (1, b"0\n"), result.stderr
    scene.assert_exact()
    scene.assert_nothing_left()


@pytest.mark.parametrize("way", inplace.UNASKED)
@pytest.mark.parametrize("earlier", ["", "cat victim; "])
def test_cut_by_name(scene: Scene, way: str, earlier: str) -> None:
    """truncate(2) opens nothing. Where the kernel does not ask before it, that must not pass in silence."""
    asked = scene.mode == "asked" and not earlier
    scene.seed("victim", "other")
    result = scene.sh(f"{earlier}$INPLACE {way} {scene.root}/victim; rm other; exit 1")
    assert (scene.root / "other").exists()
    if asked:
        assert result.status == 1, result.stderr
        scene.assert_exact()
        scene.assert_nothing_left()
    else:
        assert result.status == 3, result.stderr
        assert str(scene.root / "victim").encode() in result.stdout + result.stderr


@pytest.mark.parametrize("way", [*inplace.UNASKED, "write"])
def test_what_is_opened_often_is_saved_before_anybody_writes(scene: Scene, way: str) -> None:
    """And then even what the kernel does not ask about is no loss."""
    change = f"$INPLACE {way} {scene.root}/hot" if way != "write" else "echo more >>hot"
    scene.seed("hot", "other")
    result = scene.sh(f"for n in $(seq 20); do cat hot; done; sleep 0.5; {change}; rm other; exit 1")
    assert result.status == 1, result.stderr
    scene.assert_exact()
    scene.assert_nothing_left()


def test_hard_links_and_large_files(scene: Scene) -> None:
    """A group is one file; one over 8 MiB is saved while several wait for it."""
    scene.seed("one", "plain")
    os.link(scene.root / "one", scene.root / "two")
    (scene.root / "big").write_bytes(os.urandom(20 * MIB))
    scene.seed()
    writers = "for n in 1 2 3 4; do dd if=/dev/zero of=big bs=64k count=1 seek=$n conv=notrunc & done; wait; "
    result = scene.sh(f"echo x >>one; echo y >>two; {writers} rm two; exit 1")
    assert result.status == 1, result.stderr
    scene.assert_exact()


def test_a_descriptor_from_before(scene: Scene) -> None:
    """Another process has it open for writing when the checkpoint is made: copied, not linked."""
    scene.seed("log", "other")
    with (scene.root / "log").open("ab", buffering=0) as log:
        holder = subprocess.Popen(["sleep", "60"], stdout=log)
    try:
        result = scene.sh(f"echo more >/proc/{holder.pid}/fd/1; rm other; exit 1")
    finally:
        holder.kill()
        holder.wait()
    assert result.status == 1, result.stderr
    scene.assert_exact()


def test_a_foreign_writer(scene: Scene) -> None:
    scene.seed("file", "other")
    process = scene.start("rm other; echo up; while [ ! -e go ]; do sleep 0.05; done; exit 1")
    wait_for(process, "up")
    with (scene.root / "file").open("r+b") as file:
        file.write(b"FOREIGN")
    (scene.root / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 1
    scene.assert_exact()
    scene.assert_nothing_left()


def test_many_opens(scene: Scene) -> None:
    """Thousands of opens a second, and processes without number: nobody hangs, nothing is lost."""
    scene.seed(*(f"f{number}" for number in range(400)))
    storm = "for i in 1 2 3; do for f in f*; do (read x <$f; echo x >>$f) & done; wait; done"
    opens = "python3 -c 'import os\nfor n in range(20000): os.close(os.open(\"f%d\" % (n % 400), os.O_RDONLY))'"
    result = scene.sh(f"({opens}) & ({storm}); wait; exit 1")
    assert result.status == 1, result.stderr
    scene.assert_exact()
    scene.assert_nothing_left()


def test_no_room_to_save(scene: Scene) -> None:
    """The breaker trips, and the writer waits until it does."""
    scene.seed("other")
    (scene.root / "big").write_bytes(os.urandom(30 * MIB))
    scene.seed()
    ballast = scene.filesystem.path / "ballast"
    fill = f"dd if=/dev/zero of={ballast} bs=1M; "
    result = scene.sh(f"{fill} dd if=/dev/zero of=big bs=64k count=1 conv=notrunc; rm other; sleep 9")
    ballast.unlink()
    assert result.status in (1, 3), result.stderr
    if result.status == 3:
        assert b"/big" in result.stdout + result.stderr
        assert (scene.root / "big").stat().st_size == 30 * MIB
    else:
        scene.assert_exact()
    scene.assert_nothing_left()


def test_committed_and_taken_back(scene: Scene) -> None:
    """After a commit no file is shared with a vault; a rollback of it brings everything back."""
    scene.seed("changed", "deleted", "replaced", "kept", "one")
    os.link(scene.root / "one", scene.root / "two")
    scene.seed()
    result = scene.sh("echo x >>changed; rm deleted; echo y >new; mv new replaced; echo z >one")
    assert result.status == 0, result.stderr
    scene.assert_nothing_left()
    assert {path.name: path.stat().st_nlink for path in scene.root.iterdir()} == {
        **dict.fromkeys(("changed", "replaced", "kept"), 1),
        **dict.fromkeys(("one", "two"), 2),
    }
    after = comparer.snapshot(scene.root)
    assert scene.tool("rollback", "--last").status == 0
    scene.assert_exact()
    assert scene.tool("rollback", "--last", "--redo").status == 0
    assert comparer.differences(after, comparer.snapshot(scene.root)) == []
    assert scene.tool("rollback", "--last").status == 0
    scene.assert_exact()


def test_a_failed_create_leaves_no_guard(scene: Scene) -> None:
    """The command cannot be started, or the filesystem is full."""
    scene.seed("file")
    result = scene.tool.run(scene.root, "/nowhere/at/all", entry=MODES[scene.mode])
    assert result.status == 127, result.stderr
    scene.assert_exact()
    scene.assert_nothing_left()


def test_a_checkpoint_without_a_run_has_none(scene: Scene) -> None:
    scene.seed("file")
    assert scene.tool("checkpoint", "create", "--scope", scene.root, entry=MODES[scene.mode]).status == 0
    assert not scene.data()["linked"]
    scene.assert_nothing_left()
    (scene.root / "file").write_text("after")
    assert scene.tool("rollback", "--last", "--yes").status == 0
    scene.assert_exact()
