"""Which command lines are told that they could say more."""

from __future__ import annotations

import pytest

from snapbreaker.monitor.hints import hint


@pytest.mark.parametrize(
    ("argv", "tool"),
    [
        (["pip", "install", "x"], "pip"),
        (["sudo", "pip3", "install", "x"], "pip3"),
        (["python3", "-m", "pip", "install", "x"], "pip"),
        (["sh", "-c", "cd /srv && make -j4 && npm ci -v"], "make"),
        (["sh", "-c", "echo -v; curl -sS x"], "curl"),
        (["rsync", "-aHAX", "a", "b"], "rsync"),
        (["bash", "-lc", "pytest"], "pytest"),
    ],
)
def test_a_tool_that_could_say_more(argv: list[str], tool: str) -> None:
    assert hint(argv, {}).startswith(f"{tool} says more with ")


@pytest.mark.parametrize(
    "argv",
    [
        ["pip", "-vv", "install", "x"],
        ["pip", "install", "--log=x", "y"],
        ["rsync", "-av", "a", "b"],
        ["make", "V=1"],
        ["./deploy.sh"],
        ["apt-get", "install", "-y", "nginx"],
        ["sh", "-c", "curl -fsSLv x"],
        ["sh", "-c", "make V=1 | tee log"],
        [],
    ],
)
def test_nothing_to_say(argv: list[str]) -> None:
    assert hint(argv, {}) == ""


def test_the_environment_counts() -> None:
    assert hint(["pip", "install", "x"], {"PIP_VERBOSE": "1"}) == ""
