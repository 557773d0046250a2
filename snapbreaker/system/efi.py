"""The variables of EFI firmware that say what is booted, and which keys it trusts (efivarfs)."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress

VARIABLES = "/sys/firmware/efi/efivars"
_GLOBAL, _KEYS = "8be4df61-93ca-11d2-aa0d-00e098032b8c", "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
_LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  # https://systemd.io/BOOT_LOADER_INTERFACE
_WATCHED = re.compile(
    f"((Boot|Driver)[0-9A-F]{{4}}|BootOrder|DriverOrder|BootNext|Timeout|PK|KEK)-{_GLOBAL}"
    f"|dbx?-{_KEYS}|LoaderEntry(Default|OneShot)-{_LOADER}"
)


def read(directory: str = VARIABLES) -> dict[str, str]:
    """By name a digest of each that is there. A firmware that is no EFI has none."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        if _WATCHED.fullmatch(name):
            with suppress(OSError), open(f"{directory}/{name}", "rb") as file:
                found[name] = hashlib.sha256(file.read()).hexdigest()[:32]
    return found
