"""The bundle's __main__.py. Any Python 3 must be able to read it."""

import sys
import zipimport

if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write("snapbreaker: needs Python 3.11 or newer, this is " + sys.version.split()[0] + "\n")
    sys.exit(70)


class Importer(zipimport.zipimporter):
    """The standard one reads each module twice, the first time to learn its name only: 10 ms of a start."""

    def get_filename(self, fullname: str) -> str:
        path = self.archive + "/" + self.prefix + fullname.rpartition(".")[2]
        return path + ("/__init__.py" if self.is_package(fullname) else ".py")


sys.path_hooks[:] = [Importer if hook is zipimport.zipimporter else hook for hook in sys.path_hooks]
sys.path_importer_cache.pop(sys.path[0], None)
try:
    from snapbreaker.__main__ import main
except BaseException as error:
    # Python would exit 1, which is snapbreaker's word for "rolled back and verified".
    sys.stderr.write("snapbreaker: cannot start: " + repr(error) + "\n")
    sys.exit(70)
main()
