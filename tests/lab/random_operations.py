"""Random lists of operations for hypothesis: the same ones in an ordinary test run, others in a long one."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.lab import soak
from tests.lab.actions import ACTIONS, MAKING, NAMES, NUMBERS
from tests.lab.operations import Operation


def steps(longest: int = 40, without: Collection[str] = ()) -> SearchStrategy[list[Operation]]:
    """What makes something comes more often: the rest needs it."""
    choice = st.integers(0, 255)
    actions = [action for action in ACTIONS if action not in without]
    making = [action for action in actions if action in MAKING]
    step = st.builds(
        Operation,
        st.one_of(st.sampled_from(making), st.sampled_from(actions)),
        choice,
        choice,
        st.sampled_from(range(len(NAMES))),
        st.sampled_from(NUMBERS),
    )
    return st.lists(step, max_size=longest)


def examples(count: int) -> settings:
    """So many in an ordinary test run. Nothing of an example may be left when it ends."""
    return settings(
        max_examples=soak.times(count),
        deadline=None,
        database=None,
        derandomize=not soak.IS_LONG,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
