"""Services held back while a command runs, and carried out for real afterwards: packages, systemctl, service."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.lab import debs
from tests.lab import held as stand_in
from tests.lab.debs import File, Link, Package
from tests.lab.machine import Machine
from tests.system.scene import put, show, started, systemctl, unit, until

DRIVER = "/root/held.py"
APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y")
ONE = """[Service]
ExecStart=/usr/sbin/oned
ExecStop=/usr/sbin/oned-stop
[Install]
WantedBy=multi-user.target
"""
FETCH = "import urllib.request as r; print(r.urlopen('http://localhost/').status)"


class Sandbox:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        put(machine, DRIVER, Path(stand_in.__file__).read_text())
        self._driver("prepare")

    def run(self, *argv: str, status: int = 0) -> str:
        done = self.machine.run("python3", DRIVER, "run", *argv, session=False, timeout=300)
        assert done.returncode == status, done
        return done.stdout + done.stderr

    def apt(self, *words: str) -> None:
        """Nothing that it says may look like an issue: debconf, dpkg and maintainer scripts notice nothing."""
        put(self.machine, "/root/said", self.run(*APT, *words))
        judged = self.machine.snapbreaker("rules", "check", "--command", "apt-get install", "/root/said")
        assert judged.returncode == 0, judged.stdout

    @property
    def actions(self) -> list[str]:
        found: list[str] = json.loads(self._driver("recorded"))
        return found

    def carry_out(self, settle: float = 1.0) -> dict[str, Any] | None:
        found: dict[str, Any] | None = json.loads(self._driver("carry", str(settle)))
        return found

    def carried_out(self) -> None:
        assert self.carry_out() is None

    def _driver(self, *words: str) -> str:
        done: subprocess.CompletedProcess[str]
        done = self.machine.run("python3", DRIVER, *words, session=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout


def is_active(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "is-active", name, session=False).stdout.strip()


def pid_of(machine: Machine, name: str) -> str:
    return show(machine, name, "MainPID").strip()


def test_packages_with_services_run_after_it(ext4_machine: Machine) -> None:
    sandbox = Sandbox(ext4_machine)
    sandbox.apt("install", "nginx-light", "redis-server")
    assert is_active(ext4_machine, "nginx") == "inactive"
    assert is_active(ext4_machine, "redis-server") == "inactive"
    assert ext4_machine.run("pgrep", "-x", "nginx|redis-server", session=False).stdout == ""
    assert sandbox.run("systemctl", "is-active", "nginx", "redis-server") == "active\nactive\n"
    asked = [action for action in sandbox.actions if not action.endswith(("daemon-reload", ".conf"))]
    assert asked == [
        "systemctl --quiet --system start nginx.service",
        "service nginx upgrade",  # of nginx, which finds that nginx-common has started it already
        "systemctl --quiet --system start redis-server.service",
        "systemctl reload nginx.service",
    ]
    sandbox.carried_out()
    assert is_active(ext4_machine, "nginx") == "active"
    assert is_active(ext4_machine, "redis-server") == "active"
    assert systemctl(ext4_machine, "is-enabled", "nginx", "redis-server") == "enabled\nenabled\n"
    assert ext4_machine.run("python3", "-c", FETCH, session=False).stdout == "200\n"
    assert systemctl(ext4_machine, "is-system-running") == "running\n"
    pid = pid_of(ext4_machine, "nginx")
    sandbox.carried_out()  # all was done
    assert pid_of(ext4_machine, "nginx") == pid


def test_upgrade_removal_and_purge(ext4_machine: Machine) -> None:
    files = {"/usr/sbin/oned": File("#!/bin/sh\nexec sleep 1000\n"), "/usr/sbin/oned-stop": File("#!/bin/sh\n")}
    services = {"one": ONE, "two": "sleep 1001", "off": "sleep 1002"}
    debs.add(ext4_machine.root, Package("pair", files=files, services=services))
    assert ext4_machine.run(*APT, "install", "pair", session=False).returncode == 0
    systemctl(ext4_machine, "disable", "--now", "--quiet", "off")
    pids = {name: pid_of(ext4_machine, name) for name in ("one", "two")}
    debs.add(
        ext4_machine.root, Package("pair", version="2.0", files=files, services={**services, "new": "sleep 1003"})
    )
    sandbox = Sandbox(ext4_machine)
    sandbox.apt("install", "pair")
    assert {name: pid_of(ext4_machine, name) for name in pids} == pids
    assert sandbox.run("systemctl", "is-active", "one") == "active\n"
    sandbox.carried_out()
    for name, pid in pids.items():
        assert is_active(ext4_machine, name) == "active"
        assert pid_of(ext4_machine, name) != pid
    assert is_active(ext4_machine, "off") == "inactive"
    assert is_active(ext4_machine, "new") == "active"

    ext4_machine.run("rm", "-r", stand_in.DIRECTORY)
    sandbox = Sandbox(ext4_machine)
    sandbox.apt("purge", "pair")
    assert is_active(ext4_machine, "one") == "active"
    assert sandbox.run("sh", "-c", "systemctl is-active one || true") == "inactive\n"
    sandbox.carried_out()
    assert ext4_machine.run("pgrep", "-x", "sleep", session=False).stdout == ""
    assert systemctl(ext4_machine, "list-units", "--failed", "--no-legend") == ""
    assert show(ext4_machine, "one", "LoadState") == "LoadState=not-found\n"


def test_a_unit_that_fails_is_an_issue(ext4_machine: Machine) -> None:
    """At once, while it starts; later; again and again. One that had failed before is none."""
    unit(ext4_machine, "old", "false")
    unit(ext4_machine, "early", 'sh -c "echo no database; exit 3"', "Type=oneshot")
    unit(ext4_machine, "late", 'sh -c "echo ready; sleep 0.5; echo lost it; exit 4"')
    unit(ext4_machine, "ever", 'sh -c "echo once more; exit 5"', "Restart=always\nRestartSec=0.3")
    unit(ext4_machine, "fine")
    systemctl(ext4_machine, "daemon-reload")
    systemctl(ext4_machine, "start", "old")
    until(ext4_machine, "systemctl is-failed old")
    expected = {
        "early": "early.service does not start: Job for early.service failed",
        "late": "late.service failed after it was started; its journal ends: ",
        "ever": "ever.service failed after it was started; its journal ends: ",
    }
    for name, reason in expected.items():
        ext4_machine.run("rm", "-rf", stand_in.DIRECTORY)
        sandbox = Sandbox(ext4_machine)
        sandbox.run("systemctl", "start", "fine", name)
        issue = sandbox.carry_out(3)
        assert issue is not None
        assert (issue["type"], issue["rule"], issue["source"]) == ("CHECK", "services", f"journal:{name}.service")
        assert issue["reason"].startswith(reason), issue
        said = {"early": "no database", "late": "lost it", "ever": "once more"}[name]
        assert said in issue["reason"]
        again = sandbox.carry_out(3)  # and so it says whoever recovers it
        assert again is not None
        ext4_machine.run("systemctl", "stop", name, session=False)
        ext4_machine.run("systemctl", "reset-failed", f"{name}.service", session=False)


def test_what_a_script_asks_for(ext4_machine: Machine) -> None:
    unit(ext4_machine, "web", "sleep 1000", "ExecReload=touch /srv/reloaded")
    unit(ext4_machine, "api")
    unit(ext4_machine, "gone")
    put(
        ext4_machine,
        "/etc/init.d/oldie",
        "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: oldie\n### END INIT INFO\n"
        ". /lib/lsb/init-functions\ncase $1 in start) touch /srv/oldie ;; rotate) touch /srv/$2 ;; esac\n",
        0o755,
    )
    started(ext4_machine, "api", "gone")
    before = pid_of(ext4_machine, "api")
    change = put(
        ext4_machine,
        "/root/change.sh",
        """set -e
test -d /run/systemd/system
systemctl enable --now web
systemctl is-enabled web
systemctl reload web
service api restart
systemctl disable --now gone
systemctl is-active gone || true
invoke-rc.d oldie start || true
/etc/init.d/oldie start
service oldie rotate away
printf 'd /run/made 0750 root root\\nd /srv/made\\n' >/etc/tmpfiles.d/made.conf
systemd-tmpfiles --create made.conf
test -d /run/made
systemctl set-property web CPUWeight=50 && exit 1
systemctl --user start web && exit 1
shutdown now && exit 1
reboot && exit 1
systemd-run true && exit 1
mkdir /etc/systemd/system/api.service.d
printf '[Service]\\nEnvironment=A=b\\n' >/etc/systemd/system/api.service.d/a.conf
""",
    )
    sandbox = Sandbox(ext4_machine)
    said = sandbox.run("sh", change)
    assert said.splitlines()[:2] == ["enabled", "inactive"], said
    assert sandbox.actions == [
        "systemctl start -- web",
        "systemctl reload web",
        "systemctl restart api.service",
        "systemctl stop -- gone",
        "systemctl --no-pager start oldie.service",
        "service oldie rotate away",
        "systemd-tmpfiles --create made.conf",
    ]
    assert (pid_of(ext4_machine, "api"), is_active(ext4_machine, "gone")) == (before, "active")
    sandbox.carried_out()
    assert is_active(ext4_machine, "web") == "active"
    assert is_active(ext4_machine, "gone") == "inactive"
    assert pid_of(ext4_machine, "api") != before
    assert show(ext4_machine, "api", "Environment") == "Environment=A=b\n"
    done = ext4_machine.run("ls", "-d", "/run/made", "/srv/reloaded", "/srv/oldie", "/srv/away", session=False)
    assert done.returncode == 0, done.stderr


def test_after_a_crash_it_goes_on_where_it_was(ext4_machine: Machine) -> None:
    note = "ExecStartPre=sh -c 'echo %n >>/srv/log'"
    unit(ext4_machine, "first", more=note)
    unit(ext4_machine, "slow", more=f"{note}\nExecStartPre=sleep 3")
    unit(ext4_machine, "last", more=note)
    systemctl(ext4_machine, "daemon-reload")
    sandbox = Sandbox(ext4_machine)
    sandbox.run("sh", "-ec", "for each in first slow last; do systemctl start $each; done")
    carrying = ext4_machine.start("python3", DRIVER, "carry", session=False)
    until(ext4_machine, "grep slow /srv/log")
    ext4_machine.signal(carrying, signal.SIGKILL)
    carrying.wait(20)
    assert is_active(ext4_machine, "last") == "inactive"
    systemctl(ext4_machine, "stop", "first")
    sandbox.carried_out()
    assert is_active(ext4_machine, "first") == "inactive"  # it was done, and what came then is not ours
    assert is_active(ext4_machine, "slow") == "active"
    assert is_active(ext4_machine, "last") == "active"
    assert (ext4_machine.root / "srv/log").read_text().split() == ["first.service", "slow.service", "last.service"]
    ext4_machine.run("rm", "-r", stand_in.DIRECTORY)
    sandbox = Sandbox(ext4_machine)
    sandbox.run("systemctl", "stop", "last")
    carrying = ext4_machine.start("python3", DRIVER, "carry", "60", session=False)
    until(ext4_machine, "! systemctl is-active last")
    ext4_machine.signal(carrying, signal.SIGTERM)
    stdout, _ = carrying.communicate(timeout=20)
    assert json.loads(stdout)["type"] == "INTERRUPTED"
    assert ext4_machine.reboot() == "running"
    sandbox.carried_out()


def test_a_package_that_came_and_went(ext4_machine: Machine) -> None:
    debs.add(
        ext4_machine.root,
        Package(
            "shy", services={"shy": "sleep 1000"}, files={"/etc/systemd/system/coy.service": Link("shy.service")}
        ),
    )
    sandbox = Sandbox(ext4_machine)
    sandbox.apt("install", "shy")
    sandbox.apt("purge", "shy")
    assert len(sandbox.actions) >= 2
    sandbox.carried_out()
    assert is_active(ext4_machine, "shy") == "inactive"


def test_a_database_cluster(ext4_machine: Machine) -> None:
    """Its unit is an instance that a generator brings, its sockets are in a directory of /run."""
    sandbox = Sandbox(ext4_machine)
    sandbox.apt("install", "postgresql")
    assert ext4_machine.run("pgrep", "postgres", session=False).stdout == ""
    sandbox.carried_out()
    query = ("runuser", "-u", "postgres", "--", "psql", "-tAc", "select 40 + 2")
    done = ext4_machine.run(*query, session=False)
    assert (done.stdout, done.stderr) == ("42\n", "")
    assert systemctl(ext4_machine, "is-system-running") == "running\n"


def test_systemd_itself_cannot_be_replaced(ext4_machine: Machine) -> None:
    """By dpkg, beneath what is bound there: it says so, and leaves everything as it was."""
    files = {"/bin/systemctl": File("#!/bin/sh\n")}
    debs.add(ext4_machine.root, Package("systemd-next", files=files, control={"Replaces": "systemd"}))
    before = (ext4_machine.root / "usr/bin/systemctl").read_bytes()
    sandbox = Sandbox(ext4_machine)
    said = sandbox.run(*APT, "install", "systemd-next", status=100)
    assert "backup link of './bin/systemctl' before installing new version: Invalid cross-device link" in said
    assert (ext4_machine.root / "usr/bin/systemctl").read_bytes() == before
