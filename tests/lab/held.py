"""A stand-in for the overlay's sandbox: the real files, but a private /run and what ``held`` binds.

``python3 held.py prepare``; ``python3 held.py run COMMAND…``; ``python3 held.py carry [SETTLE]`` prints the issue.
It is put on a machine, and takes snapbreaker from the bundle there.
"""

import json
import os
import subprocess
import sys

sys.path.insert(0, "/usr/local/bin/snapbreaker")
from snapbreaker import held

DIRECTORY = "/var/lib/held"
MOUNT = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/lock
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$2"; fi
    mount --bind "$1" "$2" || exit 99
    shift 2
done
shift
exec "$@"
"""


def main(verb: str, *words: str) -> int:
    if verb == "prepare":
        os.makedirs(DIRECTORY)
        held.prepare(DIRECTORY)
    elif verb == "run":
        pairs = [path for pair in held.bindings(DIRECTORY) for path in pair]
        return subprocess.call(["unshare", "--mount", "sh", "-ec", MOUNT, "sh", *pairs, "--", *words])
    elif verb == "recorded":
        print(json.dumps([str(action) for action in held.recorded(DIRECTORY)]))
    else:
        settle = float(words[0]) if words else 1.0
        issue = held.carry_out(held.recorded(DIRECTORY), DIRECTORY, reload=True, settle=settle)
        print(json.dumps(issue and issue.as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
