"""The sandbox's systemctl and its like, run by dash on units of a directory. The real one works on the files."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapbreaker import held
from snapbreaker.held import programs
from snapbreaker.held.action import Action

pytestmark = pytest.mark.real_commands
SHELL = shutil.which("dash") or "/bin/sh"
REAL = shutil.which("systemctl")
UNITS = {
    "web": "[Unit]\nDescription=the web\n[Service]\nExecStart=/bin/web\nExecReload=/bin/kill -HUP $MAINPID\n"
    "[Install]\nWantedBy=multi-user.target\n",
    "plain": "[Service]\nExecStart=/bin/plain\n[Install]\nWantedBy=multi-user.target\n",
    "many@": "[Service]\nExecStart=/bin/many %i\n[Install]\nWantedBy=multi-user.target\n",
}
NASTY = ("", " ", "a b", "it's", '"', "$HOME", "`id`", "\\x2d\\n", "new\nline\n", "%s", "*", b"\xff\xfe", "é", "#")


@dataclass(frozen=True)
class Sandbox:
    directory: Path
    root: Path

    def run(self, program: str, *words: str | bytes, **env: str) -> subprocess.CompletedProcess[str]:
        path = self.directory / programs.PROGRAMS / program
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env}
        return subprocess.run([SHELL, path, *words], capture_output=True, text=True, timeout=60, env=environment)

    def systemctl(self, *words: str | bytes, status: int = 0) -> str:
        done = self.run("systemctl", *words)
        assert done.returncode == status, done
        return done.stdout + done.stderr

    @property
    def actions(self) -> list[str]:
        return [str(action) for action in held.recorded(str(self.directory))]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    directory, root = tmp_path / "held", tmp_path / "root"
    directory.mkdir()
    programs.write(str(directory), str(directory / programs.SHARED), str(root))
    (directory / programs.SHARED / programs.UNITS).write_text(
        "ssh.service active running\nold.service failed failed\n-.mount active mounted\n"
    )
    (root / "usr/lib/systemd/system").mkdir(parents=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    for name, text in UNITS.items():
        (root / f"usr/lib/systemd/system/{name}.service").write_text(text)
    (root / "usr/lib/systemd/system/multi-user.target").write_text("[Unit]\n")
    (root / "usr/lib/systemd/system/web.socket").write_text("[Socket]\nListenStream=80\n")
    if REAL:
        (directory / programs.SHARED / "real/systemctl").symlink_to(REAL)
    return Sandbox(directory, root)


needs_systemctl = pytest.mark.skipif(REAL is None, reason="systemctl is missing: apt-get install systemd")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="apt-get install shellcheck")
@pytest.mark.parametrize("program", ["systemctl", "systemd-tmpfiles", "service", "40-systemd"])
def test_shellcheck_finds_nothing(sandbox: Sandbox, program: str) -> None:
    path = sandbox.directory / programs.PROGRAMS / program
    found = subprocess.run(["shellcheck", "-x", "-s", "dash", path], capture_output=True, text=True)
    assert found.stdout == ""


def test_requests_are_recorded_in_order_and_exactly(sandbox: Sandbox) -> None:
    sandbox.systemctl("start", "web")
    sandbox.systemctl("--quiet", "restart", "--no-block", "web.service", "plain")
    sandbox.systemctl("daemon-reload")
    sandbox.systemctl("stop", "many@one")
    sandbox.systemctl("kill", "-s", "HUP", "ssh")
    sandbox.systemctl("try-restart", "plain")
    sandbox.systemctl("reload-or-restart", "--", "web")
    sandbox.systemctl("start", "--", "-.mount")
    assert sandbox.actions == [
        "systemctl start web",
        "systemctl --quiet restart --no-block web.service plain",
        "systemctl daemon-reload",
        "systemctl stop many@one",
        "systemctl kill -s HUP ssh",
        "systemctl try-restart plain",
        "systemctl reload-or-restart -- web",
        "systemctl start -- -.mount",
    ]


def test_words_arrive_as_they_were(sandbox: Sandbox) -> None:
    (sandbox.root / "etc/init.d").mkdir()
    script = sandbox.root / "etc/init.d/web"
    script.touch(0o755)
    assert sandbox.run("service", "web", "odd", *NASTY).returncode == 0
    long = "x" * 100_000
    assert sandbox.run("systemd-tmpfiles", "--create", long).returncode != 0  # there is no real one here
    service, tmpfiles = held.recorded(str(sandbox.directory))
    assert service == Action("service", ("web", "odd", *(os.fsdecode(word) for word in NASTY)))
    assert tmpfiles == Action("systemd-tmpfiles", ("--create", long))


def test_many_at_once_lose_nothing(sandbox: Sandbox) -> None:
    (sandbox.root / "etc/init.d").mkdir()
    (sandbox.root / "etc/init.d/web").touch(0o755)
    wide = [f"{number}{'y' * 20_000}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda word: sandbox.run("service", "web", "odd", word, *"abc"), wide))
    found = held.recorded(str(sandbox.directory))
    assert sorted(action.words[2] for action in found) == sorted(wide)
    assert {action.words[3:] for action in found} == {("a", "b", "c")}


def test_states_follow_what_was_asked_for(sandbox: Sandbox) -> None:
    assert sandbox.systemctl("is-active", "ssh", "web", status=0) == "active\ninactive\n"
    assert sandbox.systemctl("is-active", "web", status=3) == "inactive\n"
    assert sandbox.systemctl("is-active", "nosuch", status=3) == "inactive\n"
    assert sandbox.systemctl("is-failed", "old") == "failed\n"
    sandbox.systemctl("start", "web", "many@1")
    assert sandbox.systemctl("is-active", "-q", "web") == ""
    assert "Active: active (running)" in sandbox.systemctl("status", "web.service")
    assert sandbox.systemctl("is-active", "many@1") == "active\n"
    assert sandbox.systemctl("is-active", "many@2", status=3) == "inactive\n"
    sandbox.systemctl("stop", "web")
    sandbox.systemctl("reset-failed")
    assert sandbox.systemctl("is-active", "web", status=3) == "inactive\n"
    sandbox.systemctl("status", "web", status=3)
    assert sandbox.systemctl("status", "nosuch", status=4) == "Unit nosuch.service could not be found.\n"
    assert sandbox.systemctl("is-system-running") == "running\n"


def test_an_alias_is_the_unit_itself(sandbox: Sandbox) -> None:
    (sandbox.root / "etc/systemd/system/www.service").symlink_to("/lib/systemd/system/web.service")
    sandbox.systemctl("start", "www")
    assert sandbox.systemctl("is-active", "web") == "active\n"
    assert sandbox.systemctl("show", "-P", "Id", "www") == "web.service\n"


def test_show(sandbox: Sandbox) -> None:
    assert sandbox.systemctl("show", "--property=LoadState", "web") == "LoadState=loaded\n"
    assert sandbox.systemctl("-p", "LoadState", "--value", "show", "nosuch") == "not-found\n"
    assert sandbox.systemctl("show", "-pCanReload", "web", "plain") == "CanReload=yes\n\nCanReload=no\n"
    assert sandbox.systemctl("-p", "Triggers", "show", "web.socket") == "Triggers=web.service\n"
    assert (
        sandbox.systemctl("show", "-p", "ActiveState,SubState", "ssh") == "ActiveState=active\nSubState=running\n"
    )
    assert sandbox.systemctl("show", "-p", "NoSuch", "ssh") == ""
    assert "Description=the web\n" in sandbox.systemctl("show", "web")
    assert sandbox.systemctl("cat", "plain") == f"# /usr/lib/systemd/system/plain.service\n{UNITS['plain']}"


def test_lists(sandbox: Sandbox) -> None:
    sandbox.systemctl("start", "web")
    listed = sandbox.systemctl("list-units", "--no-legend", "--type=service").splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["old.service", "loaded", "failed", "failed"],
        ["ssh.service", "loaded", "active", "running"],
        ["web.service", "loaded", "active", "running"],
    ]
    assert sandbox.systemctl("--no-legend", "--failed").startswith("old.service")
    assert sandbox.systemctl("--no-legend", "--quiet", "list-units", "user@*") == ""
    assert sandbox.systemctl("--no-legend", "list-units", "s*").startswith("ssh.service")


@needs_systemctl
def test_unit_files_are_changed_by_the_real_one(sandbox: Sandbox) -> None:
    wants = sandbox.root / "etc/systemd/system/multi-user.target.wants"
    sandbox.systemctl("enable", "web")
    assert (wants / "web.service").is_symlink()
    assert sandbox.systemctl("is-enabled", "web") == "enabled\n"
    assert sandbox.systemctl("is-enabled", "plain", status=1) == "disabled\n"
    assert sandbox.systemctl("show", "-p", "UnitFileState", "--value", "plain") == "disabled\n"
    sandbox.systemctl("disable", "web")
    assert not (wants / "web.service").is_symlink()
    assert sandbox.actions == []
    sandbox.systemctl("enable", "--now", "plain", "many@1.service")
    assert (wants / "plain.service").is_symlink()
    sandbox.systemctl("mask", "web")
    assert "is masked" in sandbox.systemctl("start", "web", status=1)
    assert sandbox.systemctl("show", "-P", "LoadState", "web") == "masked\n"
    sandbox.systemctl("unmask", "web")
    sandbox.systemctl("disable", "--now", "plain")
    sandbox.systemctl("enable", "--now", "nosuch", status=1)
    assert sandbox.actions == ["systemctl start -- plain many@1.service", "systemctl stop -- plain"]
    assert "web.service" in sandbox.systemctl("list-unit-files", "--no-legend")


def test_what_the_real_one_refuses(sandbox: Sandbox) -> None:
    assert sandbox.systemctl("start", "nosuch", status=5).endswith("Unit nosuch.service not found.\n")
    assert sandbox.systemctl("stop", "nosuch", status=5).endswith("Unit nosuch.service not loaded.\n")
    assert "is not active, cannot reload" in sandbox.systemctl("reload", "web", status=1)
    sandbox.systemctl("start", status=1)
    sandbox.systemctl("kill", "web", status=1)
    assert sandbox.actions == []
    sandbox.systemctl("start", "web", "nosuch", "plain", status=5)
    sandbox.systemctl("reload", "web")
    sandbox.systemctl("reload", "plain", status=1)
    assert sandbox.actions == ["systemctl start -- web plain", "systemctl reload web"]


@pytest.mark.parametrize(
    "words",
    [
        ("reboot",),
        ("poweroff",),
        ("kexec",),
        ("isolate", "rescue.target"),
        ("set-property", "web", "CPUQuota=1%"),
        ("--user", "start", "web"),
        ("-M", "box", "is-active", "web"),
        ("enable", "--runtime", "web"),
        ("start", "--wait", "web"),
        ("frobnicate",),
    ],
)
def test_what_needs_the_manager_is_refused_in_one_line(sandbox: Sandbox, words: tuple[str, ...]) -> None:
    said = sandbox.systemctl(*words, status=1)
    assert said.count("\n") == 1
    assert said.startswith("systemctl: error: systemctl ")
    assert sandbox.actions == []


def test_the_other_names_of_systemctl(sandbox: Sandbox) -> None:
    for name in ("reboot", "runlevel"):
        (sandbox.directory / programs.PROGRAMS / name).symlink_to("systemctl")
    assert sandbox.run("runlevel").stdout == "N 5\n"
    refused = sandbox.run("reboot", "now")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_init_scripts(sandbox: Sandbox) -> None:
    (sandbox.root / "etc/init.d").mkdir()
    (sandbox.root / "etc/init.d/daemon").touch(0o755)
    assert sandbox.run("service", "daemon", "restart").returncode == 0
    assert sandbox.run("invoke-rc.d", "--quiet", "daemon", "start").returncode == 0
    assert sandbox.run("service", "daemon", "status").returncode == 4
    real = sandbox.directory / programs.SHARED / "real/service"
    real.write_text('#!/bin/sh\necho "really $*"\n')
    real.chmod(0o755)
    assert sandbox.run("service", "nosuch", "restart").stdout == "really nosuch restart\n"
    assert sandbox.run("service", "daemon", "configtest").stdout == "really daemon configtest\n"
    assert sandbox.run("service", "--status-all").stdout == "really --status-all\n"
    assert sandbox.actions == ["service daemon restart", "invoke-rc.d --quiet daemon start"]


HOOK = """_use_systemctl=1 executable=$0 argument=$1
case $argument in start) systemctl start "${0##*/}"; exit ;; esac
"""


def test_init_scripts_with_systemd(sandbox: Sandbox) -> None:
    """The real hook does what it can by systemctl; only the script knows the rest."""
    (sandbox.directory / programs.SHARED / "real/40-systemd").write_text(HOOK)
    script = sandbox.root / "etc/daemon"
    script.write_text(f'set -eu\n. {sandbox.directory / programs.PROGRAMS}/40-systemd\necho "$1 by the script"\n')
    for words, said in {("rotate", "a  b", ""): "", ("configtest",): "configtest by the script\n"}.items():
        done = subprocess.run([SHELL, script, *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
    assert held.recorded(str(sandbox.directory)) == [Action("service", ("daemon", "rotate", "a  b", ""))]
