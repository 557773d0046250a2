"""Network interfaces: whether they are there, up, what they belong to (rtnetlink(7), <linux/if_link.h>)."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.linux import netlink
from snapbreaker.linux.netlink import Netlink, attributes
from snapbreaker.system.kernel.place import is_shared

_GETLINK = 18
INFO = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, which of them
ADDRESS, NAME, MTU, PARENT, MASTER, LINKINFO = 1, 3, 4, 5, 10, 18
KIND, _SLAVE_KIND, _SLAVE_DATA = 1, 4, 5  # in LINKINFO
UP, _LOOPBACK = 0x1, 0x8
# They belong to a process or to the other end of a pair, and come and go with containers, guests and tunnels.
_PASSING = frozenset({"veth", "tun", "netkit", "openvswitch", "macvtap", "ipvtap", "ppp"})


@dataclass(frozen=True, slots=True)
class Link:
    """``info`` is how it is made, for the kernel; ``address`` only of what is no software."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    master: int
    parent: int
    address: bytes
    info: bytes

    @property
    def passes(self) -> bool:
        """Whether it comes and goes by itself. The network of a container comes by a veth, which stays."""
        return self.kind in _PASSING and not (self.kind == "veth" and not self.master and is_shared())


def links() -> list[Link]:
    """All of this network namespace. Raises OSError."""
    with Netlink(netlink.ROUTE) as kernel:
        return [_link(one.body) for one in kernel.dump(_GETLINK, INFO.pack(0, 0, 0, 0, 0))]


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = INFO.unpack_from(body)
    found = dict(attributes(body[INFO.size :]))
    info = found.get(LINKINFO, b"")
    kind = netlink.text(dict(attributes(info)).get(KIND, b""))
    name = netlink.text(found.get(NAME, b""))
    real = not kind and not flags & _LOOPBACK and not os.path.isdir(f"/sys/class/net/{name}/phy80211")
    return Link(
        index,
        name,
        kind,
        bool(flags & UP),
        _number(found.get(MTU)),
        _number(found.get(MASTER)),
        _number(found.get(PARENT)),
        found.get(ADDRESS, b"") if real else b"",
        netlink.without(info, (_SLAVE_KIND, _SLAVE_DATA)),
    )


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value else 0


def names() -> dict[int, str]:
    """By index the links that stay: of others neither addresses nor routes count."""
    return {link.index: link.name for link in links() if not link.passes}


def passing() -> frozenset[str]:
    """Names of those that come and go by themselves."""
    with suppress(OSError):
        return frozenset(link.name for link in links() if link.passes)
    return frozenset()


def kinds() -> frozenset[str]:
    """Those that some link is of."""
    with suppress(OSError):
        return frozenset(link.kind for link in links() if link.kind)
    return frozenset()


def index_of(name: str) -> int:
    """Raises OSError."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from None
