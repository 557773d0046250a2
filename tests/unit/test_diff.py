"""What counts as a difference, and what is proven unchanged."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Aspect, Change, Entry, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.proof import TICK_NS, Proof
from snapbreaker.files.touched import Touched
from snapbreaker.files.tree import Content, Tree
from snapbreaker.files.verify import verify

Changes = dict[bytes, int]
DAY = 86_400 * 10**9


@pytest.fixture
def old(tmp_path: Path) -> Path:
    top = tmp_path / "old"
    for name in ("a", "d/b", "d/sub/c", "z"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(name.encode() * 10)
    os.symlink("a", top / "link")
    os.mkfifo(top / "fifo")
    return top


@pytest.fixture
def new(old: Path) -> Path:
    return _copy(old)


def _copy(old: Path) -> Path:
    """The same files as other inodes, hard links and all times kept."""
    top = old.parent / "new"
    linked: dict[int, str] = {}

    def copy(source: str, target: str) -> None:
        status = os.lstat(source)
        if status.st_ino in linked:
            os.link(linked[status.st_ino], target, follow_symlinks=False)
        elif source.endswith("fifo"):
            os.mkfifo(target)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
        linked[status.st_ino] = target

    shutil.copytree(old, top, symlinks=True, copy_function=copy)
    for directory, names, files in os.walk(old, topdown=False):
        for name in [*names, *files, "."]:
            source = os.path.join(directory, name)
            status = os.lstat(source)
            target = str(top) + source[len(str(old)) :]
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    return top


def changes(old: Path, new: Path, policy: Policy | None = None, below: bytes = b"") -> list[Change]:
    with LiveTree(str(old)) as a, LiveTree(str(new)) as b:
        found = list(diff(a, b, policy or Policy(), Proof.none(), below))
        told = verify(a, b, policy or Policy(), Proof.none(), [], below)
    assert [(one.path, one.aspects) for one in told] == [(one.path, one.aspects) for one in found]
    assert all(one.text for one in told)
    return found


def aspects(old: Path, new: Path, policy: Policy | None = None) -> Changes:
    """Without the mtimes of directories, which change with what is in them."""
    found = {}
    for change in changes(old, new, policy):
        entry = change.new or change.old
        assert entry is not None
        rest = change.aspects & ~Aspect.MTIME if entry.is_dir else change.aspects
        if rest:
            found[change.path] = rest
    return found


def test_a_copy_does_not_differ(old: Path, new: Path) -> None:
    assert changes(old, new) == []


def test_added_and_removed_directories_with_all_below(old: Path, new: Path) -> None:
    shutil.rmtree(new / "d")
    (new / "e" / "f").mkdir(parents=True)
    found = changes(old, new)
    assert [(change.path, change.aspects) for change in found] == [
        (b"", Aspect.MTIME),
        (b"d", Aspect.REMOVED),
        (b"d/b", Aspect.REMOVED),
        (b"d/sub", Aspect.REMOVED),
        (b"d/sub/c", Aspect.REMOVED),
        (b"e", Aspect.ADDED),
        (b"e/f", Aspect.ADDED),
    ]
    assert all((change.old is None) == (change.aspects == Aspect.ADDED) for change in found)
    assert all((change.new is None) == (change.aspects == Aspect.REMOVED) for change in found)


def test_a_directory_becomes_a_file_and_the_reverse(old: Path, new: Path) -> None:
    shutil.rmtree(new / "d")
    (new / "d").write_bytes(b"")
    (new / "z").unlink()
    (new / "z").mkdir()
    (new / "z" / "in").write_bytes(b"")
    assert aspects(old, new) == {
        b"d": Aspect.TYPE,
        b"d/b": Aspect.REMOVED,
        b"d/sub": Aspect.REMOVED,
        b"d/sub/c": Aspect.REMOVED,
        b"z": Aspect.TYPE,
        b"z/in": Aspect.ADDED,
    }


def _hidden_edit(top: Path) -> None:
    status = os.stat(top / "a")
    (top / "a").write_bytes(b"A" * status.st_size)
    os.utime(top / "a", ns=(0, status.st_mtime_ns))


def _relink(top: Path) -> None:
    status = os.lstat(top / "link")
    os.unlink(top / "link")
    os.symlink("b", top / "link")
    os.utime(top / "link", ns=(0, status.st_mtime_ns), follow_symlinks=False)


@pytest.mark.parametrize(
    ("act", "wanted"),
    [
        (lambda top: os.chmod(top / "a", 0o4711), {b"a": Aspect.MODE}),
        (lambda top: os.chmod(top / "d", 0o1711), {b"d": Aspect.MODE}),
        (lambda top: os.chmod(top / "fifo", 0o600), {b"fifo": Aspect.MODE}),
        (lambda top: os.utime(top / "a", ns=(0, 1)), {b"a": Aspect.MTIME}),
        (lambda top: os.utime(top / "link", ns=(0, 1), follow_symlinks=False), {b"link": Aspect.MTIME}),
        (lambda top: os.setxattr(top / "a", "user.x", b"1"), {b"a": Aspect.XATTRS}),
        (lambda top: os.setxattr(top / "d", "user.x", b"1"), {b"d": Aspect.XATTRS}),
        (_hidden_edit, {b"a": Aspect.CONTENT}),
        (_relink, {b"link": Aspect.TARGET}),
    ],
)
def test_single_aspects(old: Path, new: Path, act: Callable[[Path], object], wanted: Changes) -> None:
    act(new)
    assert aspects(old, new) == wanted


def test_directory_mtime_counts_and_its_size_does_not(old: Path, new: Path) -> None:
    before = os.stat(new / "d").st_mtime_ns
    for number in range(500):
        (new / "d" / f"{'x' * 40}{number}").touch()
    for number in range(500):
        (new / "d" / f"{'x' * 40}{number}").unlink()
    assert [(change.path, change.aspects) for change in changes(old, new)] == [(b"d", Aspect.MTIME)]
    os.utime(new / "d", ns=(0, before))
    assert changes(old, new) == []


def test_sparseness(old: Path) -> None:
    (old / "a").write_bytes(bytes(1 << 20))
    new = _copy(old)
    status = os.stat(new / "a")
    with open(new / "a", "wb") as file:
        file.truncate(1 << 20)
    os.utime(new / "a", ns=(0, status.st_mtime_ns))
    assert aspects(old, new) == {b"a": Aspect.SPARSE}


def test_below(old: Path, new: Path) -> None:
    for path in ("a", "d/b", "d/sub/c"):
        (new / path).write_bytes(b"other")
        os.utime(new / path, ns=(0, os.stat(old / path).st_mtime_ns))
    assert [change.path for change in changes(old, new, below=b"d")] == [b"d/b", b"d/sub/c"]
    assert [change.path for change in changes(old, new, below=b"d/sub/c")] == [b"d/sub/c"]


def _link(top: Path, *names: str) -> None:
    for name in names[1:]:
        (top / name).unlink(missing_ok=True)
        os.link(top / names[0], top / name)


LINKS = Aspect.LINKS


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ([("a", "a1", "a2")], [("a", "a1", "a2")], {}),
        ([("a", "a1")], [("a",), ("a1",)], {b"a": LINKS, b"a1": LINKS}),
        ([("a",), ("a1",)], [("a", "a1")], {b"a": LINKS, b"a1": LINKS}),
        (
            [("a", "a1"), ("a2", "a3")],
            [("a", "a2"), ("a1", "a3")],
            dict.fromkeys([b"a", b"a1", b"a2", b"a3"], LINKS),
        ),
        ([("a", "a1", "a2")], [("a", "a1")], {b"a": LINKS, b"a1": LINKS, b"a2": Aspect.REMOVED}),
        ([("a", "a1")], [("a", "a1", "a2")], {b"a": LINKS, b"a1": LINKS, b"a2": Aspect.ADDED}),
    ],
)
def test_link_groups(
    tmp_path: Path, before: list[tuple[str, ...]], after: list[tuple[str, ...]], wanted: Changes
) -> None:
    for name, groups in (("old", before), ("new", after)):
        top = tmp_path / name
        top.mkdir()
        for group in groups:
            (top / group[0]).write_bytes(b"same")
            os.utime(top / group[0], ns=(0, DAY))
            _link(top, *group)
    assert aspects(tmp_path / "old", tmp_path / "new") == wanted


def test_links_from_outside_do_not_count(old: Path, new: Path, tmp_path: Path) -> None:
    os.link(new / "a", tmp_path / "outside")
    os.link(old / "z", tmp_path / "vault")
    assert changes(old, new) == []


def test_linked_paths_come_last_and_once(old: Path) -> None:
    _link(old, "a", "d/a1", "y")
    new = _copy(old)
    (new / "a").write_bytes(b"other")
    (new / "z").write_bytes(b"other")
    found = [change.path for change in changes(old, new)]
    assert found == [b"z", b"a", b"d/a1", b"y"]


def test_keep_content(old: Path) -> None:
    _link(old, "d/b", "d/b2")
    new = _copy(old)
    policy = Policy(((b"d", PathClass.KEEP_CONTENT),))
    (new / "d" / "b").write_bytes(b"grown")
    (new / "d" / "sub" / "c").unlink()
    (new / "d" / "sub" / "more").write_bytes(b"")
    (new / "d" / "b2").unlink()
    assert aspects(old, new, policy) == {
        b"d/b2": Aspect.REMOVED,
        b"d/sub/c": Aspect.REMOVED,
        b"d/sub/more": Aspect.ADDED,
    }
    assert {change.path for change in changes(old, new, policy)} == set(aspects(old, new, policy))
    os.chmod(new / "d" / "b", 0o600)
    os.chmod(new / "d" / "sub", 0o700)
    found = aspects(old, new, policy)
    assert (found[b"d/b"], found[b"d/sub"]) == (Aspect.MODE, Aspect.MODE)


class _Vanishing(LiveTree):
    """A live tree of which one path vanishes, or is edited, when its content is about to be read."""

    act: Callable[[], object] = staticmethod(lambda: None)

    def content(self, entry: Entry) -> Content:
        act, self.act = self.act, lambda: None
        act()
        return super().content(entry)


def _become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_a_path_that_vanishes_while_it_is_compared(old: Path, new: Path) -> None:
    with LiveTree(str(old)) as a, _Vanishing(str(new)) as b:
        b.act = lambda: (new / "a").unlink()
        found = [(change.path, change.aspects) for change in diff(a, b, Policy(), Proof.none())]
    assert found == [(b"a", Aspect.REMOVED)]
    with LiveTree(str(old)) as a, _Vanishing(str(new)) as b:
        b.act = lambda: _become_directory(new / "d" / "b")
        found = [(change.path, change.aspects) for change in diff(a, b, Policy(), Proof.none())]
    assert (b"d/b", Aspect.TYPE) in found


def test_what_the_old_tree_lost_is_an_error(old: Path, new: Path) -> None:
    with _Vanishing(str(old)) as a, LiveTree(str(new)) as b:
        a.act = lambda: (old / "a").unlink()
        with pytest.raises(FileNotFoundError):
            list(diff(a, b, Policy(), Proof.none()))


class _Counting(LiveTree):
    """Counts what is looked at beyond the walk."""

    looked = 0
    read = Tree.read

    def details(self, entry: Entry) -> object:  # type: ignore[override]
        self.looked += 1
        return super().details(entry)


@pytest.fixture
def settled(old: Path) -> Path:
    os.sync()
    time.sleep(3 * TICK_NS / 1e9)
    return old


def _looked(top: Path, proof: Proof, touched: list[bytes] | None = None) -> int:
    with LiveTree(str(top)) as a, _Counting(str(top)) as b:
        assert list(diff(a, b, Policy(), proof, touched=touched or [])) == []
        return b.looked


def test_proven_entries_are_not_looked_at(settled: Path) -> None:
    proof = Proof.take()
    assert proof.valid_now()
    assert _looked(settled, proof) == 0
    assert _looked(settled, Proof.none()) == 9
    os.chmod(settled / "a", 0o600)
    assert _looked(settled, proof) == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"synced": False},
        {"boot_id": "another"},
        {"boot_id": ""},
        {"clock_offset_ns": 0},
        {"horizon_ns": 0},
    ],
)
def test_what_voids_the_proof(settled: Path, broken: dict[str, object]) -> None:
    proof = replace(Proof.take(), **broken)  # type: ignore[arg-type]
    assert _looked(settled, proof) == 9
    assert Proof.from_dict(proof.as_dict()) == proof


def test_a_clock_that_was_set_voids_the_proof() -> None:
    proof = Proof.take()
    assert proof.valid_now()
    assert not replace(proof, clock_offset_ns=proof.clock_offset_ns + 20_000_000).valid_now()
    assert not replace(proof, clock_offset_ns=proof.clock_offset_ns - 20_000_000).valid_now()


def test_touched_paths_and_their_parents_are_looked_at(settled: Path) -> None:
    proof = Proof.take()
    assert _looked(settled, proof, [b"d/sub"]) == 3  # the root, d, d/sub
    assert _looked(settled, proof, [b"z", b"missing/x"]) == 2
    assert _looked(settled, proof, [b""]) == 1


def test_touched_with_the_directories_above() -> None:
    touched = Touched([b"a", b"a/b", b"c/d/e"])
    walk = [b"", b"a", b"a/b", b"a/b/x", b"a/c", b"a-", b"b", b"c", b"c/d", b"c/d/e", b"c/d/e/f", b"c/d/f"]
    assert walk == sorted(walk, key=sort_key)
    assert [path for path in walk if touched.covers(path)] == [
        b"", b"a", b"a/b", b"c", b"c/d", b"c/d/e",
    ]  # fmt: skip
    assert not Touched([])
