"""What a run does to the kernel's state is undone: settings, rules of packets, links, addresses, routes, names.

A container has a network and a name of its own; swap, modules and settings of the whole kernel are in tests/vm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import firewall
from tests.lab.machine import Machine
from tests.system.facts import kernel, said
from tests.system.judge import kill_snapbreaker
from tests.system.scene import put, report, script, until

NETWORK = """
ip link add br7 type bridge; ip link set br7 up
ip addr add 192.0.2.5/24 dev br7; ip addr add 192.0.2.6/24 dev br7 label br7:1
ip addr add 198.51.100.7/24 dev br7 valid_lft 5000 preferred_lft 4000; ip -6 addr add fd00::5/64 dev br7 nodad
ip route add default via 192.0.2.1; ip route add 10.0.0.0/8 via 192.0.2.9 metric 50 mtu 1300
ip route add blackhole 10.9.0.0/16; ip route add 172.16.0.0/12 via 192.0.2.1 table 100
ip -6 route add default via fd00::1; ip rule add from 10.1.0.0/16 lookup 100 prio 1000
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.br7.rp_filter=2
nft -f /root/rules.nft
iptables -P FORWARD DROP; iptables -N OURS; iptables -A FORWARD -o br7 -j OURS
iptables -A INPUT -p tcp -m multiport --dports 22,80 -m comment --comment hi -j ACCEPT
iptables -A INPUT ! -p udp -m limit --limit 5/min -j LOG --log-prefix x
iptables -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
ip6tables -A INPUT -p tcp -m multiport --sports 1:9 -j REJECT
"""
RULES = """
table inet guard {
  set allow { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.0/24 } }
  set seen { type ipv4_addr; size 100; flags dynamic,timeout; timeout 1h; elements = { 1.2.3.4 } }
  set pairs { type ipv4_addr . inet_service; elements = { 1.1.1.1 . 80, 2.2.2.2 . 443 } }
  map ports { type inet_service : verdict; elements = { 22 : accept, 23 : jump other } }
  counter web { packets 5 bytes 10 }
  limit slow { rate 5/second }
  quota much { over 10 mbytes }
  chain other { counter drop comment "why"; }
  chain input { type filter hook input priority 0; policy accept;
    ct state { established, related } accept
    ip saddr @allow tcp dport { 22, 80-90, 443 } counter packets 3 bytes 4 accept
    ip saddr . tcp dport @pairs accept
    tcp dport vmap @ports
    counter name web
    limit rate 10/minute burst 5 packets log prefix "in: "
    update @seen { ip saddr timeout 30s limit rate over 4/second } drop
    meta mark set ip dscp map { 1 : 2, 3 : 4 }
    meta l4proto tcp jump { counter; return; }
  }
}
table ip6 six {
  flags dormant
  chain c { icmpv6 type { nd-router-advert, echo-request } accept; }
}
"""
CHANGE = """
hostname other; domainname example.org
sysctl -qw net.ipv4.ip_forward=0 net.ipv4.tcp_syncookies=0 net.ipv6.conf.br7.disable_ipv6=1
sysctl -qw net.ipv4.ip_local_reserved_ports=8080,9000-9010 net.ipv4.conf.br7.rp_filter=0
ip addr flush dev br7; ip addr add 192.0.2.99/24 dev br7; ip route replace default via 192.0.2.77
ip route flush table 100; ip route del blackhole 10.9.0.0/16
ip rule del prio 1000; ip rule add from 10.2.0.0/16 lookup 100 prio 900
ip link add br8 type bridge; ip link set br8 up mtu 1400
nft delete table inet guard; nft delete table ip6 six
nft add table inet ours; nft add chain inet ours c '{ type filter hook input priority 0; policy drop; }'
iptables -F; iptables -X; iptables -P INPUT DROP; iptables -t nat -F; ip6tables -F
"""
END = "\necho 'ERROR: enough'\nsleep 60\n"


@pytest.fixture(scope="module")
def machine(lab: Path) -> Iterator[Machine]:
    """One for all: each test leaves it as it was."""
    if reason := Machine.missing("ext4") or firewall.missing():
        pytest.skip(reason)
    made = Machine.create("ext4", lab)
    try:
        firewall.put_into(made.root)
        put(made, "/root/rules.nft", RULES)
        script(made, CHANGE + END)
        script(made, CHANGE, "/root/quiet.sh")
        assert made.boot() == "running"
        done = made.run("sh", "-ec", NETWORK, session=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.close()


def differing(before: list[str], now: list[str]) -> list[str]:
    one, other = Counter(before), Counter(now)
    return [
        *(f"- {each}" for each in (one - other).elements()),
        *(f"+ {each}" for each in (other - one).elements()),
    ]


def test_also_out_of_a_sandbox(machine: Machine) -> None:
    """Nothing of it is a file: what the kernel is told goes past an overlay."""
    before = kernel(machine)
    result = machine.snapbreaker("run", "--backend", "overlay", "--", "/root/change.sh")
    assert result.returncode == 1, result.stdout + result.stderr
    assert differing(before, kernel(machine)) == []


def test_all_of_it_comes_back(machine: Machine) -> None:
    before = kernel(machine)
    result = machine.snapbreaker("run", "--", "/root/change.sh")
    assert result.returncode == 1, result.stdout + result.stderr
    assert differing(before, kernel(machine)) == []
    told = report(machine)
    assert told["issue"]["line"] == "ERROR: enough"
    back = {one["path"]: one["text"] for one in told["kernel"]}
    assert back["hostname"] == "lab, instead of other"
    assert back["sysctl net.ipv4.tcp_syncookies"] == "1, instead of 0"
    assert back["link br8"] == back["nftables table inet ours"] == "taken away"
    assert back["nftables table inet guard"].startswith("again ")
    assert {"what": "kernel state"}.items() <= told["compared"][-1].items()
    assert told["warnings"] == []


def test_of_a_committed_run_what_it_changed_and_nobody_since(machine: Machine) -> None:
    before = kernel(machine)
    result = machine.snapbreaker("run", "--", "/root/quiet.sh")
    assert result.returncode == 0, result.stdout + result.stderr
    after = kernel(machine)
    assert after != before
    shown = machine.snapbreaker("verify", "--last").stdout
    assert "M sysctl: net.ipv4.tcp_syncookies  (0 instead of 1)" in shown
    assert machine.snapbreaker("rollback", "--last", "--yes").returncode == 0
    assert differing(before, kernel(machine)) == []
    assert machine.snapbreaker("rollback", "--last", "--redo", "--yes").returncode == 0
    # A lease may be another one by now: that it is gone does not come again.
    assert [each for each in differing(after, kernel(machine)) if "198.51.100" not in each] == []
    others = "sysctl -qw net.ipv4.tcp_syncookies=2 net.ipv4.tcp_fin_timeout=33; nft add table inet others"
    assert machine.run("sh", "-c", others).returncode == 0
    back = machine.snapbreaker("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    assert said(machine, "sysctl", "-n", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_fin_timeout") == "2\n33\n"
    undo = "sysctl -qw net.ipv4.tcp_syncookies=1 net.ipv4.tcp_fin_timeout=60; nft delete table inet others"
    assert machine.run("sh", "-c", undo).returncode == 0
    assert differing(before, kernel(machine)) == []


def test_killed_while_it_is_put_back(machine: Machine) -> None:
    before = kernel(machine)
    process = machine.start("snapbreaker", "run", "--", "/root/change.sh")
    until(machine, "ip link show br8")
    until(machine, "! ip link show br8")
    kill_snapbreaker(machine, process)
    recovered = machine.snapbreaker("recover")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert differing(before, kernel(machine)) == []


def test_whom_somebody_is_connected_by_stays(machine: Machine) -> None:
    """An address that came is not taken from under a connection; it is named, and the exit is 3."""
    before = kernel(machine)
    connect = """ip addr add 192.0.2.88/24 dev br7
python3 -c 'import socket, time
server = socket.create_server(("192.0.2.88", 4711)); one = socket.create_connection(("192.0.2.88", 4711))
open("/tmp/connected", "w").close(); time.sleep(100)' &
"""
    change = script(machine, "while [ ! -e /tmp/connected ]; do sleep 0.02; done" + END, "/tmp/connect.sh")
    outside = machine.start("sh", "-c", f"while [ ! -e /tmp/go ]; do sleep 0.02; done; {connect}; wait", stderr=2)
    run = machine.start("snapbreaker", "run", "--", "sh", "-c", f"touch /tmp/go; {change}")
    said_, errors = run.communicate(timeout=60)
    del machine.started[run]
    assert run.returncode == 3, said_ + errors
    told = report(machine)
    assert [one["path"] for one in told["differences"]] == ["address br7 192.0.2.88/24"]
    assert [one for one in told["warnings"] if "somebody is connected by it: left as it is" in one]
    assert machine.run("pkill", "python3", session=False).returncode == 0
    outside.wait(20)
    assert machine.run("ip", "addr", "del", "192.0.2.88/24", "dev", "br7").returncode == 0
    assert differing(before, kernel(machine)) == []
