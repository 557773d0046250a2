"""What only a kernel of one's own has: settings of all of it, swap, modules. What a run does to them is undone."""

from __future__ import annotations

import json

from tests.lab.vm import Vm

# Its own tools' words, without numbers that count something, and modules that snapbreaker has loaded for itself.
JUDGE = r"""
sysctl -a 2>/dev/null |
grep -vE '^(fs\.(dentry|file|inode|aio|quota\.syncs)|kernel\.(random|ns_last_pid|pty\.nr)|.*_next_id)'
lsmod | sed 's/ .*//' | grep -vE '^(cn|overlay)$'; swapon --show --noheadings --raw; hostname
ip -o link | sed 's/^[0-9]*: //; s/ link.ether.*//'; ip -o addr | sed 's/^[0-9]*: //'; ip route show table all
"""
SWAP = "head -c 4194304 /dev/zero >{0}; chmod 600 {0}; mkswap -q {0} 2>&1; swapon {1} {0}"
CHANGE = f"""
sysctl -qw vm.swappiness=7 vm.dirty_bytes=8388608 kernel.printk='3 3 1 3' fs.file-max=54321 net.ipv4.ip_forward=1
hostname other; ip link set lo mtu 9000; ip addr add 192.0.2.5/32 dev lo; ip route add blackhole 10.0.0.0/8
swapoff /swap-old; {SWAP.format("/etc/swap-new", "-p 5")}
modprobe dummy; rmmod sch_tbf
echo 'ERROR: enough'; sleep 60
"""
# All that configures the machine, so that its kernel counts, but no more: the rest of the root takes its time.
RUN = ("run", "--scope", "/etc", "--scope", "/usr/lib/systemd", "--", "sh", "-c")
# Nothing sets this one back but a boot.
ONE_WAY = "sysctl -qw vm.swappiness=8 kernel.unprivileged_bpf_disabled=1; echo 'ERROR: enough'; sleep 60"


def told(vm: Vm) -> dict[str, dict[str, str]]:
    report = json.loads(vm.snapbreaker("report", "--last", "--format", "json").stdout)
    return {what: {one["path"]: one["text"] for one in report[what]} for what in ("kernel", "differences")}


def test_settings_swap_and_modules_come_back(vm: Vm) -> None:
    begin = f"modprobe sch_tbf; {SWAP.format('/swap-old', '-p 9')}; sysctl -qw kernel.unprivileged_bpf_disabled=2"
    done = vm.run("sh", "-ec", begin)
    assert done.returncode == 0, done.stdout + done.stderr
    before = vm.run("sh", "-c", JUDGE).stdout
    result = vm.snapbreaker(*RUN, CHANGE)
    assert result.returncode == 1, result.stdout + result.stderr
    assert set(vm.run("sh", "-c", JUDGE).stdout.splitlines()) ^ set(before.splitlines()) == set()
    assert vm.run("ls", "/etc/swap-new").returncode != 0
    back = told(vm)["kernel"]
    assert back["swap on /etc/swap-new"] == "taken away"
    assert back["swap on /swap-old"] == "again file, priority 9"
    assert back["sysctl vm.swappiness"] == "60, instead of 7"
    assert "Warning" not in result.stderr, result.stderr

    result = vm.snapbreaker(*RUN, ONE_WAY)
    assert result.returncode == 3, result.stdout + result.stderr
    found = told(vm)
    assert found["kernel"] == {"sysctl vm.swappiness": "60, instead of 8"}
    assert found["differences"] == {"sysctl kernel.unprivileged_bpf_disabled": "1 instead of 2"}
    assert "sysctl kernel.unprivileged_bpf_disabled cannot be put back" in result.stderr
