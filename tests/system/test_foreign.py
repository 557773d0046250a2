"""What others write while a run goes on: saved and told when it goes back, or it stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests import comparer
from tests.lab.machine import Machine
from tests.system.scene import put, report, script, until

END = "\necho 'ERROR: enough'\nsleep 60\n"
# The run says when it has begun, and waits until the others are done.
RUN = "touch /tmp/begun\nwhile [ ! -e /tmp/written ]; do sleep 0.02; done\n"
HOSTILE = [b"new\nline", b"invalid\xff\xfe", b"*?[a]`$(x)`", " ünï ".encode()]


def others(machine: Machine) -> None:
    """A mail, an upload by a temporary file, an edit in place, hostile names; as somebody else's commands."""
    machine.run(
        "sh",
        "-ec",
        r"""
        echo 'second mail' >>/var/mail/bob
        echo 'uploaded' >/srv/upload/.part; chown 1234:1234 /srv/upload/.part; chmod 640 /srv/upload/.part
        mv /srv/upload/.part /srv/upload/whole
        echo 'new words' >/etc/motd.new; mv /etc/motd.new /etc/motd; sleep 0.2
        """,
        session=False,
    )
    # It lives a little longer, as a server does: who is gone at once, with an unknown parent, counts as the run.
    write = 'for name; do echo "$name" >"/srv/upload/$name"; done; sleep 0.3'
    machine.run("sh", "-c", write, "sh", *HOSTILE, session=False)


def prepared(machine: Machine) -> None:
    put(machine, "/var/mail/bob", "first mail\n", 0o660)
    put(machine, "/etc/motd", "old words\n")
    (machine.root / "srv/upload").mkdir()


WRITTEN = [
    b"/var/mail/bob",
    b"/srv/upload/whole",
    b"/etc/motd",
    *(b"/srv/upload/" + name for name in HOSTILE),
]


def during(machine: Machine, change: str, *options: str) -> tuple[int, str]:
    """Run the script ``change`` behind the breaker, with the others at work meanwhile."""
    run = machine.start("snapbreaker", "run", *options, "--", change)
    until(machine, "test -e /tmp/begun")
    others(machine)
    machine.run("touch", "/tmp/written", session=False)
    _, error = run.communicate(timeout=60)
    return run.returncode, error.decode(errors="surrogateescape")


def foreign(told: dict[str, Any]) -> dict[bytes, str]:
    return {os.fsencode(one["path"]): one["text"] for one in told["foreign"]}


def saved(machine: Machine, path: bytes) -> bytes:
    (record,) = (machine.root / "var/lib/snapbreaker").glob("0*-*")
    return Path(os.fsdecode(os.path.join(os.fsencode(record), b"saved", path.lstrip(b"/")))).read_bytes()


def test_it_goes_back_and_is_saved(machine: Machine) -> None:
    prepared(machine)
    change = script(machine, RUN + "echo x >/srv/upload/ours" + END)
    before = machine.snapshot()
    code, error = during(machine, change)
    assert code == 1, error
    assert comparer.differences(before, machine.snapshot()) == []
    told = report(machine)
    assert told["issue"]["line"] == "ERROR: enough"
    found = foreign(told)
    assert sorted(found) == sorted(WRITTEN)
    assert "sh (pid " in found[b"/srv/upload/whole"] or "sh, " in found[b"/srv/upload/whole"]
    assert "sh (pid " in found[b"/etc/motd"]
    assert all("saved as /var/lib/snapbreaker/" in text for text in found.values()), found
    assert saved(machine, b"/var/mail/bob") == b"first mail\nsecond mail\n"
    assert saved(machine, b"/srv/upload/whole") == b"uploaded\n"
    assert saved(machine, b"/etc/motd") == b"new words\n"
    for name in HOSTILE:
        assert saved(machine, b"/srv/upload/" + name) == name + b"\n"
    for text in (error, machine.snapbreaker("report", "--last", "--format", "markdown", session=False).stdout):
        assert "/srv/upload/whole" in text
        assert "/var/mail/bob" in text
    assert "invalid\\xff\\xfe" in error
    assert "new\nline" not in error


def test_it_may_stay(machine: Machine) -> None:
    prepared(machine)
    change = script(machine, RUN + "echo x >/srv/upload/ours; echo x >>/etc/issue" + END)
    before = machine.snapshot()
    code, error = during(machine, change, "--foreign", "keep")
    assert code == 1, error
    now = machine.snapshot()
    assert {path for path in now.keys() | before.keys() if now.get(path) != before.get(path)} - {
        b"srv/upload",
        b"etc",
        b"var/mail",
    } == {path[1:] for path in WRITTEN}
    whole = now[b"srv/upload/whole"]
    assert (whole.mode, whole.uid, whole.gid) == (0o640, 1234, 1234)
    assert (machine.root / "var/mail/bob").read_text() == "first mail\nsecond mail\n"
    assert now[b"etc/issue"] == before[b"etc/issue"]
    told = report(machine)
    assert told["differences"] == []
    assert {text.rpartition("; ")[2] for text in foreign(told).values()} == {"stays"}


def test_both_wrote_it(ext4_machine: Machine) -> None:
    """A file that the run has written too goes back with the rest; what others put there is not passed over."""
    prepared(ext4_machine)
    change = script(ext4_machine, "echo run >>/var/mail/bob\n" + RUN + "echo run >>/etc/motd" + END)
    before = ext4_machine.snapshot()
    code, error = during(ext4_machine, change, "--foreign", "keep")
    assert code == 1, error
    now = ext4_machine.snapshot()
    assert now[b"var/mail/bob"] == before[b"var/mail/bob"]
    assert now[b"etc/motd"] == before[b"etc/motd"]
    found = foreign(report(ext4_machine))
    assert sorted(found) == sorted(WRITTEN)
    for path in (b"/var/mail/bob", b"/etc/motd"):
        assert "by the run too" in found[path], found[path]
    assert saved(ext4_machine, b"/var/mail/bob") == b"first mail\nrun\nsecond mail\n"
    assert saved(ext4_machine, b"/etc/motd") == b"new words\nrun\n"


def test_in_a_directory_that_the_run_made(ext4_machine: Machine) -> None:
    change = script(ext4_machine, "mkdir /srv/made; echo run >/srv/made/ours\n" + RUN + END)
    before = ext4_machine.snapshot()
    for option in ("restore", "keep"):
        ext4_machine.run("rm", "-f", "/tmp/begun", "/tmp/written")
        run = ext4_machine.start("snapbreaker", "run", "--foreign", option, "--", change)
        until(ext4_machine, "test -e /tmp/begun")
        text = "echo theirs >/srv/made/theirs; sleep 0.3; touch /tmp/written"
        ext4_machine.run("sh", "-c", text, session=False)
        assert run.wait(60) == 1
        if option == "restore":
            assert comparer.differences(before, ext4_machine.snapshot()) == []
            assert saved(ext4_machine, b"/srv/made/theirs") == b"theirs\n"
    assert ext4_machine.run("ls", "/srv/made").stdout == "theirs\n"
    assert [path for path in ext4_machine.snapshot() if path not in before] == [b"srv/made", b"srv/made/theirs"]


def test_a_commit_does_not_make_it_the_runs(ext4_machine: Machine) -> None:
    prepared(ext4_machine)
    change = script(ext4_machine, RUN + "echo x >/srv/upload/ours; echo x >>/etc/issue")
    before = ext4_machine.snapshot()
    code, error = during(ext4_machine, change)
    assert code == 0, error
    assert sorted(foreign(report(ext4_machine))) == sorted(WRITTEN)
    back = ext4_machine.snapbreaker("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stderr
    now = ext4_machine.snapshot()
    differing = {path for path in now.keys() | before.keys() if now.get(path) != before.get(path)}
    assert differing - {b"srv/upload", b"etc", b"var/mail"} == {path[1:] for path in WRITTEN}


LOGS = r"""
echo 'by the run' >>/var/log/grows.log
echo 'by the run' >/var/log/made.log
mkdir /var/log/ours; echo 'by the run' >/var/log/ours/made.log
logger 'a line of the run' || echo 'a line of the run' | systemd-cat
"""
ROTATE = """
echo grown >>/var/log/rotated.log
mv /var/log/rotated.log /var/log/rotated.log.1
echo fresh >/var/log/rotated.log
sleep 0.3
touch /tmp/written
"""


def test_logs(machine: Machine) -> None:
    """Growth stays, rotation stays; what the run made there moves into the record, and journald goes on."""
    for name in ("grows", "rotated"):
        put(machine, f"/var/log/{name}.log", "before\n")
    (machine.root / "var/log/journal").mkdir(exist_ok=True)
    machine.run("systemctl", "restart", "systemd-journald")
    machine.run("journalctl", "--flush")
    change = script(machine, RUN + LOGS + END)
    before = machine.snapshot()
    run = machine.start("snapbreaker", "run", "--", change)
    until(machine, "test -e /tmp/begun")
    machine.run("sh", "-c", ROTATE, session=False)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1, error
    logs = machine.root / "var/log"
    assert (logs / "grows.log").read_text() == "before\nby the run\n"
    assert (logs / "rotated.log.1").read_text() == "before\ngrown\n"
    assert (logs / "rotated.log").read_text() == "fresh\n"
    assert not (logs / "made.log").exists()
    assert not (logs / "ours").exists()
    assert saved(machine, b"/var/log/made.log") == b"by the run\n"
    assert saved(machine, b"/var/log/ours/made.log") == b"by the run\n"
    assert comparer.differences(before, machine.snapshot()) == []
    machine.run("sh", "-c", "echo 'a line of later' | systemd-cat", session=False)
    until(machine, "journalctl --sync; journalctl -b --no-pager | grep -q 'a line of later'")
    journal = machine.run("journalctl", "-b", "--no-pager", session=False).stdout
    assert "a line of the run" in journal
    assert machine.run("journalctl", "--verify", session=False).returncode == 0


def test_after_the_death_of_all(ext4_machine: Machine) -> None:
    prepared(ext4_machine)
    change = script(ext4_machine, RUN + "echo x >/srv/upload/ours; touch /tmp/done; sleep 60")
    before = ext4_machine.snapshot()
    run = ext4_machine.start("snapbreaker", "run", "--", change)
    until(ext4_machine, "test -e /tmp/begun")
    others(ext4_machine)
    ext4_machine.run("touch", "/tmp/written", session=False)
    until(ext4_machine, "test -e /tmp/done")
    # All of its processes at once, so that none can finish for another.
    ext4_machine.run(
        "sh", "-c", "kill -KILL $(pgrep -f '^[^ ]*python3.* /usr/local/bin/snapbreaker run')", session=False
    )
    assert run.wait(20) in (137, -signal.SIGKILL)
    back = ext4_machine.snapbreaker("recover")
    assert back.returncode == 0, back.stderr
    assert comparer.differences(before, ext4_machine.snapshot()) == []
    told = report(ext4_machine)
    assert told["verb"] == "recover", told
    assert sorted(foreign(told)) == sorted(WRITTEN)
    assert saved(ext4_machine, b"/srv/upload/whole") == b"uploaded\n"
