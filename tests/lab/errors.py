"""The lab's own failures."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not be set up: this is not a failed test."""
