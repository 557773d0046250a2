"""The kernel's state: what is read, compared and told. That it goes back is in tests/system and tests/vm."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from snapbreaker.linux import netlink
from snapbreaker.linux.netlink import Message, attribute, attributes, nested, without
from snapbreaker.linux.process import boot_id
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel import expressions, kinds, links, nftables, routes, swap, sysctl
from snapbreaker.system.kernel.connections import Connections
from snapbreaker.system.kernel.kind import Kind, Old
from snapbreaker.system.state import AFTER, BEFORE, HELD, UNITS, SystemState
from snapbreaker.system.target import Target


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of settings that a user may write."""
    files = {
        "kernel/printk": "4\t4\t1\t7\n",
        "kernel/random/uuid": "1-2-3\n",
        "kernel/tainted": "0\n",
        "net/ipv4/ip_local_reserved_ports": "\n",
        "net/ipv4/conf/eth0.5/rp_filter": "1\n",
        "net/ipv6/conf/eth0/mtu": "1500\n",
        "net/ipv6/conf/all/mtu": "1280\n",
        "vm/drop_caches": "0\n",
        "vm/swappiness": "60\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sysctl, "SETTINGS", str(tmp_path))
    return tmp_path


def test_settings_that_are_read(settings: Path) -> None:
    """Not what changes by itself, what does something when it is written, what cannot be taken back."""
    assert sysctl.read()[0] == {
        "kernel.printk": "4\t4\t1\t7",
        "net.ipv4.ip_local_reserved_ports": "(empty)",
        "net.ipv4.conf.eth0.5.rp_filter": "1",
        "net.ipv6.conf.all.mtu": "1280",
        "vm.swappiness": "60",
    }


def test_settings_go_back_and_what_refuses_is_told(settings: Path) -> None:
    (settings / "net/ipv4/ip_local_reserved_ports").write_text("8080\n")
    changes = [
        Changed("sysctl", "net.ipv4.ip_local_reserved_ports", "(empty)", "8080"),
        Changed("sysctl", "net.ipv4.conf.eth0.5.rp_filter", "2", "1"),
        Changed("sysctl", "vm.gone", "1", "2"),
        Changed("sysctl", "vm.came", "", "2"),
    ]
    refused = sysctl.put_back(changes, Old({}))
    assert refused == {"vm.gone": "No such file or directory"}
    assert (settings / "net/ipv4/ip_local_reserved_ports").read_text() == "\n"
    assert (settings / "net/ipv4/conf/eth0.5/rp_filter").read_text() == "2\n"
    assert not kinds.counts(changes[3])
    (settings / "kernel/printk").chmod(0o444)
    assert not kinds.counts(Changed("sysctl", "kernel.printk", "1", "2"))
    assert kinds.counts(Changed("sysctl", "vm.swappiness", "1", "2"))


def test_swap_areas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A priority that the kernel has chosen is below zero, and another one after each swapon."""
    (tmp_path / "swaps").write_bytes(
        b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        b"/dev/sda2                               partition\t1000\t\t0\t\t-2\n"
        b"/swap\\040file                            file\t1000\t\t0\t\t5\n"
    )
    monkeypatch.setattr(swap, "AREAS", str(tmp_path / "swaps"))
    assert swap.read()[0] == {"/dev/sda2": "partition", "/swap file": "file, priority 5"}
    monkeypatch.setattr(swap, "AREAS", str(tmp_path / "none"))
    assert swap.read() == ({}, {})
    gone = Changed("swap", "/no/such (deleted)", "", "file")
    assert swap.turn_off([gone]) == {"/no/such (deleted)": "its file has no name any more"}


def test_attributes() -> None:
    data = attribute(1, b"eth0\0") + nested(18, attribute(1, b"bridge\0")) + attribute(4, b"\1\2\3\4")
    assert [type_ for type_, _ in attributes(data)] == [1, 18, 4]
    assert netlink.text(dict(attributes(data))[1]) == "eth0"
    assert without(data, [1, 4]) == nested(18, attribute(1, b"bridge\0"))
    assert without(data, []) == data
    for cut in range(len(data)):  # nonsense ends it, and raises nothing
        list(attributes(data[:cut]))
        without(data[:cut], [4])
    assert list(attributes(b"\0" * 8)) == []
    assert len(Message(1, b"odd").packed(1)) % 4 == 0


def expression(name: bytes, data: bytes) -> bytes:
    return nested(1, attribute(1, name + b"\0") + nested(2, data))


def rule(*listed: bytes) -> bytes:
    return attribute(1, b"filter\0") + nested(4, b"".join(listed))


def test_what_a_rule_has_counted_does_not_count() -> None:
    def counted(packets: int) -> bytes:
        return rule(
            expression(b"counter", attribute(2, struct.pack(">Q", packets))), expression(b"cmp", b"\0" * 4)
        )

    assert expressions.plain_rule(counted(1)) == expressions.plain_rule(counted(2))
    assert expressions.plain_rule(counted(1)) != expressions.plain_rule(rule(expression(b"cmp", b"\0" * 4)))


def test_what_a_named_counter_or_quota_has_counted_does_not_count() -> None:
    def made(kind: int, *data: bytes) -> bytes:
        return attribute(2, b"name\0") + attribute(3, struct.pack(">I", kind)) + nested(4, b"".join(data))

    def numbers(one: int, other: int) -> bytes:
        return attribute(1, struct.pack(">Q", one)) + attribute(4, struct.pack(">Q", other))

    plain = expressions.plain_object
    assert plain(made(1, numbers(1, 1))) == plain(made(1, numbers(2, 2)))
    assert plain(made(2, numbers(1, 1))) == plain(made(2, numbers(1, 2))) != plain(made(2, numbers(2, 2)))
    assert plain(made(4, numbers(1, 1))) != plain(made(4, numbers(1, 2)))


def test_the_protocol_that_a_match_of_iptables_is_for() -> None:
    number = struct.Struct(">I").pack
    meta = expression(b"meta", attribute(2, number(16)) + attribute(1, number(1)))
    field = attribute(2, number(1)) + attribute(3, number(9)) + attribute(4, number(1))
    payload = expression(b"payload", field)
    other = expression(b"payload", attribute(2, number(1)) + attribute(3, number(12)) + attribute(4, number(4)))
    match = expression(b"match", attribute(1, b"multiport\0"))

    def compared(operation: int) -> bytes:
        return expression(b"cmp", attribute(2, number(operation)) + nested(3, attribute(1, b"\6")))

    tcp, no_tcp = (nested(5, attribute(1, number(6)) + attribute(2, number(flags))) for flags in (0, 2))
    assert expressions.compatible(rule(meta, compared(0), match)) == tcp
    assert expressions.compatible(rule(payload, compared(0), match)) == tcp
    assert expressions.compatible(rule(payload, compared(1), match)) == no_tcp
    assert expressions.compatible(rule(other, compared(0), match)) == b""
    assert expressions.compatible(rule(payload, compared(0))) == b""


def test_a_peer_that_only_the_new_route_reaches() -> None:
    connections = Connections(frozenset({"192.0.2.5"}), frozenset({"203.0.113.9", "2001:db8::1"}))
    assert connections.go_by("203.0.113.0/24", ["192.0.2.0/24", "::/0"])
    assert not connections.go_by("203.0.113.0/24", ["0.0.0.0/0"])
    assert not connections.go_by("198.51.100.0/24", [])
    assert connections.go_by("::/0", ["fd00::/8"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default via 192.0.2.1 dev eth0", "0.0.0.0/0"),
        ("default6 via fd00::1 dev eth0 metric 1024", "::/0"),
        ("10.0.0.0/8 dev eth0", "10.0.0.0/8"),
        ("blackhole 10.9.0.0/16", "10.9.0.0/16"),
    ],
)
def test_where_a_route_goes(name: str, expected: str) -> None:
    assert routes._destination(name) == expected


def test_all_of_it_can_be_read_here() -> None:
    """By any user; each name has a state that is not empty, which would mean that it is not there."""
    tables, contents = kinds.read()
    assert "lo" in tables["links"]
    assert tables["names"]["hostname"] == os.uname().nodename
    for table, names in tables.items():
        assert table in kinds.TABLES
        assert "" not in names.values()
    assert all(any(name.startswith(f"{table} ") for table in tables) for name in contents)
    assert links.index_of("lo") == 1
    with pytest.raises(OSError, match="No such device"):
        links.index_of("no such link")


def test_one_kind_that_fails_keeps_none_of_the_others() -> None:
    state = {"a": "2"}

    def fails(*_: object) -> dict[str, str]:
        raise OSError(1, "Operation not permitted")

    def works(changes: object, old: Old) -> dict[str, str]:
        state["a"] = old.contents["a"]
        return {}

    first, second = (
        Kind("names", "", lambda: (dict(state), {}), fails),
        Kind("sysctl", "x", lambda: (dict(state), {}), works),
    )

    def differences(table: str, now: dict[str, str]) -> list[Changed]:
        return [] if now["a"] == "1" else [Changed(table, "a", "1", now["a"])]

    back = kinds.put_back(differences, {"sysctl a": "1"}, 0.0, (first, second))
    assert back.refused == ["names could not be put back: Operation not permitted"]
    assert [one.table for one in back.done] == ["sysctl"]


def test_of_a_committed_or_held_run_only_what_it_left(tmp_path: Path) -> None:
    """What somebody has changed since stays; of a unit it does not count, which is stopped or started again."""
    before = SystemState(boot_id(), 1.0, {"names": {"hostname": "a", "domainname": "x"}, UNITS: {"u": "active"}})
    made = SystemState(boot_id(), 1.0, {"names": {"hostname": "b", "domainname": "y"}, UNITS: {}})
    before.save(tmp_path / BEFORE)
    made.save(tmp_path / AFTER)
    now = {"hostname": "b", "domainname": "z"}
    for undo in (True, False):
        assert [one.name for one in Target.of(tmp_path, undo).of_table("names", now)][-1:] == ["hostname"]
    assert len(Target.of(tmp_path, False).of_table("names", now)) == 2
    made.save(tmp_path / HELD)
    assert [one.name for one in Target.of(tmp_path, False).of_table("names", now)] == ["hostname"]
    assert Target.of(tmp_path, True).of_table("modules", {"m": "loaded"}) == []


def test_rules_of_blocks_come_first() -> None:
    """A chain that a rule is bound to takes no more rules."""

    def made(type_: int, *attrs: bytes) -> tuple[int, int, bytes]:
        return type_, 0, b"\1\0\0\0" + b"".join(attrs)

    block = attribute(3, b"__chain0\0") + attribute(10, struct.pack(">I", 4))
    listed = [
        made(3, attribute(3, b"input\0")),
        made(3, block),
        made(6, attribute(2, b"input\0")),
        made(6, attribute(2, b"__chain0\0")),
    ]
    wanted = [listed[0], listed[1], listed[3], listed[2]]
    nftables._blocks_first(listed)
    assert listed == wanted
