"""Runs one command and watches it: reads, judges, passes on, and at the first issue freezes and kills all of it.

One thread does everything, and everything it needs is loaded and open before the command starts. Inside the loop
it touches no file but those of cgroupfs and /proc: what is written elsewhere comes from another process
(``elsewhere``).
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
from snapbreaker.monitor.activity import Activity
from snapbreaker.monitor.channel import Channel, TerminalChannel
from snapbreaker.monitor.elsewhere import Elsewhere
from snapbreaker.monitor.ending import Ending
from snapbreaker.monitor.halt import halt
from snapbreaker.monitor.intake import Intake
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.picture import picture
from snapbreaker.monitor.poller import Poller
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.relays import Relays
from snapbreaker.monitor.signals import INTERRUPTS, Signals
from snapbreaker.monitor.spawn import resolve_command, spawn
from snapbreaker.monitor.status import StatusLine
from snapbreaker.monitor.streams import Relay, fill_standard_descriptors
from snapbreaker.monitor.timers import Clocks
from snapbreaker.monitor.trip import CONTEXT, FREEZE, Trip
from snapbreaker.monitor.watched import OutputSink, RunSpec, Watched
from snapbreaker.sources.lookout import Lookout

_PATIENCE = 1.0  # seconds that a reader of ours may take nothing before a halted run drops the rest


def _nothing(pid: int) -> None:
    pass


class Monitor:
    """One run of ``spec`` inside ``tree``.

    ``sinks`` see all output after it was judged. ``watch_fds``: descriptors that trip the breaker when they become
    readable, with what makes the issue (the watchdog's pidfd). ``on_started(pid)`` is called when the command's
    process exists and before it executes anything. ``relays``: where each source (stdout, stderr, pty) is passed
    on to; None: our own standard output and error. ``lookout`` tells of logs and units. Main thread only, and the
    only thread.
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
        lookout: Lookout | None = None,
    ) -> None:
        self.spec, self.judge, self.tree = spec, judge, tree
        self._sinks = sinks
        self._watched_fds = dict(watch_fds or {})
        self._on_started = on_started
        self._given_relays, self._lookout = relays, lookout
        self.watched = Watched()
        self._trip = Trip(judge, tree, self.watched, spec.observe)
        self._found = self._trip.found
        self._signals = Signals()
        self._pid = 0
        self._poller = Poller(judge.prepare)

    def run(self) -> Watched:
        """Run the command to its end, or halt it. On success what it left running still runs, in ``tree``.

        Raises UsageError, CommandNotFound, CommandNotExecutable, CheckpointError: nothing was run. After any other
        exception nothing of the command runs any more.
        """
        command = resolve_command(self.spec.argv, self.spec.env, self.spec.cwd)
        fill_standard_descriptors()
        self._relays = Relays(self._given_relays, self.spec.stall)
        self._elsewhere = Elsewhere(self._lookout, self.judge, self._relays, self._sinks, self.watched)
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
            self._relays.close()
        return self.watched

    def _run(self) -> None:
        spec = self.spec
        self._clocks = Clocks(spec.idle, spec.timeout, spec.hard, spec.activity)
        screen = self._relays.screen() if spec.status and self._channel.keyboard else None
        self._status = StatusLine(screen, self._clocks, lambda: self.judge.lines, spec.status)
        self._activity = Activity(self.tree, spec.idle / 2) if spec.activity and spec.idle else None
        self._intake = Intake(
            self._channel.sources, self.judge, self._trip, self._relays, self._sinks, self._clocks, self._status
        )
        self._ending = Ending(self._intake, self._relays, self._elsewhere)
        try:
            while self.watched.issue is None and not self._ending.is_over():
                self._step()
            self._status.end()
            if self.watched.issue is None:
                self._intake.end()
                self._found(self._elsewhere.last())
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
        ready = self._poller.wait(self._wanted(), self._deadline())
        for source in self._channel.sources:
            if source.fd in ready:
                self._intake.take(source)
        if signal_numbers := self._signals.take():
            self._on_signals(signal_numbers)
        self._on_keyboard(ready)
        for fd in ready.keys() & self._watched_fds.keys():
            self._found([self._watched_fds.pop(fd)()], halt=True)
        if self._elsewhere.fd in ready:
            self._on_elsewhere()
        for number in self._relays.on_ready(ready):
            self._on_hangup(number)
        self._on_time()

    def _wanted(self) -> dict[int, int]:
        """What to poll for."""
        wanted = dict(self._relays.wanted())
        wanted.update(dict.fromkeys([self._signals.fd, *self._watched_fds], select.POLLIN))
        for source in self._channel.sources:
            if not source.ended and not self._relays.holds_back(source.name):
                wanted[source.fd] = select.POLLIN
        if (fd := self._elsewhere.fd) is not None:
            wanted[fd] = select.POLLIN
        keyboard = self._channel.keyboard
        if keyboard and not keyboard.ended and not keyboard.full:
            wanted[keyboard.fd] = select.POLLIN
        if keyboard and keyboard.pending:
            master = self._channel.sources[0].fd
            wanted[master] = wanted.get(master, 0) | select.POLLOUT
        return wanted

    def _deadline(self) -> float | None:
        """Monotonic time at which a clock needs us."""
        times = [
            self._clocks.deadline(),
            self.judge.deadline(),
            self._ending.deadline(),
            self._relays.deadline(self._ending.begun),
            self._elsewhere.deadline(),
            self._activity.due if self._activity else None,
            self._status.deadline(),
        ]
        return min((end for end in times if end is not None), default=None)

    def _on_elsewhere(self) -> None:
        """Logs and units."""
        read_at = time.monotonic()
        issues = self._elsewhere.take()
        if self._elsewhere.heard:
            self._clocks.touch()
        self._found(issues, read_at)

    def _on_time(self) -> None:
        ended = self._ending.begun
        if self._relays.detach_stalled(ended):
            why = f"our output was not read for {self.spec.stall:g} s: from then on it was only recorded"
            self.watched.warnings.append(why)
        if self._intake.held_back:
            self._clocks.touch()  # the command waits for our reader, so its silence says nothing
            self._ending.put_off()
        self._found(self.judge.settle())
        self._found(self._elsewhere.ripe())
        if self._activity and time.monotonic() >= self._activity.due and self._activity.look():
            self._clocks.lives()
        if not ended and self._clocks.silent():
            limit = self._clocks.silent_for
            self._clocks.touch()
            self._late(own_issues.silence(self._pid, limit))
        if self._clocks.over() and self.spec.timeout:
            self._clocks.stop_timeout()
            self._late(own_issues.overtime(self.spec.timeout))
        self._status.on_time()

    def _late(self, issue: Issue) -> None:
        """Nothing moves, or not fast enough: what is each process at, before it is frozen?"""
        self.watched.doing = self.watched.doing or picture(self.tree.members())
        self._found([issue])

    # what happens to the command

    def _on_signals(self, numbers: set[int]) -> None:
        for number in INTERRUPTS:
            if number in numbers:
                self._on_hangup(number) if number == signal.SIGHUP else self._interrupted(number)
        if signal.SIGTSTP in numbers:
            self._suspend()
        if signal.SIGWINCH in numbers:
            self._status.wipe()
            self._channel.resize()
        if signal.SIGCHLD in numbers:
            self._on_children()

    def _on_hangup(self, number: int) -> None:
        """Nobody looks on any more."""
        if self.spec.on_hangup == "continue":
            why = f"{own_issues.signal_name(number)}: nobody read our output any more, and it went on without"
            self.watched.warnings += [] if why in self.watched.warnings else [why]
        elif number == signal.SIGHUP:
            self._interrupted(number)
        else:
            self._found([own_issues.unread(number)])

    def _interrupted(self, number: int) -> None:
        self._found([own_issues.interrupt(number)])
        if self.spec.observe:
            self._channel.interrupt(self._pid, number)

    def _on_keyboard(self, ready: Mapping[int, int]) -> None:
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
        self._status.wipe()
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
        self._ending.begin()
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
        self._intake.drain()
        self._found([own_issues.failure(self.watched.status, self.watched.signal)])

    # its end

    def _halt(self, issue: Issue) -> None:
        halt(self.tree, self._intake, self.watched, self.spec.grace)
        self.watched.after = self.judge.following(issue, CONTEXT) if issue.line_number else []
        self._relays.finish(_PATIENCE)

    def _account(self) -> None:
        watched = self.watched
        watched.ended = time.time()
        watched.lines, watched.hits = dict(self.judge.lines), self.judge.hits
        watched.octets = {source.name: source.octets for source in self._channel.sources}
        watched.dropped = self._relays.dropped()
