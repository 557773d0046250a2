"""Services that work on what a run changes: they run on the old files again, and nobody loses a byte."""

from __future__ import annotations

import signal

from tests import comparer
from tests.lab import debs
from tests.lab.debs import File, Package
from tests.lab.machine import Machine
from tests.system.facts import facts, processes
from tests.system.scene import put, report, script, show, started, systemctl, unit, units_of, until

END = "\necho 'ERROR: enough'\nsleep 60\n"

# Answers with its configuration, which it reads at a start and a reload, and its library, which it imports.
ANSWERD = r"""#!/usr/bin/python3
import signal, socket, sys
sys.path.insert(0, "/usr/lib/answer")
import greeting
def read(*_):
    global text
    text = open("/etc/answer/answer.conf").read().strip()
read()
signal.signal(signal.SIGHUP, read)
server = socket.create_server(("127.0.0.1", 4711))
while True:
    client, _ = server.accept()
    client.sendall(f"{greeting.WORD} {text}\n".encode())
    client.close()
"""
ANSWER = Package(
    "answer",
    files={
        "/etc/answer/answer.conf": "old\n",
        "/usr/sbin/answerd": File(ANSWERD),
        "/usr/lib/answer/greeting.py": "WORD = 'hello'\n",
        "/lib/systemd/system/answer.service": "[Service]\nExecStart=/usr/sbin/answerd\n"
        "ExecReload=kill -HUP $MAINPID\n[Install]\nWantedBy=multi-user.target\n",
    },
    conffiles=("/etc/answer/answer.conf",),
)
ASK = "import socket; print(socket.create_connection(('127.0.0.1', 4711)).makefile().read())"


def answer(machine: Machine) -> str:
    until(machine, f'python3 -c "{ASK}"')
    return machine.run("python3", "-c", ASK, session=False).stdout.strip()


def with_answer(machine: Machine) -> None:
    deb = debs.build(ANSWER, machine.root / "root")
    result = machine.run("dpkg", "-i", f"/root/{deb.name}", session=False)
    assert result.returncode == 0, result.stderr
    started(machine, "answer")
    assert answer(machine) == "hello old"


def pid_of(machine: Machine, name: str) -> str:
    return show(machine, name, "MainPID").strip()


def test_configuration_and_code_are_the_old_ones_again(machine: Machine) -> None:
    """Package-owned configuration, a module of a package, a program and a library of no package."""
    with_answer(machine)
    machine.run("cp", "/bin/sleep", "/usr/local/bin/napper")
    machine.run("sh", "-c", "cp /lib/*/libm.so.6 /usr/local/lib/libours.so")
    unit(machine, "napper", "/usr/local/bin/napper 1000")
    load = "import ctypes, time; ctypes.CDLL('/usr/local/lib/libours.so'); time.sleep(1000)"
    unit(machine, "loader", f'/usr/bin/python3 -c "{load}"')
    unit(machine, "bystander")
    started(machine, "napper", "loader", "bystander")
    change = script(
        machine,
        r"""
echo new >/etc/answer/answer.conf
systemctl reload answer
echo "WORD = 'bye'" >/usr/lib/answer/greeting.py
systemctl restart answer
cp /bin/sleep /usr/local/bin/napper.new
echo >>/usr/local/bin/napper.new
mv /usr/local/bin/napper.new /usr/local/bin/napper
systemctl restart napper
cp /usr/local/lib/libours.so /usr/local/lib/libours.new
mv /usr/local/lib/libours.new /usr/local/lib/libours.so
"""
        + END,
    )
    system, running, other = facts(machine), processes(machine), pid_of(machine, "bystander")
    before = machine.snapshot()  # after apt-mark(8), which writes a cache
    result = machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    assert answer(machine) == "hello old"
    done = units_of(report(machine))
    assert report(machine)["issue"]["line"] == "ERROR: enough"
    assert set(done) == {"answer.service", "napper.service", "loader.service"}, done
    assert all(text.startswith("restarted: ") for text in done.values()), done
    assert pid_of(machine, "bystander") == other
    assert comparer.differences(before, machine.snapshot()) == []
    assert system.differences(facts(machine)) == {}
    assert processes(machine) == running
    mapped = machine.run("sh", "-c", "cat /proc/[0-9]*/maps | grep -e snapbreaker/ -e deleted", session=False)
    assert mapped.stdout == ""


def test_a_reload_alone_is_undone_too(ext4_machine: Machine) -> None:
    with_answer(ext4_machine)
    pid = pid_of(ext4_machine, "answer")
    change = script(ext4_machine, "echo new >/etc/answer/answer.conf; systemctl reload answer" + END)
    assert ext4_machine.snapbreaker("run", "--", change).returncode == 1
    assert answer(ext4_machine) == "hello old"
    assert pid_of(ext4_machine, "answer") != pid
    # Of a committed run the same, there and back.
    again = script(ext4_machine, "echo new >/etc/answer/answer.conf; systemctl reload answer")
    assert ext4_machine.snapbreaker("run", "--", again).returncode == 0
    assert answer(ext4_machine) == "hello new"
    for words, said in (("--last",), "hello old"), (("--last", "--redo"), "hello new"):
        back = ext4_machine.snapbreaker("rollback", *words, "--yes")
        assert back.returncode == 0, back.stderr
        assert answer(ext4_machine) == said


# Has its file open all the time; writes to it when told, and when it ends.
LEDGER = r"""#!/usr/bin/python3
import os, signal
file = open("/srv/ledger/book", "r+b", 0)
file.seek(0, os.SEEK_END)
def note(number, _):
    file.write(f"signal {number}\n".encode())
    if number == signal.SIGTERM:
        os._exit(0)
signal.signal(signal.SIGUSR1, note)
signal.signal(signal.SIGTERM, note)
while True:
    signal.pause()
"""
# Writes all the time, in transactions.
SHOP = r"""#!/usr/bin/python3
import sqlite3, time
base = sqlite3.connect("/srv/shop/base", isolation_level=None, timeout=20)
base.execute("pragma journal_mode=wal")
while True:
    base.execute("begin immediate")
    base.execute("insert into sales values ('customer', 1)")
    base.execute("update stock set left = left - 1")
    base.execute("commit")
    time.sleep(0.01)
"""
SOLD = r"""
import sqlite3
base = sqlite3.connect("/srv/shop/base")
check = base.execute("pragma integrity_check").fetchone()[0]
(sales, wrong, left), = base.execute(
    "select count(*), count(*) filter (where who != 'customer'), (select left from stock) from sales")
print(check, sales + left, wrong)
"""
BROKEN = r"""
import sqlite3
base = sqlite3.connect("/srv/shop/base", isolation_level=None, timeout=20)
base.execute("delete from sales")
base.execute("insert into sales values ('run', 1)")
base.execute("pragma wal_checkpoint")
"""


def test_who_has_its_files_open_is_stopped_while_they_go_back(machine: Machine) -> None:
    for name, text in ("ledger", LEDGER), ("shop", SHOP):
        put(machine, f"/usr/local/sbin/{name}", text, 0o755)
        unit(machine, name, f"/usr/local/sbin/{name}")
        (machine.root / "srv" / name).mkdir()
    put(machine, "/srv/ledger/book", "opened\n")
    put(machine, "/srv/base/table", "row 1\n")
    unit(machine, "base", "sleep 1000", "WorkingDirectory=/srv/base")
    make = "import sqlite3; b = sqlite3.connect('/srv/shop/base', isolation_level=None); "
    make += "b.executescript('create table sales(who, n); create table stock(left); insert into stock values (0)')"
    assert machine.run("python3", "-c", make).returncode == 0
    started(machine, "ledger", "shop", "base")
    until(machine, "test -e /srv/shop/base-wal")
    put(machine, "/root/broken.py", BROKEN)
    change = script(
        machine,
        r"""
systemctl kill --signal=USR1 ledger
echo 'written by the run' >>/srv/ledger/book
python3 /root/broken.py
echo 'row 2' >>/srv/base/table
sleep 0.2
"""
        + END,
    )
    pids = {name: pid_of(machine, name) for name in ("ledger", "shop", "base")}
    before, system, running = machine.snapshot([b"srv/shop"]), facts(machine), processes(machine)
    result = machine.snapbreaker("run", "--", change)
    assert result.returncode == 1, result.stderr
    told = report(machine)
    assert told["issue"]["line"] == "ERROR: enough"
    assert comparer.differences(before, machine.snapshot([b"srv/shop"])) == []
    assert system.differences(facts(machine)) == {}
    assert processes(machine) == running
    assert all(pid_of(machine, name) != pid for name, pid in pids.items())
    done = [(one["path"], one["text"]) for one in told["units"]]
    for name in pids:
        assert done.index((f"{name}.service", "stopped")) < done.index((f"{name}.service", "started"))
    assert machine.run("python3", "-c", SOLD, session=False).stdout == "ok 0 0\n"
    systemctl(machine, "kill", "--signal=USR1", "ledger")
    until(machine, f"grep -q 'signal {signal.SIGUSR1.value}' /srv/ledger/book")
    assert "written by the run" not in (machine.root / "srv/ledger/book").read_text()


AGENT = r"""#!/bin/sh
snapbreaker run -- /root/change.sh >/tmp/said 2>&1
echo $? >/tmp/code
exec sleep 1000
"""


def test_the_service_that_it_runs_in_is_left_alone(ext4_machine: Machine) -> None:
    put(ext4_machine, "/usr/local/sbin/agent", AGENT, 0o755)
    put(ext4_machine, "/etc/agent.conf", "old\n")
    put(ext4_machine, "/srv/agent/state", "old\n")
    unit(ext4_machine, "agent", "/usr/local/sbin/agent", "WorkingDirectory=/srv/agent")
    script(
        ext4_machine,
        r"""
echo new >/etc/agent.conf
echo new >/srv/agent/state
echo 'exit 1' >>/usr/local/sbin/agent
mkdir /etc/systemd/system/agent.service.d
printf '[Service]\nNice=5\n' >/etc/systemd/system/agent.service.d/nice.conf
systemctl daemon-reload
"""
        + END,
    )
    systemctl(ext4_machine, "daemon-reload")
    before = ext4_machine.snapshot()
    systemctl(ext4_machine, "start", "agent")
    pid = pid_of(ext4_machine, "agent")
    until(ext4_machine, "test -s /tmp/code", 40)
    said = ext4_machine.run("cat", "/tmp/code", "/tmp/said", session=False).stdout
    assert said.startswith("1\n"), said
    assert pid_of(ext4_machine, "agent") == pid
    told = report(ext4_machine)
    assert told["issue"]["line"] == "ERROR: enough"
    assert units_of(told) == {}
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    # As a transient unit, that ends with it. The agent would be started again, and begin another run.
    systemctl(ext4_machine, "stop", "agent")
    words = ("--unit=passing", "--wait", "--quiet", "--collect")
    result = ext4_machine.run("systemd-run", *words, "snapbreaker", "run", "--", "/root/change.sh", session=False)
    assert result.returncode == 1, result.stderr
    assert report(ext4_machine)["issue"]["line"] == "ERROR: enough"
    assert comparer.differences(before, ext4_machine.snapshot()) == []


def test_who_logs_in_meanwhile_is_left_alone(ext4_machine: Machine) -> None:
    ext4_machine.run("useradd", "--create-home", "--shell", "/bin/sh", "bob")
    change = script(ext4_machine, "touch /tmp/begun; sleep 2; echo x >/etc/new" + END)
    before, system = ext4_machine.snapshot(), facts(ext4_machine)
    run = ext4_machine.start("snapbreaker", "run", "--", change)
    until(ext4_machine, "test -e /tmp/begun")
    note = "exec >>notes 2>&1; echo hello; touch /run/user/$(id -u)/mine; sleep 500; echo ended"
    login = ext4_machine.start("su", "--login", "bob", "-c", note, session=False)
    root = ext4_machine.start("sh", "-c", "echo $$ >/tmp/root; exec sleep 501")
    until(ext4_machine, "pgrep -x -u bob sleep && test -e /run/user/$(id -u bob)/mine && test -s /tmp/root")
    assert run.wait(60) == 1
    assert login.poll() is None
    assert root.poll() is None
    assert ext4_machine.run("pgrep", "-xa", "sleep", session=False).stdout.split()[1::3] == ["sleep"] * 2
    until(ext4_machine, "test -e /run/user/$(id -u bob)/mine")
    sessions = ext4_machine.run("loginctl", "list-sessions", "--no-legend", session=False).stdout
    assert "bob" in sessions
    assert "root" in sessions
    user = ext4_machine.run("id", "-u", "bob", session=False).stdout.strip()
    assert ext4_machine.run("systemctl", "is-active", f"user@{user}", session=False).stdout == "active\n"
    told = report(ext4_machine)
    assert told["issue"]["line"] == "ERROR: enough"
    assert units_of(told) == {}
    assert [one["path"] for one in told["foreign"]] == ["/home/bob/notes"]
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    assert system.differences(facts(ext4_machine)) == {}
