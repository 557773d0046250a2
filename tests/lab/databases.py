"""Databases that are written to without a pause, and whether what was restored of them is consistent."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SQLITE_WRITER = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("PRAGMA synchronous=NORMAL")
base.execute("PRAGMA wal_autocheckpoint=20")
base.execute("CREATE TABLE IF NOT EXISTS debit (n INTEGER PRIMARY KEY, amount INTEGER, filler TEXT)")
base.execute("CREATE TABLE IF NOT EXISTS credit (n INTEGER PRIMARY KEY, amount INTEGER, filler TEXT)")
print("ready", flush=True)
n = base.execute("SELECT coalesce(max(n), 0) FROM debit").fetchone()[0]
while True:
    n += 1
    base.execute("BEGIN IMMEDIATE")
    base.execute("INSERT INTO debit VALUES (?, ?, ?)", (n, n % 97, "d" * (n % 500)))
    base.execute("INSERT INTO credit VALUES (?, ?, ?)", (n, n % 97, "c" * (n % 700)))
    if n % 50 == 0:
        base.execute("DELETE FROM debit WHERE n % 50 = 7 AND n < ?", (n - 100,))
        base.execute("DELETE FROM credit WHERE n % 50 = 7 AND n < ?", (n - 100,))
    base.execute("COMMIT")
"""


@dataclass(slots=True)
class Sqlite:
    """A writer of one SQLite database in WAL mode: each transaction writes two tables that must stay equal."""

    directory: Path
    writer: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", SQLITE_WRITER, str(self.directory / "base.db")]
        self.writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.writer.stdout
        assert self.writer.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self.writer
        self.writer.kill()
        self.writer.communicate()

    def count(self) -> int:
        """How far the database is; raises when it is damaged or its halves are not of one instant."""
        base = sqlite3.connect(self.directory / "base.db")
        try:
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            sums = [
                base.execute(f"SELECT max(n), count(*), sum(amount) FROM {table}").fetchone()
                for table in ("debit", "credit")
            ]
        finally:
            base.close()
        assert sums[0] == sums[1]
        return int(sums[0][0])


@dataclass(slots=True)
class Redis:
    """A redis-server with an append-only file; each transaction sets two keys that must stay equal."""

    directory: Path
    server: subprocess.Popen[bytes] | None = None
    writer: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.directory.parent.parent / "redis.socket")

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": self.socket,
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "auto-aof-rewrite-min-size": "64kb",
            "save": "1 100",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.server = subprocess.Popen(
            ["redis-server", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while self._ask("PING") != b"+PONG":
            assert self.server.poll() is None, "redis-server does not start on these files"
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.server
        os.killpg(self.server.pid, signal.SIGKILL)  # with the children that rewrite and save
        self.server.wait()

    def __enter__(self) -> Self:
        self.start()
        self.writer = subprocess.Popen([sys.executable, "-c", REDIS_WRITER, self.socket])
        time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self.writer
        self.writer.kill()
        self.writer.wait()
        self.stop()

    def count(self) -> int:
        """How far it is; raises when redis does not load the files or its halves are not of one instant."""
        self.start()
        try:
            values = [self._ask("GET", key) for key in ("debit", "credit")]
        finally:
            self.stop()
        assert values[0] == values[1]
        return int(values[0])

    def _ask(self, *words: str) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.socket)
                client.sendall((" ".join(words) + "\r\n").encode())
                return client.recv(4096).rstrip(b"\r\n").split(b"\r\n")[-1]
        except (FileNotFoundError, ConnectionError):
            return b""


REDIS_WRITER = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
n = 0
while True:
    n += 1
    filler = "f" * (n % 300)
    commands = ["MULTI", f"SET debit {n}", f"SET f{n % 500} x{filler}", f"SET credit {n}", "EXEC"]
    client.sendall("".join(command + "\\r\\n" for command in commands).encode())
    client.recv(65536)
"""
