"""Nothing is recorded: the command runs in a sandbox, and what it did is applied when nothing tripped."""

from snapbreaker_backends.overlay.backend import OverlayBackend

__all__ = ["OverlayBackend"]
