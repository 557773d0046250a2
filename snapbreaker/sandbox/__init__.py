"""Trying a command on overlays first: what it changes is seen by itself only, and applied when nothing tripped."""
