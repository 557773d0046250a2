"""Packages that break the machine which installs them, as a half-unpacked libc6 or python3 would."""

from __future__ import annotations

from tests.lab.debs import Package

MULTIARCH = "/usr/lib/x86_64-linux-gnu"
SAID = "now the machine is broken"
FIFO = "/root/nobody-writes-here"
GARBAGE = r"printf '\001\002\003 no program\n' >{0}.new; chmod 755 {0}.new; mv -f {0}.new {0}"

# The last program of each is the one that breaks it; what follows is of the shell that runs already.
BREAKS = {
    "libc-moved": f"mv {MULTIARCH}/libc.so.6 {MULTIARCH}/libc.so.6.away",
    "loader-replaced": GARBAGE.format(f"{MULTIARCH}/ld-linux-x86-64.so.2"),
    "python-library-moved": "mv /usr/lib/python3.11 /usr/lib/python3.11.away",
    "python-replaced": GARBAGE.format("/usr/bin/python3.11"),
    # As a power cut leaves a file whose data never came to the disk: a shell takes it for an empty script.
    "python-emptied": "cp /dev/null /usr/bin/python3.11.new; chmod 755 /usr/bin/python3.11.new; "
    "mv -f /usr/bin/python3.11.new /usr/bin/python3.11",
}
# Of these nothing can be executed any more, systemd included.
FATAL = ("libc-moved", "loader-replaced")


def breaking(name: str, waits: bool = False) -> Package:
    """``waits``: broken, its postinst waits for ever; else it goes on, and so it fails."""
    then = f"read line <{FIFO}" if waits else "python3 -c pass\nfalse"
    script = f"[ -p {FIFO} ] || mkfifo {FIFO}\n{BREAKS[name]}\necho '{SAID}'\n{then}"
    return Package(package_name(name, waits), scripts={"postinst": script})


def package_name(name: str, waits: bool = False) -> str:
    return f"{name}-waits" if waits else name


FILES = 2000
HALF = "/usr/lib/half-unpacked"


def essential(version: str, script: str = "") -> Package:
    """Many files, all replaced by an upgrade; ``script`` runs when half of them are, with dpkg's pid in $dpkg.

    dpkg runs only when nobody else wants to, and who watches it starts no program: so it cannot be done first.
    """
    half = f"{HALF}/{FILES // 2:04}"
    watching = f"""chrt --idle --pid 0 $dpkg
(until read -r version rest <{half} && [ "$version" = {version} ]; do :; done 2>/dev/null; {script}) & """
    return Package(
        "half-unpacked",
        version=version,
        files={f"{HALF}/{number:04}": f"{version} {number}\n" * 20 for number in range(FILES)},
        scripts={"preinst": f"dpkg=$PPID\n{watching if script else ''}"},
        control={"Essential": "yes"},
    )
