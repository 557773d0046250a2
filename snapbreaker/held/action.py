"""One request to the running init."""

from __future__ import annotations

from snapbreaker.dataclass import dataclass

# Options of systemctl(1) whose value may be the next word.
_VALUED = frozenset(
    {
        *("--type", "--state", "--property", "--root", "--image", "--host", "--machine", "--lines", "--output"),
        *("--signal", "--kill-whom", "--kill-who", "--kill-value", "--job-mode", "--preset-mode", "--what"),
        *("--timestamp", "--message", "--legend", "--check-inhibitors"),
    }
)
_VALUED_LETTERS = "tpPnosHM"
_KINDS = (
    *(".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".swap", ".slice", ".scope"),
    ".device",
)
_STOPPING = frozenset({"stop", "condstop"})
_IF_RUNNING = frozenset(
    {"try-restart", "condrestart", "reload-or-try-restart", "try-reload-or-restart", "condreload"}
)
_STARTING = frozenset({"start", "restart", "reload-or-restart", "force-reload"})
RELOADS = frozenset({"daemon-reload", "daemon-reexec"})


@dataclass(frozen=True, slots=True)
class Action:
    """``program`` was called with exactly ``words``: surrogateescape, ``os.fsencode`` is exact."""

    program: str
    words: tuple[str, ...]

    @property
    def argv(self) -> list[str]:
        return [self.program, *self.words]

    @property
    def plain(self) -> list[str]:
        """The words that are no options: of systemctl the verb and units, of the others a name and an action."""
        found, valued, only = [""][:0], False, False
        for word in self.words:
            if valued:
                valued = False
            elif only or not word.startswith("-"):
                found.append(word)
            elif word == "--":
                only = True
            else:
                valued = _wants_value(word)
        return found

    @property
    def verb(self) -> str:
        """Empty for systemd-tmpfiles(8)."""
        if self.program == "systemctl":
            return self.plain[0] if self.plain else ""
        return self.plain[1] if self.asks_script and len(self.plain) > 1 else ""

    @property
    def units(self) -> list[str]:
        """Those that were named, with their suffix: systemctl(1). Patterns and paths are as they were."""
        if self.program != "systemctl":
            return []
        return [name if name.endswith(_KINDS) or "/" in name else f"{name}.service" for name in self.plain[1:]]

    @property
    def asks_script(self) -> bool:
        """Whether it is for an init script: service(8), invoke-rc.d(8)."""
        return self.program in ("service", "invoke-rc.d")

    @property
    def reloads(self) -> bool:
        """Whether it has systemd read its files again."""
        return self.program == "systemctl" and self.verb in RELOADS

    @property
    def stops(self) -> bool:
        return self.verb in _STOPPING

    @property
    def starts(self) -> bool:
        """Whether the units are up after it, whatever they were."""
        return self.verb in _STARTING

    @property
    def repeatable(self) -> bool:
        """Whether to do it twice in a row comes to the same as once. A signal may be counted."""
        return self.reloads or self.stops or self.starts or self.verb in _IF_RUNNING or self.verb == "reload"

    def __str__(self) -> str:
        return " ".join(self.argv)


def _wants_value(option: str) -> bool:
    """Whether the next word belongs to it: ``--signal``, ``-s``, ``-qs``; not ``--signal=1``, ``-s1``."""
    if option.startswith("--"):
        return option in _VALUED
    at = next((at for at, letter in enumerate(option) if letter in _VALUED_LETTERS), -1)
    return at == len(option) - 1
