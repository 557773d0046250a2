"""All kinds of kernel state: what they are now, and the order in which they go back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from snapbreaker.dataclass import dataclass
from snapbreaker.system.changed import Changed, Table
from snapbreaker.system.kernel import addresses, hostname, link_state, modules, nftables, routes, swap, sysctl
from snapbreaker.system.kernel.kind import Kind, Old
from snapbreaker.system.kernel.place import is_shared

# Each after what it needs: links, their settings, addresses, routes. Addresses and links reset some settings.
_NETWORK = (sysctl.KIND, addresses.KIND, routes.RULES, routes.ROUTES, nftables.KIND)
_REST = (hostname.KIND, swap.KIND, modules.UNLOAD)
BEFORE_UNITS = (modules.LOAD, link_state.BEFORE_UNITS, *_NETWORK, sysctl.KIND, *_REST)
AFTER_UNITS = (modules.LOAD, link_state.AFTER_UNITS, *_NETWORK, *_REST)
KINDS = {kind.table: kind for kind in reversed(AFTER_UNITS)}
TABLES = tuple(KINDS)
SYSCTL, SWAP, MODULES = sysctl.KIND.table, swap.KIND.table, modules.LOAD.table
NFTABLES, ADDRESSES = nftables.KIND.table, addresses.KIND.table


def read() -> tuple[dict[str, Table], Table]:
    """Each table, and what is needed to put it back, by table and name. What cannot be read is left out."""
    tables: dict[str, Table] = {}
    contents: Table = {}
    shared = (MODULES, SWAP) if is_shared() else ()
    for kind in (kind for kind in KINDS.values() if kind.table not in shared):
        try:
            tables[kind.table], made = kind.read()
        except OSError:
            continue  # not in this kernel, or not ours to see
        contents |= {f"{kind.table} {name}": data for name, data in made.items()}
    return tables, contents


@dataclass(slots=True)
class PutBack:
    """What was done: ``done`` by table and name, ``refused`` in words."""

    done: list[Changed]
    refused: list[str]


Differences = Callable[[str, Table], list[Changed]]
"""What of a table is to be put back, given how it is now."""


def put_back(differences: Differences, contents: Table, age: float, kinds: Iterable[Kind]) -> PutBack:
    """Kind by kind; one that fails keeps none of the others."""
    done: dict[tuple[str, str], Changed] = {}
    refused: dict[tuple[str, str], str] = {}
    for kind in kinds:
        prefix = f"{kind.table} "
        own = {name.removeprefix(prefix): data for name, data in contents.items() if name.startswith(prefix)}
        try:
            changes = [one for one in differences(kind.table, kind.read()[0]) if not kind.nobodys(one)]
            if not changes:
                continue
            why = kind.put_back(changes, Old(own, age, _addresses(contents)))
            left = {one.name for one in differences(kind.table, kind.read()[0])}
        except OSError as error:
            refused[kind.table, ""] = f"{kind.table} could not be put back: {error.strerror}"
            continue
        for one in changes:
            if one.name not in left:
                done[kind.table, one.name] = one
                refused.pop((kind.table, one.name), None)
            elif one.name in why:
                refused[kind.table, one.name] = f"{named(one)} cannot be put back: {why[one.name]}"
    return PutBack(list(done.values()), list(refused.values()))


def _addresses(contents: Table) -> frozenset[str]:
    names = (name for name in contents if name.startswith(f"{ADDRESSES} "))
    return frozenset(name.rpartition(" ")[2].partition("/")[0] for name in names)


def named(change: Changed) -> str:
    """``sysctl vm.swappiness``."""
    return f"{KINDS[change.table].word} {change.name}".strip()


def is_nobodys(change: Changed) -> bool:
    return change.table in KINDS and KINDS[change.table].nobodys(change)


def counts(change: Changed) -> bool:
    """Settings that came or went did so with a module or a link, which says it; others cannot be set."""
    return change.table != SYSCTL or bool(change.was and change.now and sysctl.may_be_set(change.name))
