"""snapbreaker.dataclass: what it makes behaves as what the standard library makes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest

from snapbreaker import dataclass as ours


def made(dataclass: Any, frozen: bool) -> tuple[Any, Any]:
    @dataclass(frozen=frozen, slots=True)
    class Base:
        kind: ClassVar[str] = "base"
        a: int
        b: str = "b"

    @dataclass(frozen=frozen, slots=True)
    class Derived(Base):
        kind: ClassVar[str] = "derived"
        c: list[int] = dataclasses.field(default_factory=list)

        @property
        def first(self) -> int:
            return self.c[0]

    return Base, Derived


@pytest.mark.parametrize("frozen", [True, False])
def test_as_the_standard_library(frozen: bool) -> None:
    for kind, other in zip(made(ours.dataclass, frozen), made(dataclasses.dataclass, frozen), strict=True):
        for arguments, named in (((1,), {}), ((1, "x"), {}), ((), {"b": "y", "a": 2})):
            one, same, like = kind(*arguments, **named), kind(*arguments, **named), other(*arguments, **named)
            assert one == same
            assert repr(one) == repr(like)
            assert dataclasses.asdict(one) == dataclasses.asdict(like)
            assert dataclasses.replace(one, a=9) != one
            assert (one == like, one == 1) == (False, False)
            assert not hasattr(one, "__dict__")
        for wrong in ((), (1, 2, 3, 4)):
            with pytest.raises(TypeError) as ours_says:
                kind(*wrong)
            with pytest.raises(TypeError) as theirs_says:
                other(*wrong)
            assert str(ours_says.value) == str(theirs_says.value)
        assert kind.kind == other.kind
    derived = made(ours.dataclass, frozen)[1]
    assert derived(1).c is not derived(1).c
    assert derived(1, c=[5]).first == 5


def test_frozen_cannot_be_changed_and_can_be_a_key() -> None:
    base, _ = made(ours.dataclass, frozen=True)
    one = base(1)
    for name in ("a", "z"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.a
    assert {one, base(1)} == {base(1)}
    with pytest.raises(TypeError):
        hash(made(ours.dataclass, frozen=False)[0](1))
