"""Strict mode: a second run with other versions and times passes, a line of a new kind trips."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import pytest

from snapbreaker.config import distrusted
from snapbreaker.issue import IssueType
from snapbreaker.monitor.judge import check_log
from snapbreaker.monitor.learn import Learned
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.rules import RuleSet

CORPUS = Path(__file__).parent.parent / "corpus"
GOOD = [log["file"] for log in tomllib.loads((CORPUS / "index.toml").read_text())["log"] if "line" not in log]
NOTHING = RuleSet([])
FIRST = b"""Get:1 http://deb.debian.org/debian bookworm/main amd64 nginx amd64 1.22.1-9+deb12u11 [527 kB]
Fetched 527 kB in 0s (5,678 kB/s)
Unpacking nginx (1.22.1-9) over (1.22.1-8) ...
[main 3f2a9bc] release 12
 2 files changed, 1 insertion(+)
2026-11-25T23:51:07.123Z INFO listening on web1.example.com:8080 after 12 ms
gcc -O2 -c /tmp/build-x7/main.c -o build/main.o
job 550e8400-e29b-41d4-a716-446655440000 done, 50% of 1.5 GB
"""
SECOND = b"""Get:12 https://mirror.example.org/debian bookworm-updates/main amd64 nginx amd64 1.26.0-1 [1.2 MB]
Fetched 1,204 kB in 12s (98 kB/s)
Unpacking nginx (1.26.0-1) over (1.22.1-9+deb12u11) ...
[main 1234567] release 13
 1 file changed, 20 insertions(+)
2027-01-02T03:04:05.9Z INFO listening on db.example.net:80 after 1.2 s
gcc -O3 -c /tmp/build-q9/src/other.c -o build/other.o
job 00000000-e29b-41d4-a716-44665544abcd done, 7.5% of 900 kB
"""


def learned(data: bytes) -> RuleSet:
    found = Learned()
    found.read(NOTHING, io.BytesIO(data), "run.log")
    return RuleSet([parse_pack(found.toml(), "learned.toml", "learned")])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("     ━━━━━━━━━━━━━━━━━━━━ 11.0/11.0 kB 1.3 MB/s", "     ━━━━━━━━━━━━━━━╸━━━━━━ 60.8/60.8 kB 2.3 MB/s"),
        ("====== build ======", "======== build ========"),
        ("fetching .......... done", "fetching ..................... done"),
    ],
)
def test_bars_and_rulers_of_any_length(first: str, second: str) -> None:
    rules = learned(first.encode() + b"\n")
    assert check_log(rules, io.BytesIO(second.encode() + b"\n"), source="s", strict=True) is None


def test_a_real_deploy_of_the_next_version() -> None:
    """The same deploy script three times, of other versions; the third says something new."""
    command = RuleSet.for_command(["bash", "deploy.sh", "1.5.0"])
    found = Learned()
    with (CORPUS / "strict" / "first.log").open("rb") as stream:
        found.read(command, stream, "first.log")
    pack = parse_pack(found.toml(), "learned.toml", "learned")
    rules = RuleSet.for_command(["bash", "deploy.sh", "1.5.1"], configured=[pack])
    with (CORPUS / "strict" / "second.log").open("rb") as stream:
        assert check_log(rules, stream, source="s", strict=True) is None
    with (CORPUS / "strict" / "third.log").open("rb") as stream:
        issue = check_log(rules, stream, source="s", strict=True)
    assert issue
    assert issue.type is IssueType.UNEXPECTED
    assert issue.line == "note: cache was rebuilt from scratch"


def test_a_second_run_passes() -> None:
    rules = learned(FIRST)
    for log in (FIRST, SECOND):
        assert check_log(rules, io.BytesIO(log), source="s", strict=True) is None


@pytest.mark.parametrize("line", [b"Removing nginx (1.22.1-9) ...", b"Fetched 1 kB", b"release 12", b"INFO x"])
def test_a_line_of_a_new_kind_trips(line: bytes) -> None:
    issue = check_log(learned(FIRST), io.BytesIO(FIRST + line + b"\n"), source="s", strict=True)
    assert issue is not None
    assert (issue.type, issue.line) == (IssueType.UNEXPECTED, line.decode())


@pytest.mark.parametrize("file", GOOD)
def test_a_good_log_is_expected_by_what_was_learned_from_it(file: str) -> None:
    data = (CORPUS / file).read_bytes()
    issue = check_log(learned(data), io.BytesIO(data), source="s", strict=True)
    assert issue is None


def test_a_rule_expires() -> None:
    trip = parse_pack("[[rule]]\nname='e'\ntype='ERROR'\npattern='boom'", "t", "t")
    allow = "[[rule]]\nname='a'\ntype='allow'\npattern='boom'\nreason='r'\nexpires="
    old, new = (parse_pack(allow + day, "a", "a") for day in ("2020-01-31", "2999-01-31"))
    issue = check_log(RuleSet([trip, old]), io.BytesIO(b"boom\n"), source="s")
    assert issue is not None
    assert "a/a, which allowed it, expired on 2020-01-31" in issue.reason
    assert check_log(RuleSet([trip, new]), io.BytesIO(b"boom\n"), source="s") is None


def test_who_could_write_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    file = tmp_path / "snapbreaker.toml"
    file.write_text("")
    if file.stat().st_uid != 0:
        assert "belongs to" in distrusted(file)
        return
    assert distrusted(file) == ""
    file.chmod(0o666)
    assert "can be written by others" in distrusted(file)
    file.chmod(0o644)
    tmp_path.chmod(0o777)
    assert str(tmp_path) in distrusted(file)
    tmp_path.chmod(0o755)
    (tmp_path / "link").symlink_to(file)
    assert distrusted(tmp_path / "link") == ""
    file.chmod(0o620)
    assert distrusted(tmp_path / "link")
