"""The garbage collector, kept out of work on many files: its passes over all that is held took a quarter of it."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def uncollected(work: Callable[_P, _T]) -> Callable[_P, _T]:
    """A function that makes next to no cycles, and meanwhile nothing looks for any."""

    @functools.wraps(work)
    def done(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if not gc.isenabled():
            return work(*args, **kwargs)
        gc.disable()
        try:
            return work(*args, **kwargs)
        finally:
            gc.enable()

    return done
