"""What every match of a pattern holds; and which programs a command line runs."""

from __future__ import annotations

import re
import shlex

import pytest

from snapbreaker.monitor.patterns import needles
from snapbreaker.monitor.prefilter import Prefilter, words_of
from snapbreaker.monitor.programs import programs_of

KNOWN = frozenset({"apt", "apt-get", "dpkg", "pip"})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("error", {"error"}),
        ("(?i)ERROR: .*", {"error: "}),
        ("[Ee]rror", {"error"}),
        ("(?:foo|barb)x?", {"foo", "barb"}),
        ("(?:foo|b)x?", None),
        (r"\d+ failed", {" failed"}),
        ("(?:abcd)?", None),
        ("(?:abcd)+", {"abcd"}),
        (r"^\d+$", None),
        ("ab", None),
        ("é123", {"123"}),
    ],
)
def test_needles(pattern: str, expected: set[str] | None) -> None:
    assert needles(pattern) == expected


def test_prefilter_finds_what_a_search_finds() -> None:
    prefilter = Prefilter([words_of("no such file"), words_of("warn"), words_of("dpkg: error")], [b"error"])
    data = b"a\nx: No Such File here\rValueERROR\n\nwarning\nWARN!\ndpkg: error\nno  such file"
    found = [data[a:b] for a, b in prefilter.spans(data)]
    assert found == [b"x: No Such File here", b"ValueERROR", b"WARN!", b"dpkg: error"]
    assert all(prefilter.needles(line) for line in found)
    assert not prefilter.needles(b"warning")
    assert prefilter.spans(b"") == []
    assert re.fullmatch(rb"", words_of("--"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("apt-get install x", {"apt-get"}),
        ("/usr/bin/apt-get install x", {"apt-get"}),
        ("sudo -E -u root apt install x", {"sudo", "apt"}),
        ("chroot /srv/apt pip install x", {"chroot", "pip"}),
        (
            "env DEBIAN_FRONTEND=noninteractive nice -n 5 timeout 5 apt-get -y upgrade",
            {"env", "apt-get"},
        ),
        ("sh -c 'cd /x && DEBIAN_FRONTEND=x apt-get -y install y; pip list'", {"sh", "cd", "apt-get", "pip"}),
        ("bash -exo pipefail -c 'if true; then apt update; fi'", {"bash", "true", "apt", "fi"}),
        ("chroot /root sh -ec 'dpkg -i x.deb'", {"chroot", "sh", "dpkg"}),
        ("su - deploy -c 'pip install x'", {"su", "pip"}),
        ("python3 -m pip install x", {"python3", "pip"}),
        ("./deploy.sh apt", {"deploy.sh"}),
        ("bash deploy.sh apt", {"bash"}),
        ("git commit -m apt", {"git"}),
        ("sh -c 'echo \"unclosed'", {"sh", "echo"}),
        ("", set()),
    ],
)
def test_programs(command: str, expected: set[str]) -> None:
    assert programs_of(shlex.split(command), KNOWN) == expected
