"""``@dataclass``, made in a fifth of the time: the standard library's compiles six methods for each class.

With some 90 classes that were 45 ms of every start of snapbreaker. Here the methods that differ by the names of
the fields only are shared, and ``__init__`` is compiled when the first object is made. The fields are the standard
library's, so its ``asdict``, ``fields`` and ``replace`` work; to a type checker this is its ``dataclass``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool) -> Callable[[type], type]:
        """As ``dataclasses.dataclass`` with these options, the only ones. Subclasses get decorated as well."""

        def made(cls: type) -> type:
            # A docstring of its own keeps it from being made of the signature, which is slow.
            cls.__doc__ = cls.__doc__ or cls.__name__
            cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
            methods = _FROZEN if frozen else _MUTABLE
            for name in methods.keys() - cls.__dict__.keys():
                setattr(cls, name, methods[name])
            cls.__init__ = _first_init(cls, frozen)
            return cls

        return made


def _first_init(cls: Any, frozen: bool) -> Callable[..., None]:
    def first(self: object, *arguments: object, **named: object) -> None:
        if cls.__init__ is first:
            cls.__init__ = _compiled_init(cls, frozen)
        cls.__init__(self, *arguments, **named)

    return first


def _compiled_init(cls: Any, frozen: bool) -> Callable[..., None]:
    """``def __init__(self, a, b=b.default, c=MISSING): …``"""
    known: dict[str, Any] = {"MISSING": dataclasses.MISSING, "set": object.__setattr__}
    parameters, body = ["self"], []
    for field in dataclasses.fields(cls):
        name, value = field.name, field.name
        known[f"field_{name}"] = field
        if field.default_factory is not dataclasses.MISSING:
            parameters.append(f"{name}=MISSING")
            value = f"field_{name}.default_factory() if {name} is MISSING else {name}"
        elif field.default is not dataclasses.MISSING:
            parameters.append(f"{name}=field_{name}.default")
        else:
            parameters.append(name)
        body.append(f" set(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *(body or [" pass"])]), known)
    init: Callable[..., None] = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"  # named when an argument is missing
    return init


def _values(one: Any) -> tuple[Any, ...]:
    return tuple([getattr(one, name) for name in one.__match_args__])  # the names of all fields


def _eq(self: Any, other: Any) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = [f"{name}={getattr(self, name)!r}" for name in self.__match_args__]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse(self: Any, name: str, *_value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")


_MUTABLE: dict[str, Any] = {"__eq__": _eq, "__hash__": None, "__repr__": _repr}
_FROZEN = {**_MUTABLE, "__hash__": _hash, "__setattr__": _refuse, "__delattr__": _refuse}
