"""A deploy script that does all that deploy scripts do, and then fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import comparer
from tests.lab.machine import Machine
from tests.system.facts import facts, processes

DEPLOY = r"""#!/bin/sh
export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends redis-server 2>&1
echo '10.1.2.3 database' >> /etc/hosts
rm /etc/issue
mv /etc/deluser.conf /etc/deluser.conf.old
chmod 600 /etc/login.defs
useradd --create-home deploy
cat > /etc/systemd/system/ours.service <<UNIT
[Service]
ExecStart=/bin/sh -c 'while :; do date >> /srv/ours; sleep 0.05; done'
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now ours.service 2>&1
systemctl mask systemd-ask-password-wall.path 2>&1
systemctl mask --runtime --now atd.service 2>&1
systemctl unmask --runtime atd.service 2>&1
systemctl start atd.service
(setsid sh -c 'while :; do date >> /srv/daemon; sleep 0.05; done' >/dev/null 2>&1 &)
systemd-run --unit=transient sleep 1000 2>&1
systemd-run --scope --unit=apart setsid sleep 502 >/dev/null 2>&1 &
su - deploy -c 'setsid sleep 500 >/dev/null 2>&1 &'
sudo -u deploy sh -c 'setsid sleep 501 >/dev/null 2>&1 &'
echo 'while :; do date >> /srv/job; sleep 0.05; done' | at now 2>/dev/null
until [ -s /srv/job ] && [ -s /srv/ours ] && [ -s /srv/daemon ]; do sleep 0.05; done
until pgrep -xf 'sleep 500' && pgrep -xf 'sleep 501' && pgrep -xf 'sleep 502'; do sleep 0.05; done
touch /srv/ready
echo 'ERROR: migration 42 failed'
while :; do date >> /srv/more; done
"""
# As somebody logs in, starts it and goes on working.
SESSION = (
    "echo $$ $(cat /proc/self/cgroup | tail -1); snapbreaker run -- /root/deploy.sh; echo exit $?; echo alive"
)


def put(machine: Machine, text: str, name: str = "deploy.sh") -> str:
    path = Path(machine.root) / "root" / name
    path.write_text(text)
    path.chmod(0o755)
    return f"/root/{name}"


@pytest.fixture
def deploy(machine: Machine) -> Machine:
    put(machine, DEPLOY)
    return machine


def test_a_failing_deploy_leaves_no_trace(deploy: Machine) -> None:
    before, system, running = deploy.snapshot(), facts(deploy), processes(deploy)
    result = deploy.run("sh", "-c", SESSION, timeout=120)
    assert "exit 1\nalive" in result.stdout, result.stderr
    assert "session-" in result.stdout.splitlines()[0]
    assert "tripped by ERROR, rolled back and verified" in result.stderr
    assert comparer.differences(before, deploy.snapshot()) == []
    assert system.differences(facts(deploy)) == {}
    assert processes(deploy) == running
    assert deploy.run("pgrep", "-xa", "sleep").stdout == ""
    report = json.loads(deploy.snapbreaker("report", "--last", "--format", "json").stdout)
    assert report["issue"]["line"] == "ERROR: migration 42 failed"
    assert {"packages", "units", "users", "groups", "listening sockets"} <= {
        compared["what"] for compared in report["compared"]
    }
    units = {unit["path"]: unit["text"] for unit in report["units"]}
    assert units["redis-server.service"] == "stopped"
    assert units["ours.service"] == "stopped"
    assert units["transient.service"] == "stopped"
    assert [text for text in report["warnings"] if text.startswith("ended sh ") and "of atd.service" in text]
    assert report["foreign"] == []


def test_from_no_session_one_is_opened(ext4_machine: Machine) -> None:
    """From a cron job or an agent's service: `su -` and `sudo` stay below the run's own session."""
    script = put(
        ext4_machine,
        """#!/bin/sh
tail -n 1 /proc/self/cgroup
su - -c 'tail -n 1 /proc/self/cgroup'
sudo tail -n 1 /proc/self/cgroup
su - -c 'setsid sleep 600 >/dev/null 2>&1 &'
echo 'WARNING: stop'
sleep 60
""",
    )
    result = ext4_machine.snapbreaker("run", "--", script, session=False)
    assert result.returncode == 1, result.stderr
    cgroups = [line for line in result.stdout.splitlines() if line.startswith("0::")]
    assert len(cgroups) == 3, result.stdout
    assert len(set(cgroups)) == 1
    assert "/user.slice/user-0.slice/session-" in cgroups[0]
    assert ext4_machine.run("pgrep", "-xa", "sleep").stdout == ""
