"""What rules and sets of nftables are made of, without what they have counted."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from snapbreaker.linux.netlink import attribute, attributes, nested, without

_EXPRESSIONS = 4  # of a rule
_ELEMENT = 1  # NFTA_LIST_ELEM
_NAME, _DATA = 1, 2  # of an expression
_QUOTA_CONSUMED = 4
_OBJECT_TYPE, _OBJECT_DATA, _COUNTER, _QUOTA = 3, 4, 1, 2
_SET_ELEMENTS = 3
_ELEMENT_EXPIRATION, _ELEMENT_EXPRESSION, _ELEMENT_EXPRESSIONS = 5, 6, 11
_COMPAT, _COMPAT_PROTOCOL, _COMPAT_FLAGS, _COMPAT_INVERTED = 5, 1, 2, 2
_META_KEY, _META_L4PROTO = 2, 16
_PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 2, 3, 4
_PROTOCOL_FIELD = (1, 9, 1)  # network header, offset, length: the protocol of IPv4
_COMPARE_OPERATION, _COMPARE_DATA, _NOT_EQUAL = 2, 3, 1


def _of(attrs: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and data of each expression of a rule."""
    for type_, listed in attributes(dict(attributes(attrs)).get(_EXPRESSIONS, b"")):
        if type_ == _ELEMENT:
            found = dict(attributes(listed))
            yield found.get(_NAME, b"").rstrip(b"\0"), found.get(_DATA, b"")


def plain_rule(attrs: bytes) -> bytes:
    """A rule for a comparison."""
    parts = []
    for name, data in _of(attrs):
        if name in (b"counter", b"last"):
            data = b""
        elif name == b"quota":
            data = without(data, [_QUOTA_CONSUMED])
        parts.append(attribute(_NAME, name) + attribute(_DATA, data))
    return without(attrs, [_EXPRESSIONS]) + b"".join(parts)


def plain_object(attrs: bytes) -> bytes:
    """A named counter or quota (or what has no such numbers) for a comparison."""
    found = dict(attributes(attrs))
    if _integer(found.get(_OBJECT_TYPE)) == _COUNTER:
        return without(attrs, [_OBJECT_DATA])
    if _integer(found.get(_OBJECT_TYPE)) == _QUOTA:
        rest = without(found.get(_OBJECT_DATA, b""), [_QUOTA_CONSUMED])
        return without(attrs, [_OBJECT_DATA]) + nested(_OBJECT_DATA, rest)
    return attrs


def plain_elements(attrs: bytes, counting: bool) -> list[bytes]:
    """Elements of a set for a comparison; ``counting`` ones without what each of them has counted."""
    elements = [one for _, one in attributes(dict(attributes(attrs)).get(_SET_ELEMENTS, b""))]
    changing = (_ELEMENT_EXPIRATION, _ELEMENT_EXPRESSION, _ELEMENT_EXPRESSIONS)
    return [without(one, changing) for one in elements] if counting else elements


def compatible(attrs: bytes) -> bytes:
    """The attribute that a rule with matches of iptables needs to be made, which the kernel does not tell: the
    protocol that the rule is for (struct nft_compat, net/netfilter/nft_compat.c).
    """
    listed = list(_of(attrs))
    if not any(name in (b"match", b"target") for name, _ in listed):
        return b""
    for (name, data), (after, compared) in pairwise(listed):
        if after != b"cmp" or not _is_protocol(name, dict(attributes(data))):
            continue
        facts = dict(attributes(compared))
        value = dict(attributes(facts.get(_COMPARE_DATA, b""))).get(1, b"")
        if len(value) == 1:
            inverted = _integer(facts.get(_COMPARE_OPERATION)) == _NOT_EQUAL
            told = attribute(_COMPAT_PROTOCOL, struct.pack(">I", value[0]))
            told += attribute(_COMPAT_FLAGS, struct.pack(">I", _COMPAT_INVERTED if inverted else 0))
            return nested(_COMPAT, told)
    return b""


def _is_protocol(name: bytes, facts: dict[int, bytes]) -> bool:
    if name == b"meta":
        return _integer(facts.get(_META_KEY)) == _META_L4PROTO
    field = tuple(_integer(facts.get(each)) for each in (_PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH))
    return name == b"payload" and field == _PROTOCOL_FIELD


def _integer(value: bytes | None) -> int:
    return int(struct.unpack(">I", value)[0]) if value and len(value) == 4 else -1
