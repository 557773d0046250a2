"""Who is connected: no put back may cut off the operator that waits for it."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from snapbreaker.dataclass import dataclass
from snapbreaker.system.sockets import established

LEFT = "somebody is connected by it: left as it is"
_LOOPBACK = ("127.", "::1")
_MAPPED = "::ffff:"  # an IPv4 address of a socket of IPv6


@dataclass(frozen=True, slots=True)
class Connections:
    """The two ends of each TCP connection of this machine with others, as text."""

    ours: frozenset[str]
    peers: frozenset[str]

    @classmethod
    def now(cls) -> Connections:
        ends = [(here.removeprefix(_MAPPED), there.removeprefix(_MAPPED)) for here, there in established()]
        ends = [(here, there) for here, there in ends if not here.startswith(_LOOPBACK)]
        return cls(frozenset(here for here, _ in ends), frozenset(there for _, there in ends))

    def go_by(self, prefix: str, others: Sequence[str]) -> bool:
        """Whether a peer is in ``prefix`` (as ``10.0.0.0/8``) that is in none of the ``others``."""
        here = [peer for peer in self.peers if _holds(prefix, peer)]
        return any(not any(_holds(other, peer) for other in others) for peer in here)


def _holds(prefix: str, address: str) -> bool:
    network, _, length = prefix.partition("/")
    family = socket.AF_INET6 if ":" in network else socket.AF_INET
    if (":" in network) != (":" in address):
        return False
    one, other = socket.inet_pton(family, network), socket.inet_pton(family, address)
    rest = len(one) * 8 - int(length)
    return int.from_bytes(one, "big") >> rest == int.from_bytes(other, "big") >> rest
