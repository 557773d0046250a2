"""`rules learn` with real tools: a deploy is learnt from one run, and run again with another version."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from snapbreaker.monitor.judge import check_log
from snapbreaker.monitor.learn import Learned
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.rules import RuleSet

pytestmark = [
    pytest.mark.real_commands,
    pytest.mark.skipif(not all(map(shutil.which, ("git", "make", "tar"))), reason="install git, make and tar"),
]
DEPLOY = """\
set -e
echo "deploying version $VERSION at $(date -Is)"
git init -q --initial-branch=main work; cd work
git config user.name a; git config user.email a@example.org
printf 'all: a.o b.o\\n\\t@echo "linked %%s objects of $(VERSION)"\\n%%.o: %%.c\\n\\tcp -v $< $@\\n' 2 >Makefile
touch a.c b.c
git add .
git commit -m "release $VERSION"
git tag "v$VERSION"
make VERSION="$VERSION"
tar -cvf "../app-$VERSION.tar" a.o b.o
sha256sum "../app-$VERSION.tar"
ls -l --time-style=full-iso "../app-$VERSION.tar"
echo "done in ${VERSION%%.*}.$RANDOM s, pid $$"
"""


def deploy(place: Path, version: str, more: str = "") -> Path:
    place.mkdir()
    environment = {**os.environ, "VERSION": version, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-c", DEPLOY + more], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    (place / "log").write_bytes(done.stdout)
    return place / "log"


def learned(log: Path) -> RuleSet:
    found = Learned()
    with open(log, "rb") as stream:
        found.read(RuleSet.for_command(["./deploy.sh"]), stream, "log", {os.uname().nodename})
    assert not found.issues
    return RuleSet(
        [*RuleSet.for_command(["./deploy.sh"]).packs, parse_pack(found.toml(), "deploy.toml", "deploy")]
    )


def test_the_next_version_passes_and_a_new_kind_of_line_trips(tmp_path: Path) -> None:
    rules = learned(deploy(tmp_path / "first", "1.4.2"))
    with open(deploy(tmp_path / "second", "12.0.17"), "rb") as stream:
        assert check_log(rules, stream, source="stdout", strict=True) is None
    odd = deploy(tmp_path / "third", "1.4.3", "rm -v a.o\n")
    with open(odd, "rb") as stream:
        issue = check_log(rules, stream, source="stdout", strict=True)
    assert issue is not None
    assert (issue.type, issue.line) == ("UNEXPECTED", "removed 'a.o'")
