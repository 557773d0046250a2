"""What is in a directory of a VM, as Debian's own tools tell; shares no code with the engine."""

from __future__ import annotations

from tests.lab.vm import Vm

# Type, mode, owner, size, mtime, links, target; then contents. Nothing of it changes an mtime.
LIST = r"""cd "$1" && find . -path ./.snapbreaker -prune -o \( -type d -printf 'd %m %U:%G %T@ %p\n' \
-o -printf '%y %m %U:%G %s %T@ %n %l %p\n' \) | sort && find . -path ./.snapbreaker -prune -o -type f -print0 |
sort -z | xargs -0r sha256sum && getfattr -dRh -m- --absolute-names . 2>&1"""


def listing(vm: Vm, directory: str) -> list[str]:
    """A line for each fact; equal when nothing that counts differs."""
    done = vm.run("sh", "-c", LIST, "list", directory)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
