"""The bundle's __main__.py. Any Python 3 must be able to read it."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write("snapbreaker: needs Python 3.11 or newer, this is " + sys.version.split()[0] + "\n")
    sys.exit(70)
try:
    from snapbreaker.__main__ import main
except BaseException as error:
    # Python would exit 1, which is snapbreaker's word for "rolled back and verified".
    sys.stderr.write("snapbreaker: cannot start: " + repr(error) + "\n")
    sys.exit(70)
main()
