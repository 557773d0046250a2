"""What network interfaces are, as a part of the kernel's state: up or down, in a bridge, there at all."""

from __future__ import annotations

import base64
import errno
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from snapbreaker.linux import netlink
from snapbreaker.linux.netlink import Netlink, attribute, attributes, nested
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel.addresses import addresses
from snapbreaker.system.kernel.connections import LEFT, Connections
from snapbreaker.system.kernel.kind import Kind, Old, Read
from snapbreaker.system.kernel.links import (
    ADDRESS,
    INFO,
    KIND,
    LINKINFO,
    MASTER,
    MTU,
    NAME,
    PARENT,
    UP,
    Link,
    index_of,
    links,
)

_NEWLINK, _DELLINK = 16, 17
_DATA = 2  # in LINKINFO
# Whoever manages them makes them when it is started, and may refuse those that are there already.
_MANAGED = re.compile(
    r"(br-[0-9a-f]{8}|cilium|cni|docker|flannel|incus|kube|lxc|lxd|ovs|podman|tailscale|virbr|vxlan)"
)
_SECRETIVE = frozenset({"wireguard", "macsec", "ovpn"})  # their keys are not recorded


def read() -> Read:
    found = links()
    by_index = {link.index: link.name for link in found}
    table, contents = {}, {}
    for link in found:
        if not link.passes:
            table[link.name] = ", ".join(_words(link, by_index))
            made = attribute(PARENT, struct.pack("=I", link.parent)) if link.parent else b""
            contents[link.name] = base64.b64encode(made + nested(LINKINFO, link.info)).decode("ascii")
            if link.parent:
                contents[link.name] += f" {by_index.get(link.parent, '')}"
    return table, contents


def _words(link: Link, by_index: dict[int, str]) -> Iterator[str]:
    yield "up" if link.up else "down"
    yield f"mtu {link.mtu}"
    if link.kind:
        yield link.kind
    if link.master:
        yield f"in {by_index.get(link.master, link.master)}"
    if link.address:
        yield f"address {link.address.hex(':')}"


def before_units(changes: Sequence[Changed], old: Old) -> dict[str, str]:
    """Without those that a unit may be about to make."""
    return put_back([one for one in changes if one.now or not _MANAGED.match(one.name)], old)


def put_back(changes: Sequence[Changed], old: Old) -> dict[str, str]:
    """Those that are gone are made, others set to what they were, those that came taken away, in this order."""
    refused: dict[str, str] = {}
    gone, old_ones = [one for one in changes if not one.now], [one for one in changes if one.was]
    came = [one for one in changes if not one.was]
    steps = ((gone, _make), (old_ones, _set), *((came, _remove) for _ in came))  # one may be in another one
    with Netlink(netlink.ROUTE) as kernel:
        for names, step in steps:
            for one in (one for one in names if step is _remove or one.name not in refused):
                try:
                    step(kernel, one, old)
                    refused.pop(one.name, None)
                except OSError as error:
                    refused[one.name] = error.strerror or ""
    return refused


def _found(name: str, found: Sequence[Link]) -> Link | None:
    return next((link for link in found if link.name == name), None)


def _make(kernel: Netlink, one: Changed, old: Old) -> None:
    made, _, parent = old.contents.get(one.name, "").partition(" ")
    attrs = base64.b64decode(made)
    kind = netlink.text(dict(attributes(dict(attributes(attrs)).get(LINKINFO, b""))).get(KIND, b""))
    if not kind:
        raise OSError(errno.ENODEV, "it is a device, which is gone")
    if kind in _SECRETIVE:
        raise OSError(errno.EOPNOTSUPP, "its keys were not recorded")
    if parent:  # it may have another number now
        attrs = netlink.without(attrs, [PARENT])
        attrs += attribute(PARENT, struct.pack("=I", index_of(parent)))
    head = INFO.pack(0, 0, 0, 0, 0) + attribute(NAME, os.fsencode(one.name) + b"\0")
    try:
        kernel.ask(_NEWLINK, head + attrs, netlink.CREATE | netlink.EXCL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _make_by_and_by(kernel, head, attrs)


def _make_by_and_by(kernel: Netlink, head: bytes, attrs: bytes) -> None:
    """A bridge is told of with what it cannot be made with: first it alone, then each of its settings."""
    info = dict(attributes(dict(attributes(attrs))[LINKINFO]))
    kind = attribute(KIND, info[KIND])
    rest = netlink.without(attrs, [LINKINFO])
    kernel.ask(_NEWLINK, head + rest + nested(LINKINFO, kind), netlink.CREATE | netlink.EXCL)
    for type_, value in attributes(info.get(_DATA, b"")):
        with suppress(OSError):
            one = nested(_DATA, attribute(type_, value))
            kernel.ask(_NEWLINK, head + nested(LINKINFO, kind + one))


def _set(kernel: Netlink, one: Changed, old: Old) -> None:
    """First what it belongs to, last whether it is up; each only when it differs."""
    link = _found(one.name, links())
    if link is None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    words = one.was.split(", ")
    if words[0] == "down" and link.up and _is_used(link, old):
        raise OSError(errno.EBUSY, LEFT)
    master = next((word.removeprefix("in ") for word in words if word.startswith("in ")), "")
    number = index_of(master) if master else 0
    address = bytes.fromhex(
        next((word.removeprefix("address ") for word in words if word.startswith("address ")), "").replace(":", "")
    )
    mtu = next((int(word.removeprefix("mtu ")) for word in words if word.startswith("mtu ")), link.mtu)
    if number != link.master:
        _ask(kernel, link, attribute(MASTER, struct.pack("=I", number)))
    if mtu != link.mtu:
        _ask(kernel, link, attribute(MTU, struct.pack("=I", mtu)))
    if address and address != link.address:
        try:
            _ask(kernel, link, attribute(ADDRESS, address))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _ask(kernel, link, b"", 0)  # most devices take another address only while they are down
            _ask(kernel, link, attribute(ADDRESS, address))
    _ask(kernel, link, b"", UP if words[0] == "up" else 0)


def _ask(kernel: Netlink, link: Link, attrs: bytes, flags: int | None = None) -> None:
    which = 0 if flags is None else UP
    kernel.ask(_NEWLINK, INFO.pack(0, 0, link.index, flags or 0, which) + attrs)


def _remove(kernel: Netlink, one: Changed, old: Old) -> None:
    """Not a device, not a bridge that others are in, not what somebody is connected by."""
    found = links()
    link = _found(one.name, found)
    if link is None:
        return  # it went with the one that it was in
    if not link.kind:
        raise OSError(errno.EBUSY, "a device that came: left as it is")
    if any(other.master == link.index or other.parent == link.index for other in found):
        raise OSError(errno.EBUSY, "others are in it: left as it is")
    if _is_used(link, old):
        raise OSError(errno.EBUSY, LEFT)
    kernel.ask(_DELLINK, INFO.pack(0, 0, link.index, 0, 0))


def _is_used(link: Link, old: Old) -> bool:
    """By an address that will not be anywhere else."""
    ours = Connections.now().ours - old.addresses
    return any(one.index == link.index and one.address in ours for one in addresses())


def is_device(change: Changed) -> bool:
    """A device that was plugged in came by itself: it has no kind, as what is made by software."""
    known = ("up", "down", "mtu ", "in ", "address ")
    return not change.was and all(word.startswith(known) for word in change.now.split(", "))


BEFORE_UNITS = Kind("links", "link", read, before_units, is_device)
AFTER_UNITS = Kind("links", "link", read, put_back, is_device)
