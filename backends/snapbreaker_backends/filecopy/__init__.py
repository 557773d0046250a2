"""filecopy: complete copies in one pack file, by reflink where the filesystem can."""

from snapbreaker_backends.filecopy.backend import FilecopyBackend

__all__ = ["FilecopyBackend"]
