"""The report as it lies in a record: ``report.json``, 0600, replaced atomically and durably."""

from __future__ import annotations

import json
import os

from snapbreaker.errors import CheckpointError
from snapbreaker.linux.durable import write_json
from snapbreaker.report.model import Report

NAME = "report.json"


def save_report(report: Report, record_path: str | os.PathLike[str]) -> str:
    """Write the report into the record's directory; returns its path. System calls only.

    When this returns the file is on disk under its name (fsync(2) of file and directory). Raises OSError; an
    earlier report is then still whole.
    """
    path = os.path.join(os.fspath(record_path), NAME)
    write_json(path, report.as_dict())
    return path


def load_report(record_path: str | os.PathLike[str]) -> Report:
    """Read the record's report. Raises CheckpointError when there is none or it cannot be read."""
    path = os.path.join(os.fspath(record_path), NAME)
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no report yet", "the run has not ended, or was a bare checkpoint"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a report")
    return Report.from_dict(data)
