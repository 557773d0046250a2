"""Routes and the rules that choose between tables of them (rtnetlink(7), ip-rule(8))."""

from __future__ import annotations

import base64
import errno
import hashlib
import socket
import struct
from collections.abc import Iterator, Sequence

from snapbreaker.linux import netlink
from snapbreaker.linux.netlink import Message, Netlink, attribute, attributes, without
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel import links
from snapbreaker.system.kernel.connections import LEFT, Connections
from snapbreaker.system.kernel.kind import Kind, Old, Read

_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_INFO = struct.Struct("=BBBBBBBBI")  # struct rtmsg, struct fib_rule_hdr
_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _CACHEINFO, _TABLE, _VIA, _NEXTHOP = 1, 4, 5, 6, 9, 12, 15, 18, 30
_RULE_PRIORITY, _RULE_MARK, _RULE_SRC, _RULE_DST, _RULE_TABLE = 6, 10, 2, 1, 15
_KEPT_FLAGS = 0x2 | 0x4  # pervasive, on-link
# unicast, blackhole, unreachable, prohibit, throw: others are the kernel's own, of addresses
_TYPES = {1: "", 6: "blackhole ", 7: "unreachable ", 8: "prohibit ", 9: "throw "}
_MAIN, _LOCAL = 254, 255
# Whoever has them changes them all the time: routers' announcements, routing daemons (<linux/rtnetlink.h>).
_DAEMONS = frozenset({8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 42, 99, *range(186, 193)})
_FAMILIES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
_PASSES = 3  # a route by way of a gateway needs the one to it


def read() -> Read:
    """By name, which has all that tells routes apart, the rest as a digest."""
    names = links.names()
    table, contents = {}, {}
    with Netlink(netlink.ROUTE) as kernel:
        for family in _FAMILIES:
            for message in _dump(kernel, _GETROUTE, family):
                found = _route(message, names)
                if found:
                    name, state, data = found
                    table[name], contents[name] = state, data
    return table, contents


def _dump(kernel: Netlink, type_: int, family: int) -> Iterator[Message]:
    try:
        yield from kernel.dump(type_, _INFO.pack(family, *[0] * 8))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):  # no IPv6 here, no rules
            raise


def _route(message: Message, names: dict[int, str]) -> tuple[str, str, str] | None:
    family, length, src_length, tos, number, protocol, scope, kind, flags = _INFO.unpack_from(message.body)
    attrs = message.body[_INFO.size :]
    found = dict(attributes(attrs))
    number = _number(found.get(_TABLE), number)
    if kind not in _TYPES or number == _LOCAL or protocol in _DAEMONS or family not in _FAMILIES:
        return None
    device = _number(found.get(_OIF))
    if device and device not in names:
        return None
    words = [_TYPES[kind] + _prefix(family, found.get(_DST), length)]
    if _GATEWAY in found:
        words.append(f"via {socket.inet_ntop(family, found[_GATEWAY])}")
    if device:
        words.append(f"dev {names[device]}")
    if _PRIORITY in found:
        words.append(f"metric {_number(found[_PRIORITY])}")
    if number != _MAIN:
        words.append(f"table {number}")
    if tos:
        words.append(f"tos {tos}")
    flags &= _KEPT_FLAGS
    body = _INFO.pack(family, length, src_length, tos, message.body[4], protocol, scope, kind, flags)
    told_by_it = (_OIF, _GATEWAY, _MULTIPATH, _VIA) if _NEXTHOP in found else ()  # ip-nexthop(8)
    kept = without(attrs, [_CACHEINFO, *told_by_it])
    digest = _digest(body + without(kept, [_OIF]))
    data = base64.b64encode(body + kept).decode("ascii")
    data += f" {names[device]}" if device and not told_by_it else ""
    return " ".join(words), f"protocol {protocol}, {digest}", data


def _prefix(family: int, value: bytes | None, length: int) -> str:
    if not length:
        return "default" if family == socket.AF_INET else "default6"
    return f"{socket.inet_ntop(family, value or bytes(16 if family == socket.AF_INET6 else 4))}/{length}"


def _number(value: bytes | None, otherwise: int = 0) -> int:
    return int(struct.unpack("=I", value)[0]) if value else otherwise


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def put_back(changes: Sequence[Changed], old: Old) -> dict[str, str]:
    """First those that are gone, then those that came go: in between there is always one."""
    refused: dict[str, str] = {}
    now = read()[1]
    kept = [_destination(name) for name in old.contents if " table " not in name]
    connected = Connections.now()
    with Netlink(netlink.ROUTE) as kernel:
        for _ in range(_PASSES):
            refused = {}
            for one in sorted((one for one in changes if one.was), key=lambda one: " via " in one.name):
                try:
                    if one.now:
                        _ask(kernel, _DELROUTE, now[one.name])
                    _ask(kernel, _NEWROUTE, old.contents[one.name], netlink.CREATE)
                except OSError as error:
                    if error.errno != errno.EEXIST:
                        refused[one.name] = error.strerror or ""
            if not refused:
                break
        for one in (one for one in changes if not one.was):
            try:
                if connected.go_by(_destination(one.name), kept):
                    raise OSError(errno.EBUSY, LEFT)
                _ask(kernel, _DELROUTE, now[one.name])
            except OSError as error:
                if error.errno != errno.ESRCH:  # gone, with what it went by
                    refused[one.name] = error.strerror or ""
    return refused


def _destination(name: str) -> str:
    words = name.split()
    first = words[1] if f"{words[0]} " in _TYPES.values() else words[0]
    return {"default": "0.0.0.0/0", "default6": "::/0"}.get(first, first)


def _ask(kernel: Netlink, type_: int, data: str, flags: int = 0) -> None:
    made, _, device = data.partition(" ")
    body = base64.b64decode(made)
    if device:
        head, attrs = body[: _INFO.size], without(body[_INFO.size :], [_OIF])
        body = head + attrs + attribute(_OIF, struct.pack("=I", links.index_of(device)))
    kernel.ask(type_, body, flags)


def read_rules() -> Read:
    """By family, priority and what else a person would look for."""
    table, contents = {}, {}
    with Netlink(netlink.ROUTE) as kernel:
        for family, word in _FAMILIES.items():
            for message in _dump(kernel, _GETRULE, family):
                _, dst_length, src_length, _, number, *_ = _INFO.unpack_from(message.body)
                found = dict(attributes(message.body[_INFO.size :]))
                words = [f"{word} {_number(found.get(_RULE_PRIORITY))}:"]
                words.append(
                    f"from {_prefix(family, found.get(_RULE_SRC), src_length)}" if src_length else "from all"
                )
                if dst_length:
                    words.append(f"to {_prefix(family, found.get(_RULE_DST), dst_length)}")
                if _RULE_MARK in found:
                    words.append(f"fwmark {_number(found[_RULE_MARK]):#x}")
                words.append(f"lookup {_number(found.get(_RULE_TABLE), number)}")
                name = " ".join(words)
                table[name] = _digest(message.body)
                contents[name] = base64.b64encode(message.body).decode("ascii")
    return table, contents


def put_rules_back(changes: Sequence[Changed], old: Old) -> dict[str, str]:
    refused = {}
    now = read_rules()[1]
    with Netlink(netlink.ROUTE) as kernel:
        for one in sorted(changes, key=lambda one: not one.was):
            try:
                if one.was:
                    kernel.ask(_NEWRULE, base64.b64decode(old.contents[one.name]), netlink.CREATE | netlink.EXCL)
                if one.now:
                    kernel.ask(_DELRULE, base64.b64decode(now[one.name]))
            except OSError as error:
                refused[one.name] = error.strerror or ""
    return refused


ROUTES = Kind("routes", "route", read, put_back)
RULES = Kind("routing rules", "routing rule", read_rules, put_rules_back)
