"""Services that others need, start or keep: nobody is lost when one of them stops for the sake of its files."""

from __future__ import annotations

from tests.lab.machine import Machine
from tests.system.scene import put, report, script, show, systemctl, unit, units_of, until

END = "\nexit 1\n"
IN_CONTAINER = r"""
d=/sys/fs/cgroup/lxc.payload.c1/system.slice/victim.service
mkdir -p $d
setsid sh -c "echo \$\$ >$d/cgroup.procs; exec sleep 7777" </dev/null >/dev/null 2>&1 &
cd /root
d=/sys/fs/cgroup/system.slice/cronlike.service
setsid sh -c "echo \$\$ >$d/cgroup.procs; exec sleep 6666" </dev/null >/dev/null 2>&1 &
"""
AUDITED = r"""
echo new >/etc/aud/aud.conf
kill $(systemctl show -p MainPID --value aud)
until [ "$(systemctl is-active aud)" = inactive ]; do sleep 0.05; done
systemctl start aud
"""


def pid_of(machine: Machine, name: str) -> str:
    return show(machine, name, "MainPID").strip()


def test_what_depends_on_a_stopped_service_comes_back(ext4_machine: Machine) -> None:
    """In a rollback of a committed run they are none of the run's; the same when it is taken back."""
    put(ext4_machine, "/srv/db/data", "1\n")
    unit(ext4_machine, "db", more="WorkingDirectory=/srv/db")
    unit(ext4_machine, "app", more="[Unit]\nRequires=db.service\nAfter=db.service")
    unit(ext4_machine, "asks", more="[Unit]\nBindsTo=app.service\nAfter=app.service")
    put(ext4_machine, "/usr/lib/systemd/system/db.socket", "[Socket]\nListenStream=/run/db\n")
    systemctl(ext4_machine, "daemon-reload")
    systemctl(ext4_machine, "start", "db.socket", "asks")
    change = script(ext4_machine, "echo 2 >/srv/db/data\n")
    assert ext4_machine.snapbreaker("run", "--", change).returncode == 0
    for words, data in ((), "1\n"), (("--redo",), "2\n"):
        pid = pid_of(ext4_machine, "db")
        result = ext4_machine.snapbreaker("rollback", "--last", *words, "--yes")
        assert result.returncode == 0, result.stderr
        assert (ext4_machine.root / "srv/db/data").read_text() == data
        assert systemctl(ext4_machine, "is-active", "db.socket", "db", "app", "asks") == "active\n" * 4
        assert pid_of(ext4_machine, "db") != pid


def test_bystanders_of_a_unit_are_not_killed_and_refusals_are_told(ext4_machine: Machine) -> None:
    unit(ext4_machine, "victim")
    unit(ext4_machine, "cronlike", more="KillMode=process")
    put(ext4_machine, "/etc/aud/aud.conf", "old\n")
    unit(ext4_machine, "aud", "sh -c 'exec sleep 1000'", "[Unit]\nRefuseManualStop=yes")
    systemctl(ext4_machine, "daemon-reload")
    systemctl(ext4_machine, "start", "cronlike", "aud")
    ext4_machine.run("sh", "-c", IN_CONTAINER)
    until(ext4_machine, "pgrep -fx 'sleep 7777' && pgrep -fx 'sleep 6666'")
    cron = pid_of(ext4_machine, "cronlike")
    result = ext4_machine.snapbreaker(
        "run", "--", script(ext4_machine, "systemctl start victim; echo >/root/x" + END)
    )
    assert result.returncode == 1, result.stderr
    assert units_of(report(ext4_machine)) == {"victim.service": "stopped"}
    assert ext4_machine.run("sh", "-c", "pgrep -fx 'sleep 7777' && pgrep -fx 'sleep 6666'").returncode == 0
    assert pid_of(ext4_machine, "cronlike") == cron
    result = ext4_machine.snapbreaker("run", "--", script(ext4_machine, AUDITED + END))
    assert result.returncode == 3, result.stderr
    assert "aud.service cannot be restarted" in result.stderr


EFFECTS = r"""
echo new >/etc/fw.conf
systemctl restart fw
mkdir /etc/systemd/system/door.socket.d
printf '[Socket]\nListenStream=\nListenStream=7002\n' >/etc/systemd/system/door.socket.d/port.conf
systemctl daemon-reload
systemctl stop door.service door.socket
systemctl start door.socket door.service
sleep 2.5
"""


def test_effects_ports_and_units_on_their_way(ext4_machine: Machine) -> None:
    """A firewall's rules and a socket's port are those of the old configuration; who is failing all day may."""
    put(ext4_machine, "/etc/fw.conf", "old\n")
    unit(ext4_machine, "fw", "cp /etc/fw.conf /run/rules", "Type=oneshot\nRemainAfterExit=yes")
    put(ext4_machine, "/usr/lib/systemd/system/door.socket", "[Socket]\nListenStream=7001\n")
    unit(ext4_machine, "door")
    unit(ext4_machine, "flap", "/bin/false", "Restart=always\nRestartSec=2\n[Unit]\nStartLimitIntervalSec=0")
    systemctl(ext4_machine, "daemon-reload")
    systemctl(ext4_machine, "start", "fw", "door.socket", "door.service")
    systemctl(ext4_machine, "start", "--no-block", "flap")
    until(ext4_machine, "[ $(systemctl is-active flap) = activating ]")
    result = ext4_machine.snapbreaker("run", "--", script(ext4_machine, EFFECTS + END))
    assert result.returncode == 1, result.stderr
    assert (ext4_machine.root / "etc/fw.conf").read_text() == "old\n"
    assert ext4_machine.run("cat", "/run/rules", session=False).stdout == "old\n"
    assert ext4_machine.run("ss", "-Hlnt", session=False).stdout.count(":7001") == 1
    assert systemctl(ext4_machine, "is-active", "door.socket", "door.service") == "active\n" * 2
    until(ext4_machine, "[ $(systemctl is-active flap) = activating ]")
    assert "flap.service" not in units_of(report(ext4_machine))
