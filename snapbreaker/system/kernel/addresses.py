"""Addresses of network interfaces (rtnetlink(7), <linux/if_addr.h>)."""

from __future__ import annotations

import base64
import errno
import socket
import struct
from collections.abc import Sequence

from snapbreaker.dataclass import dataclass
from snapbreaker.linux import netlink
from snapbreaker.linux.netlink import Netlink, attribute, attributes, without
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel import links
from snapbreaker.system.kernel.connections import LEFT, Connections
from snapbreaker.system.kernel.kind import Kind, Old, Read

_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_INFO = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, length of the prefix, flags, scope, index
_LIFETIMES = struct.Struct("=IIII")  # struct ifa_cacheinfo: preferred, valid, made, changed
_ADDRESS, _LOCAL, _LABEL, _CACHEINFO, _FLAGS, _PROTOCOL = 1, 2, 3, 6, 8, 11
_SECONDARY, _PERMANENT, _MANAGED = 0x01, 0x80, 0x100
_KEPT_FLAGS = 0x2 | 0x200 | 0x400  # nodad, noprefixroute, mcautojoin
_FOREVER = 0xFFFFFFFF
_LINK_SCOPE = 253


@dataclass(frozen=True, slots=True)
class Address:
    family: int
    length: int
    flags: int
    scope: int
    index: int
    address: str
    attrs: bytes


def addresses() -> list[Address]:
    """All of this network namespace. Raises OSError."""
    with Netlink(netlink.ROUTE) as kernel:
        found = [_address(one.body) for one in kernel.dump(_GETADDR, _INFO.pack(0, 0, 0, 0, 0))]
    return [one for one in found if one is not None]


def _address(body: bytes) -> Address | None:
    family, length, flags, scope, index = _INFO.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    attrs = body[_INFO.size :]
    found = dict(attributes(attrs))
    if _FLAGS in found:
        flags = struct.unpack("=I", found[_FLAGS])[0]
    value = found.get(_LOCAL) or found.get(_ADDRESS, b"")
    return Address(family, length, flags, scope, index, socket.inet_ntop(family, value), attrs)


def _is_automatic(one: Address) -> bool:
    """What the kernel makes of a link that is up, or of what a router tells."""
    if one.family == socket.AF_INET:
        return False
    return one.scope == _LINK_SCOPE or bool(one.flags & _MANAGED) or not one.flags & _PERMANENT


def read() -> Read:
    """By link and address what it is. How long a lease still lasts is no part of that."""
    names = links.names()
    table, contents = {}, {}
    for one in addresses():
        if one.index not in names or _is_automatic(one):
            continue
        found = dict(attributes(one.attrs))
        name = f"{names[one.index]} {one.address}/{one.length}"
        words = ["static" if one.flags & _PERMANENT else "leased", f"scope {one.scope}"]
        if one.flags & _SECONDARY and one.family == socket.AF_INET:
            words.append("secondary")
        peer, label = found.get(_ADDRESS), netlink.text(found.get(_LABEL, b""))
        if peer and found.get(_LOCAL) and peer != found[_LOCAL]:
            words.append(f"peer {socket.inet_ntop(one.family, peer)}")
        if label and label != names[one.index]:
            words.append(f"label {label}")
        table[name] = ", ".join([*words, f"flags {one.flags & _KEPT_FLAGS:#x}"])
        body = _INFO.pack(one.family, one.length, one.flags & _KEPT_FLAGS & 0xFF, one.scope, 0)
        attrs = without(one.attrs, [_FLAGS, _PROTOCOL])
        attrs += attribute(_FLAGS, struct.pack("=I", one.flags & _KEPT_FLAGS))
        contents[name] = base64.b64encode(body + attrs).decode("ascii")
    return table, contents


def put_back(changes: Sequence[Changed], old: Old) -> dict[str, str]:
    """What is gone comes first, for what stands on it; what came goes; then what went with it (secondary addresses
    go with their first) comes again, in the old order.
    """
    refused: dict[str, str] = {}
    connected = Connections.now().ours - old.addresses
    order = {name: number for number, name in enumerate(old.contents)}
    wanted = sorted((one for one in changes if one.was), key=lambda one: order.get(one.name, 0))
    steps = (
        *((one, _add) for one in wanted if not one.now),
        *((one, _remove) for one in changes if one.now),
        *((one, _add) for one in wanted),
    )
    with Netlink(netlink.ROUTE) as kernel:
        for one, step in steps:
            try:
                if step is _remove and not one.was and _of(one.name)[1].partition("/")[0] in connected:
                    raise OSError(errno.EBUSY, LEFT)
                step(kernel, one.name, old)
                refused.pop(one.name, None)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    refused[one.name] = error.strerror or ""
    return refused


def _of(name: str) -> tuple[str, str]:
    link, _, rest = name.partition(" ")
    return link, rest


def _add(kernel: Netlink, name: str, old: Old) -> None:
    index = links.index_of(_of(name)[0])
    data = base64.b64decode(old.contents[name])
    body, attrs = _INFO.pack(*_INFO.unpack_from(data)[:4], index), data[_INFO.size :]
    lifetimes = dict(attributes(attrs)).get(_CACHEINFO)
    if lifetimes:
        preferred, valid, *rest = _LIFETIMES.unpack_from(lifetimes)
        left = [_left(preferred, old.age), _left(valid, old.age)]
        if left[1] == 0:
            raise OSError(errno.ETIME, "its lease has run out")
        attrs = without(attrs, [_CACHEINFO]) + attribute(_CACHEINFO, _LIFETIMES.pack(*left, *rest))
    kernel.ask(_NEWADDR, body + attrs, netlink.CREATE | netlink.EXCL)


def _left(seconds: int, age: float) -> int:
    return seconds if seconds == _FOREVER else max(0, seconds - int(age))


def _remove(kernel: Netlink, name: str, _old: Old) -> None:
    link, rest = _of(name)
    index = links.index_of(link)
    for one in addresses():
        if one.index == index and f"{one.address}/{one.length}" == rest:
            body = _INFO.pack(one.family, one.length, 0, one.scope, one.index)
            kernel.ask(_DELADDR, body + without(one.attrs, [_CACHEINFO, _FLAGS, _PROTOCOL]))


def is_leased(change: Changed) -> bool:
    """A lease that was got anew, by whoever gets them."""
    return not change.was and change.now.startswith("leased")


KIND = Kind("addresses", "address", read, put_back, is_leased)
