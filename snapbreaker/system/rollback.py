"""How packages, units, accounts, sockets and the kernel's state go along with the files in a rollback.

quiesce (what the run started stops) → for each volume: let go (who works on its files stops), files go back →
reconcile (systemd reads its files again; what was up comes up, what runs on replaced files is restarted) → verify.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import field, replace

from snapbreaker.checkpoint.record import Record
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import SnapbreakerError
from snapbreaker.files.entry import Change
from snapbreaker.linux.systemd import Manager, booted
from snapbreaker.system import boot_sectors, cron, runtime_units, schedulers, strays
from snapbreaker.system.boot import Boot
from snapbreaker.system.holders import Holder, holders
from snapbreaker.system.kernel import kinds
from snapbreaker.system.kernel.place import here
from snapbreaker.system.kernel.rollback import KernelRollback
from snapbreaker.system.owners import is_session, our_units
from snapbreaker.system.parts import Parts
from snapbreaker.system.proof import Proof
from snapbreaker.system.services import Services
from snapbreaker.system.state import BOOT_SECTORS, RUNTIME, UNITS
from snapbreaker.system.target import Target
from snapbreaker.system.units import may_be_stopped


@dataclass(slots=True)
class SystemOutcome:
    """What came of it. ``differences`` are (name, text), ``compared`` (what, how many)."""

    differences: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: list[tuple[str, int]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    restarted: dict[str, str] = field(default_factory=dict)  # with the reason
    kernel: dict[str, str] = field(default_factory=dict)  # what was put back of its state, with what it is now
    reconcile_seconds: float = 0.0
    verify_seconds: float = 0.0


class SystemRollback:
    """One rollback of the system's parts; where nothing was recorded of them no step does anything.

    No step raises: what goes wrong is in ``outcome``, and speaks against success.
    """

    def __init__(self, parts: Parts, target: Target | None, run_id: str, halted: bool) -> None:
        self._parts, self._target, self._run_id, self._halted = parts, target, run_id, halted
        self._services: Services | None = None
        self._kernel = KernelRollback(target) if target is not None and parts.kernel else None
        self._by_cron: strays.Jobs = dict
        self.outcome = SystemOutcome()

    @classmethod
    def of(cls, record: Record, undo: bool, whole: bool = True, again: bool = False) -> SystemRollback:
        """For a rollback of ``record``; of single paths (not ``whole``) the system's parts stay as they are.

        ``undo``: of a committed run, what it changed; ``again``: the other way, when a rollback is taken back.
        """
        parts, nothing = Parts(**record.meta.parts), cls.nothing(record)
        if not parts:
            return nothing
        if parts.services and not booted():
            parts = replace(parts, services=False)
            nothing.outcome.notes.append("systemd does not run: units were not looked at")
        if parts.kernel and not here():
            parts = replace(parts, kernel=False)
            nothing.outcome.notes.append("in another namespace than PID 1: the kernel's state was not looked at")
        if not whole:
            nothing.outcome.notes.append("only paths went back: packages and units were not looked at")
            return nothing
        try:
            target = Target.of(record.path, undo, again)
        except (OSError, ValueError, KeyError, TypeError) as error:
            nothing.outcome.errors.append(f"what was recorded of the system cannot be read: {error!r}")
            return nothing
        if not target.wanted.of_this_boot:
            parts = replace(parts, kernel=False)
        made = cls(parts, target, "" if again else record.run_id, halted=not undo and record.meta.kind == "run")
        made.outcome.notes += nothing.outcome.notes
        return made

    @classmethod
    def nothing(cls, record: Record) -> SystemRollback:
        """One that does nothing."""
        return cls(Parts(), None, record.run_id, False)

    @property
    def has_services(self) -> bool:
        """Whether it stops and starts any."""
        return self._target is not None and self._parts.services

    def quiesce(self) -> None:
        """Stop what the run has started outside of its own processes: units, jobs, what others run for it."""
        if self.has_services:
            self._attempt("stop what the run had started", self._stop_extra)
        if self._target is not None and self._run_id:
            self._hold_schedulers(self._target)
            self._end_strays()
        if self._kernel is not None:
            self._attempt("turn swap off", self._kernel.turn_swap_off)

    def let_go(self, root: str, changes: Collection[Change]) -> bool:
        """Stop the services that work on files which are about to go back; whether there was any."""
        if not (self.has_services and changes):
            return False
        before = len(self.outcome.stopped)
        self._attempt("stop who works on changed files", lambda: self._stop_holders(holders(root, changes)))
        return len(self.outcome.stopped) > before

    def reconcile(self, touched: Collection[str]) -> None:
        """The files are back: let systemd read them, and bring every unit to where it was.

        ``touched`` are the files (no directories) that went back, absolute.
        """
        if self._target is not None and self._run_id:
            self._end_strays()  # cron may just have been about to start one
            schedulers.let_go()
        if self._target is not None and self._parts.boot:
            self._attempt("put the boot sectors back", self._put_boot_back)
        self._attempt("put the kernel's state back", self._put_kernel_back)
        if not self.has_services:
            return
        started = time.monotonic()
        self._attempt("bring the units back", lambda: self._bring_back(touched))
        self._attempt("put the kernel's state back", self._follow)
        self.outcome.reconcile_seconds += time.monotonic() - started

    def verify(self) -> None:
        """Compare the system with what was recorded of it."""
        if self._target is None:
            return
        started = time.monotonic()
        if self._kernel is not None:
            self._tell_kernel(self._kernel)
        self._attempt("compare the system with the checkpoint", self._compare)
        self.outcome.verify_seconds = time.monotonic() - started
        if self._services is not None:
            self._services.close()

    # the steps

    def _hold_schedulers(self, target: Target) -> None:
        """Where one of them has something of the run's to start."""
        lines, before = target.cron_lines(), target.wanted.cron or {}
        if lines:
            self._by_cron = lambda: cron.jobs(lines, before, target.since)
        names = (*(cron.DAEMONS if lines else ()), *(schedulers.AT if strays.has_jobs(self._run_id) else ()))
        if names:
            schedulers.hold(names)

    def _end_strays(self) -> None:
        for text in strays.end(self._run_id, not self._halted, self._by_cron):
            self.outcome.notes.append(f"ended {text}, which the run had left running")

    def _stop_extra(self) -> None:
        services = self._connected()
        if not services.comparable or services.going_down:
            return
        if self._halted:
            services.cancel_jobs()
        self.outcome.stopped += services.stop_extra()

    def _stop_holders(self, found: list[Holder]) -> None:
        ours = our_units()
        units = {one.unit for one in found if may_be_stopped(one.unit) and one.unit.endswith(".service")} - ours
        for one in found:
            if one.unit not in units and one.unit not in ours and not is_session(one.unit):
                self.outcome.notes.append(f"{one} goes on working on {one.path}, as it was before it went back")
        self.outcome.stopped += self._connected().let_go(sorted(units))

    def _bring_back(self, touched: Collection[str]) -> None:
        assert self._target is not None
        services = self._connected()
        if not services.comparable:
            self.outcome.notes.append("the machine was booted since: units are as this boot starts them")
            Boot(services.manager).follow(touched)
            return
        if services.going_down:
            return
        only = self._target.only
        runtime = runtime_units.put_back(self._target.table(RUNTIME), None if only is None else only[RUNTIME])
        services.reload()
        services.bring_back({*touched, *runtime})
        self.outcome.stopped += services.stopped_again
        self.outcome.started += services.started
        self.outcome.restarted |= services.restarted
        self.outcome.errors += services.errors
        for name, reason in services.ground.items():
            self.outcome.notes.append(f"{name} is never restarted: {reason}; restart the machine when it suits")
        self.outcome.notes += [note for note in dict.fromkeys(services.notes) if note not in self.outcome.notes]

    def _put_kernel_back(self) -> None:
        """Services may need an address, a swap area, a setting to come up."""
        if self._kernel is not None and not self._is_going_down():
            started = time.monotonic()
            self._kernel.put_back()
            self.outcome.reconcile_seconds = time.monotonic() - started

    def _follow(self) -> None:
        if self._kernel is not None and not self._is_going_down():
            self._kernel.follow([*self.outcome.started, *self.outcome.restarted])

    def _tell_kernel(self, kernel: KernelRollback) -> None:
        self.outcome.kernel = kernel.done
        told = [*kernel.notes, *kernel.refused]
        self.outcome.notes += [note for note in dict.fromkeys(told) if note not in self.outcome.notes]

    def _is_going_down(self) -> bool:
        return self.has_services and self._connected().going_down

    def _put_boot_back(self) -> None:
        """After the files that they boot."""
        assert self._target is not None
        wanted, only = self._target.wanted, self._target.only
        names = None if only is None else only.get(BOOT_SECTORS, frozenset())
        for name in boot_sectors.put_back(self._target.table(BOOT_SECTORS), wanted.contents, names):
            self.outcome.notes.append(f"the boot {name} was put back")

    def _compare(self) -> None:
        proof = self._proof(self._parts)
        if (not proof or proof.differences) and self._parts.services and self._connected().going_down:
            # Somebody has asked for it, a failing power supply perhaps: it is not ours to call off, and half done.
            self.outcome.notes.append("the machine is shutting down: units are as the next boot starts them")
            proof = self._proof(replace(self._parts, services=False, kernel=False))
        if proof:
            self.outcome.differences += proof.differences
            self.outcome.notes += proof.notes
            self.outcome.compared += proof.compared

    def _proof(self, parts: Parts) -> Proof | None:
        """None where units would have to be compared that are just going down."""
        assert self._target is not None
        if parts.services and self._connected().going_down:
            return None
        left_out = (*(() if parts.services else (UNITS, RUNTIME)), *(() if parts.kernel else kinds.TABLES))
        tables = [table for table in self._target.tables if table not in left_out]
        over = self._services.over if self._services else frozenset()
        proof = Proof(parts, self._target, tables, over, self._kernel.told_only if self._kernel else ())
        proof.run()
        return proof

    def _connected(self) -> Services:
        assert self._target is not None
        if self._services is None:
            self._services = Services(Manager.connect(), self._target)
        return self._services

    def _attempt(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except SnapbreakerError as error:
            self.outcome.errors.append(f"could not {what}: {error.message}")
        except OSError as error:
            self.outcome.errors.append(f"could not {what}: {error}")
