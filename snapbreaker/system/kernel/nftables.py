"""Tables of nftables, those of iptables-nft among them, as the kernel has them (<linux/netfilter/nf_tables.h>).

No program is needed: what the kernel tells of a table is what it is told to make one, but for a few numbers of its
own. A table goes back whole, in one transaction; tables that are what they were are not touched.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.linux import netlink
from snapbreaker.linux.netlink import Message, Netlink, attribute, attributes, without
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel.expressions import compatible, plain_elements, plain_object, plain_rule
from snapbreaker.system.kernel.kind import Kind, Old, Read

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 16, 17  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
_HEAD = struct.Struct("=BBH")  # struct nfgenmsg: family, version, and what is big-endian
_TABLE, _GET_TABLE, _DELETE_TABLE = 0, 1, 2
_TABLE_NAME, _TABLE_FLAGS, _OWNED = 1, 2, 0x2
_SET, _SET_NAME, _SET_FLAGS, _SET_ID, _SET_EXPRESSION = 9, 2, 3, 10, 17
_ELEMENTS, _GET_ELEMENTS = 12, 13
_CHAIN_NAME, _CHAIN_FLAGS, _BLOCK, _RULE_CHAIN = 3, 10, 0x4, 2
_OF_TABLE = 1  # the table's name, in all but tables
_BY_ITSELF = 0x10 | 0x20  # sets whose elements run out, or that packets add to
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_MODULE = "nf_tables"
_LOADED = "/proc/modules"


@dataclass(frozen=True, slots=True)
class _Objects:
    """One sort of what is in a table, in the order in which they are made: ``new`` and ``get`` are messages,
    ``own`` the attributes that are the kernel's own or say how often something is used.
    """

    new: int
    get: int
    own: tuple[int, ...]
    word: str
    flags: int = netlink.CREATE
    normal: Callable[[bytes], bytes] = bytes


_CHAINS = _Objects(3, 4, (2, 6, 8), "chain")  # handle, use, counters
_SETS = _Objects(_SET, 10, (16, 19, 20), "set")  # handle, the sort that the kernel chose, count
_STATEFUL = _Objects(18, 19, (5, 6), "object", normal=plain_object)  # use, handle
_FLOWTABLES = _Objects(22, 23, (4, 5), "flowtable")  # use, handle
_RULES = _Objects(6, 7, (3, 6), "rule", netlink.CREATE | netlink.APPEND, plain_rule)  # handle, position
_BEFORE_ELEMENTS, _AFTER_ELEMENTS = (_CHAINS, _SETS, _STATEFUL), (_FLOWTABLES, _RULES)


def read() -> Read:
    """By family and name what is in each table; how much was counted by it is no part of that."""
    table: dict[str, str] = {}
    contents: dict[str, str] = {}
    if not _is_there():
        return table, contents
    with Netlink(netlink.NETFILTER) as kernel:
        for message in _dump(kernel, _GET_TABLE, 0):
            found = dict(attributes(message.body[_HEAD.size :]))
            flags = struct.unpack(">I", found.get(_TABLE_FLAGS, bytes(4)))[0]
            if flags & _OWNED:
                continue  # it goes with the process that has made it
            family, own = message.body[0], found[_TABLE_NAME]
            name = f"{_FAMILIES.get(family, family)} {netlink.text(own)}"
            body = message.body[: _HEAD.size] + without(message.body[_HEAD.size :], (3, 4))  # use, handle
            table[name], contents[name] = _content(kernel, family, own, body)
    return table, contents


def _is_there() -> bool:
    """Whether the kernel has it. To ask itself would load the module."""
    try:
        with open(_LOADED, encoding="ascii") as file:
            if any(line.startswith(f"{_MODULE} ") for line in file):
                return True
    except FileNotFoundError:  # it is built in, or not there
        return True
    with suppress(OSError), open(f"/lib/modules/{os.uname().release}/modules.builtin", encoding="ascii") as file:
        return any(line.endswith(f"/{_MODULE}.ko\n") for line in file)
    return False


def _dump(kernel: Netlink, type_: int, family: int, attrs: bytes = b"") -> list[Message]:
    try:
        return kernel.dump(_SUBSYSTEM << 8 | type_, _HEAD.pack(family, 0, 0) + attrs)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT):
            return []  # the kernel has no such thing
        raise


def _content(kernel: Netlink, family: int, name: bytes, head: bytes) -> tuple[str, str]:
    """In words with a digest, and all messages that make the table."""
    made: list[tuple[int, int, bytes]] = [(_TABLE, netlink.CREATE, head)]
    plain = [head[_HEAD.size :]]
    counts: dict[str, int] = {}
    own = attribute(_OF_TABLE, name)

    def add(objects: _Objects) -> Iterator[bytes]:
        for message in _dump(kernel, objects.get, family, own):
            attrs = message.body[_HEAD.size :]
            if dict(attributes(attrs)).get(_OF_TABLE) != name:
                continue
            attrs = without(attrs, objects.own)
            made.append((objects.new, objects.flags, message.body[: _HEAD.size] + attrs))
            plain.append(objects.normal(attrs))
            counts[objects.word] = counts.get(objects.word, 0) + 1
            yield attrs

    sets = []
    for objects in _BEFORE_ELEMENTS:
        found = list(add(objects))
        sets += found if objects is _SETS else []
    for attrs in sets:
        facts = dict(attributes(attrs))
        flags = struct.unpack(">I", facts.get(_SET_FLAGS, bytes(4)))[0]
        elements: list[bytes] = []
        changing = bool(flags & _BY_ITSELF)
        for message in _dump(kernel, _GET_ELEMENTS, family, own + attribute(2, facts[_SET_NAME])):
            made.append((_ELEMENTS, netlink.CREATE, message.body))
            if not changing:
                elements += plain_elements(message.body[_HEAD.size :], counting=_SET_EXPRESSION in facts)
        plain += sorted(elements)
    for objects in _AFTER_ELEMENTS:
        list(add(objects))
    _blocks_first(made)
    words = [f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items()] or ["empty"]
    digest = hashlib.sha256(b"\n".join(hashlib.sha256(each).digest() for each in plain)).hexdigest()[:12]
    listed = json.dumps([(type_, flags, base64.b64encode(body).decode("ascii")) for type_, flags, body in made])
    return ", ".join([*words, digest]), base64.b64encode(zlib.compress(listed.encode("ascii"))).decode("ascii")


def _blocks_first(made: list[tuple[int, int, bytes]]) -> None:
    """The rules of blocks (``jump { … }``) before others: a chain that one is bound to takes no more of them."""
    attrs = {number: dict(attributes(body[_HEAD.size :])) for number, (_, _, body) in enumerate(made)}
    names = [
        attrs[number][_CHAIN_NAME]
        for number, (type_, _, _) in enumerate(made)
        if type_ == _CHAINS.new and struct.unpack(">I", attrs[number].get(_CHAIN_FLAGS, bytes(4)))[0] & _BLOCK
    ]
    if names:
        order = {name: -number for number, name in enumerate(names, 1)}
        first = next(number for number, (type_, _, _) in enumerate(made) if type_ == _RULES.new)
        ranks = [order.get(attrs[number].get(_RULE_CHAIN, b""), 1) for number in range(first, len(made))]
        rules = [rule for _, _, rule in sorted(zip(ranks, range(len(ranks)), made[first:], strict=True))]
        made[first:] = rules


def put_back(changes: Sequence[Changed], old: Old) -> dict[str, str]:
    """All of it at once; when that is refused, each table by itself, so that one does not keep the others."""
    try:
        _transact(changes, old)
    except OSError as error:
        if len(changes) == 1:
            return {changes[0].name: error.strerror or ""}
        refused: dict[str, str] = {}
        for one in changes:
            refused |= put_back([one], old)
        return refused
    return {}


def _transact(changes: Sequence[Changed], old: Old) -> None:
    messages = [message for one in changes for message in _messages(one, old)]
    messages[-1] = Message(messages[-1].type, messages[-1].body, messages[-1].flags | netlink.ACK)
    around = _HEAD.pack(0, 0, socket.htons(_SUBSYSTEM))
    begin, end = Message(_BEGIN, around, netlink.REQUEST), Message(_END, around, netlink.REQUEST)
    with Netlink(netlink.NETFILTER) as kernel:
        kernel.batch([begin, *messages, end])


def _messages(one: Changed, old: Old) -> Iterator[Message]:
    family_word, _, name = one.name.partition(" ")
    numbers = {word: number for number, word in _FAMILIES.items()}
    head = _HEAD.pack(numbers.get(family_word) or int(family_word), 0, 0)
    if one.now:
        gone = head + attribute(_TABLE_NAME, os.fsencode(name) + b"\0")
        yield Message(_SUBSYSTEM << 8 | _DELETE_TABLE, gone, netlink.REQUEST)
    if not one.was:
        return
    made = json.loads(zlib.decompress(base64.b64decode(old.contents[one.name])))
    for number, (type_, flags, text) in enumerate(made):
        body = base64.b64decode(text)
        body = body[:2] + bytes(2) + body[4:]  # without the generation that it was read in
        if type_ == _SET:
            body += attribute(_SET_ID, struct.pack(">I", number))
        elif type_ == _RULES.new:
            body += compatible(body[_HEAD.size :])
        yield Message(_SUBSYSTEM << 8 | type_, body, netlink.REQUEST | flags)


KIND = Kind("nftables", "nftables table", read, put_back)
