"""Runs one command and watches it: reads, judges, passes on, and at the first issue freezes and kills all of it.

One thread does everything, and everything it needs is loaded and open before the command starts. Inside the loop
it touches no file but those of cgroupfs and /proc.

A command is over when its own process has ended and its output has. Processes that it leaves running may hold the
output open: after LINGER seconds without any, or LINGER_LIMIT at most, it is closed (they get EPIPE, as in any
pipeline). What they write until then is judged.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from snapbreaker.issue import Issue
from snapbreaker.linux.sched import urgent
from snapbreaker.monitor import own_issues
from snapbreaker.monitor.channel import Channel, TerminalChannel
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.lines import Line
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.signals import INTERRUPTS, Signals
from snapbreaker.monitor.spawn import resolve_command, spawn
from snapbreaker.monitor.streams import Relay, Source, fill_standard_descriptors, standard_relays
from snapbreaker.monitor.timers import Clocks
from snapbreaker.monitor.watched import OutputSink, RunSpec, Watched

FREEZE = 0.05  # seconds to wait for a standstill before killing anyway
LINGER = 1.0
LINGER_LIMIT = 10.0
_DRAIN = 1 << 20  # octets taken at most from a source that is being emptied
_PATIENCE = 1.0  # seconds that a reader of ours may take nothing before a halted run drops the rest
_BREATH = 2  # milliseconds without output until rules are prepared, one after the other: the command comes first
_CONTEXT = 10  # lines before and after


def _nothing(pid: int) -> None:
    pass


class Monitor:
    """One run of ``spec`` inside ``tree``.

    ``sinks`` see all output after it was judged. ``watch_fds``: descriptors that trip the breaker when they become
    readable, with what makes the issue (the watchdog's pidfd). ``on_started(pid)`` is called when the command's
    process exists and before it executes anything. ``relays``: where each source (stdout, stderr, pty) is passed
    on to; None: our own standard output and error. Main thread only, and the only thread.
    """

    def __init__(
        self,
        spec: RunSpec,
        judge: Judge,
        tree: ProcessTree,
        sinks: Sequence[OutputSink] = (),
        watch_fds: Mapping[int, Callable[[], Issue]] | None = None,
        on_started: Callable[[int], None] = _nothing,
        relays: Mapping[str, Relay] | None = None,
    ) -> None:
        self.spec, self.judge, self.tree = spec, judge, tree
        self._sinks = sinks
        self._watched_fds = dict(watch_fds or {})
        self._on_started = on_started
        self._own_relays = relays is None
        self._relays: dict[str, Relay] = dict(relays or {})
        self.watched = Watched()
        self._signals = Signals()
        self._pid = 0
        self._ended_at: float | None = None
        self._last_output = 0.0
        self._polled: dict[int, int] = {}  # what ``_poller`` waits for
        self._poller = select.poll()

    def run(self) -> Watched:
        """Run the command to its end, or halt it. On success what it left running still runs, in ``tree``.

        Raises UsageError, CommandNotFound, CommandNotExecutable, CheckpointError: nothing was run. After any other
        exception nothing of the command runs any more.
        """
        command = resolve_command(self.spec.argv, self.spec.env, self.spec.cwd)
        fill_standard_descriptors()
        if self._own_relays:
            self._relays = standard_relays()
        self._channel = TerminalChannel() if self._wants_terminal() else Channel()
        try:
            with self._signals as signals:
                self.watched.started = time.time()
                self._pid = spawn(
                    command, self._channel.stdio, self.tree, self._on_started, signals.ignored, self.spec.enter
                )
                self._channel.started()
                self._channel.attach()
                with urgent() as self.watched.priority:
                    self._run()
        finally:
            self._channel.close()
            if self._own_relays:
                for relay in self._relays.values():
                    relay.close()
        return self.watched

    def _run(self) -> None:
        self._clocks = Clocks(self.spec.idle, self.spec.timeout)
        try:
            while not self._is_over():
                self._step()
            if self.watched.issue is None:
                self._end_of_output()
            if self.watched.issue is not None:
                self._halt(self.watched.issue)
            else:
                self.watched.left = [(one.pid, one.comm) for one in self.tree.members().values()]
        except BaseException:
            self.tree.kill()
            raise
        self._account()

    def _wants_terminal(self) -> bool:
        if self.spec.pty is not None:
            return self.spec.pty
        return os.isatty(0) and os.isatty(1)

    # one turn of the loop

    def _step(self) -> None:
        ready = self._poll()
        for source in self._channel.sources:
            if source.fd in ready:
                self._read(source)
        if signal_numbers := self._signals.take():
            self._on_signals(signal_numbers)
        self._on_keyboard(ready)
        for fd in ready & self._watched_fds.keys():
            self._found([self._watched_fds.pop(fd)()], halt=True)
        for relay in self._relays.values():
            relay.flush()
        self._on_time()

    def _poll(self) -> set[int]:
        wanted = dict.fromkeys([self._signals.fd, *self._watched_fds], select.POLLIN)
        for source in self._channel.sources:
            if not source.ended and not self._is_throttled(source):
                wanted[source.fd] = select.POLLIN
        for relay in self._relays.values():
            if relay.pending:
                wanted[relay.fd] = select.POLLOUT
        keyboard = self._channel.keyboard
        if keyboard and not keyboard.ended and not keyboard.full:
            wanted[keyboard.fd] = select.POLLIN
        if keyboard and keyboard.pending:
            master = self._channel.sources[0].fd
            wanted[master] = wanted.get(master, 0) | select.POLLOUT
        if wanted != self._polled:
            self._polled, self._poller = wanted, select.poll()
            for fd, events in wanted.items():
                self._poller.register(fd, events)
        poll, patience = self._poller, self._patience()
        ready = poll.poll(_BREATH if patience is None else min(patience, _BREATH))
        if not ready and not self.judge.prepare():
            ready = poll.poll(self._patience())
        return {fd for fd, _ in ready}

    def _patience(self) -> float | None:
        """Milliseconds until a clock needs us."""
        now = time.monotonic()
        times = [self._clocks.deadline(), self.judge.deadline(), self._linger_end()]
        ends = [end for end in times if end is not None]
        return max(0.0, (min(ends) - now) * 1000) if ends else None

    def _read(self, source: Source) -> bool:
        """Judge first, pass on then; whether there was anything."""
        data = source.read()
        read_at = time.monotonic()
        if data:
            self._last_output = read_at
            self._clocks.touch()
            self._found(self.judge.feed(source.name, data), read_at)
            if relay := self._relays.get(source.name):
                relay.output(source.name, data)
            for sink in self._sinks:
                sink.output(source.name, data)
        elif source.ended:
            self._found(self.judge.close(source.name), read_at)
        return bool(data)

    def _is_throttled(self, source: Source) -> bool:
        relay = self._relays.get(source.name)
        return relay is not None and relay.full

    def _on_time(self) -> None:
        if any(self._is_throttled(source) for source in self._channel.sources):
            self._clocks.touch()  # the command waits for our reader, so its silence says nothing
            if self._ended_at is not None:
                self._ended_at = time.monotonic()
        self._found(self.judge.settle())
        if self._ended_at is None and self._clocks.silent():
            self._clocks.touch()
            self._found([own_issues.silence(self._pid, self.spec.idle)])
        if self._clocks.over():
            self._clocks.stop_timeout()
            self._found([own_issues.overtime(self.spec.timeout)])

    # what happens to the command

    def _found(self, issues: Sequence[Issue], read_at: float | None = None, halt: bool = False) -> None:
        """Note issues; the first one stops everything at once, unless we only observe (``halt``: even then)."""
        if not issues:
            return
        if self.watched.issue is None and (halt or not self.spec.observe):
            self.watched.issue = issues[0]
            self.watched.read_at = read_at or time.monotonic()
            if self.tree.freeze_cgroup(FREEZE):
                self.watched.reaction_seconds = time.monotonic() - self.watched.read_at
            self.watched.before = self._before(issues[0])
        self.watched.issues += issues

    def _before(self, issue: Issue) -> list[Line]:
        if issue.line_number:
            lines = self.judge.context(_CONTEXT, until=issue)
            if lines and lines[-1].number == issue.line_number:
                return lines
        return self.judge.context(_CONTEXT)

    def _on_signals(self, numbers: set[int]) -> None:
        for number in INTERRUPTS:
            if number in numbers and not (number == signal.SIGHUP and self.spec.ignore_hangup):
                self._interrupted(number)
        if signal.SIGTSTP in numbers:
            self._suspend()
        if signal.SIGWINCH in numbers:
            self._channel.resize()
        if signal.SIGCHLD in numbers:
            self._on_children()

    def _interrupted(self, number: int) -> None:
        self._found([own_issues.interrupt(number)])
        if self.spec.observe:
            self._channel.interrupt(self._pid, number)

    def _on_keyboard(self, ready: set[int]) -> None:
        keyboard = self._channel.keyboard
        if keyboard is None:
            return
        keyboard.flush()
        for number in keyboard.read() if keyboard.fd in ready else ():
            if number != signal.SIGTSTP:
                self._interrupted(number)
            elif self._channel.passes_stop(self._pid):
                keyboard.press(number)
            else:
                self._suspend()

    def _suspend(self) -> None:
        """Ctrl-Z: the command stops, then we do, until the shell continues us."""
        self._clocks.pause()
        self._channel.suspend(self._pid)
        self._signals.stop_ourselves()
        self._channel.resume(self._pid)
        self._clocks.resume()

    def _on_children(self) -> None:
        with suppress(ChildProcessError):
            changed = os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            if changed and changed.si_code == os.CLD_CONTINUED:
                self._clocks.resume()
            elif changed and changed.si_status in (signal.SIGSTOP, signal.SIGTSTP):
                self._clocks.pause()  # on purpose; one that waits for a terminal (SIGTTIN) is a silent one
        ended = self.tree.reap().get(self._pid)
        if ended is None:
            return
        self._ended_at = time.monotonic()
        self._clocks.resume()
        if ended.si_code == os.CLD_EXITED:
            self.watched.status = ended.si_status
        else:
            self.watched.signal = ended.si_status
        if self.watched.status != 0:
            self._failed()

    def _failed(self) -> None:
        """What it wrote last says more than its status, so that is judged first, with the rest of it frozen."""
        if not self.spec.observe:
            self.tree.freeze_cgroup(FREEZE)
        self._drain()
        self._found([own_issues.failure(self.watched.status, self.watched.signal)])

    # its end

    def _is_over(self) -> bool:
        if self.watched.issue is not None:
            return True
        if self._ended_at is None or any(relay.pending for relay in self._relays.values()):
            return False
        end = self._linger_end()
        return end is None or time.monotonic() >= end

    def _linger_end(self) -> float | None:
        """Until when output that is still open is read after the command's end."""
        if self._ended_at is None or all(source.ended for source in self._channel.sources):
            return None
        return min(max(self._ended_at, self._last_output) + LINGER, self._ended_at + LINGER_LIMIT)

    def _end_of_output(self) -> None:
        for source in self._channel.sources:
            if not source.ended:
                self._found(self.judge.close(source.name))

    def _halt(self, issue: Issue) -> None:
        watched = self.watched
        watched.freeze = self.tree.freeze(FREEZE)
        if watched.reaction_seconds is None and watched.freeze.frozen and watched.read_at is not None:
            watched.reaction_seconds = time.monotonic() - watched.read_at
        self._drain()
        if self.spec.grace > 0:
            self._wait_for_grace()
        watched.kill = self.tree.kill()
        if watched.read_at is not None:
            watched.dead_seconds = time.monotonic() - watched.read_at
        self._drain()
        self._end_of_output()
        watched.after = self.judge.following(issue, _CONTEXT) if issue.line_number else []
        for relay in self._relays.values():
            relay.finish(_PATIENCE)

    def _wait_for_grace(self) -> None:
        """SIGTERM to all, and time to obey it."""
        self.tree.signal(signal.SIGTERM)
        self.tree.thaw()
        deadline = time.monotonic() + self.spec.grace
        while time.monotonic() < deadline and self.tree.members():
            time.sleep(0.02)
            self._drain()
            self.tree.reap()
        self.watched.freeze = self.tree.freeze(FREEZE)

    def _drain(self) -> None:
        """Take what is in the pipes now."""
        for source in self._channel.sources:
            end = source.octets + _DRAIN
            while not source.ended and source.octets < end and self._read(source):
                pass

    def _account(self) -> None:
        watched = self.watched
        watched.ended = time.time()
        watched.lines = dict(self.judge.lines)
        watched.octets = {source.name: source.octets for source in self._channel.sources}
        watched.dropped = {name: relay.dropped for name, relay in self._relays.items() if relay.dropped}
