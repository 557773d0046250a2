"""`rules learn` and `--strict` with a deploy that installs packages: learnt once, then other versions."""

from __future__ import annotations

import json

from tests.lab import debs
from tests.lab.debs import Package
from tests.lab.machine import Machine
from tests.system.scene import report, script

DEPLOY = r"""
export DEBIAN_FRONTEND=noninteractive
echo "deploy of $(date -Is) as pid $$"
apt-get install -y shop shop-tools
dpkg --list shop shop-tools | tail -n 2
"""
SHOP = 'echo "shop $2: $(date +%s%N) ns"; {more}'


def publish(machine: Machine, version: str, size: int, more: str = ":") -> None:
    """Two packages: a service, a trigger on what others install, a conffile, files of this size."""
    shop = Package(
        "shop",
        version,
        files={"/usr/lib/shop/data": b"x" * size, "/etc/shop.conf": "port = 80\n"},
        conffiles=("/etc/shop.conf",),
        scripts={"postinst": SHOP.format(more=more)},
        triggers="interest-noawait /usr/lib/shop\n",
        depends=("shop-tools",),
        services={"shop": "sleep 1000"},
    )
    tools = Package("shop-tools", version, files={f"/usr/lib/shop/tool{size}": "x"})
    debs.add(machine.root, shop, tools)


def test_the_next_version_passes_in_strict_mode_and_a_new_kind_of_line_trips(ext4_machine: Machine) -> None:
    machine = ext4_machine
    change = script(machine, DEPLOY)
    publish(machine, "1.0-1", 1000)
    first = machine.snapbreaker("run", "--", change)
    assert first.returncode == 0, first.stdout + first.stderr
    learned = machine.run(
        "sh", "-c", "snapbreaker rules learn --from $(ls /var/lib/snapbreaker | grep ^0) >/root/d.toml"
    )
    assert learned.returncode == 0, learned.stderr
    machine.run("apt-get", "purge", "-qqy", "shop", "shop-tools", session=False)
    publish(machine, "2.14.0~rc3-7ubuntu1", 250_000)
    second = machine.snapbreaker("run", "--strict", "--rules", "/root/d.toml", "--", change)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "2.14.0~rc3-7ubuntu1" in second.stdout
    machine.run("apt-get", "purge", "-qqy", "shop", "shop-tools", session=False)
    publish(machine, "3.0-1", 777, more="echo 'moving 3 tables to the new schema'")
    third = machine.snapbreaker("run", "--strict", "--rules", "/root/d.toml", "--json", "--", change)
    assert third.returncode == 1, third.stdout + third.stderr
    issues = [event for line in third.stdout.splitlines() if (event := json.loads(line))["event"] == "issue"]
    assert [(issue["type"], issue["line"]) for issue in issues] == [
        ("UNEXPECTED", "moving 3 tables to the new schema")
    ]
    assert report(machine)["outcome"] == "rolled-back"
    assert machine.run("dpkg-query", "-W", "shop", session=False).returncode != 0
