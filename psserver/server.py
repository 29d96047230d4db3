"""The parameter server without sockets: every decision about a message, and the reply to it."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from psserver import wire
from psserver.admission import Admission, Model, Plan
from psserver.errors import CheckpointError, WireError
from psserver.gate import Gate
from psserver.handout import Handout
from psserver.intake import Intake
from psserver.journal import Journal
from psserver.members import Member, Members
from psserver.metrics import Arrival, NoRecord, Record
from psserver.options import RuleOptions, ServerOptions
from psserver.place import here
from psserver.rules import make_rule
from psserver.spread import Spread
from psserver.trajectory import Trajectory
from psserver.update import Updater
from psserver.wire import Push, Refusal, Reply, Request, Stop
from tuner import Tuner

Reason = Literal["done", "interrupted", "failed"]
_HOPELESS = 10  # gradients in a row, of every worker, that were not finite: the run has diverged


class ParameterServer:
    """Owns the parameters and applies each gradient as it arrives; the same object runs under ZeroMQ and simulated.

    `handle(sender, message)` returns the reply, or None when it is held back (bounded staleness, synchronous
    rounds); `released()` then gives the replies to others that an event let go. `tick()` notices who is lost.
    `resume` is the `state_dict()` of an earlier life. Errors: SharedMemoryError when /dev/shm is too small; ValueError
    for a rule that has no meaning in the server's mode.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        tuner: Tuner,
        rule: RuleOptions | None = None,
        options: ServerOptions | None = None,
        record: Record | None = None,
        clock: Callable[[], float] = time.monotonic,
        resume: dict[str, Any] | None = None,
    ) -> None:
        self.plan, self.layout = plan, model.layout
        self.options = options or ServerOptions()
        rule = rule or RuleOptions()
        rule.check_with(self.options)
        self.session = uuid.uuid4().hex
        self.phase: Literal["waiting", "training", "draining", "done"] = "waiting"
        self.reason: tuple[Reason, str] = ("done", f"{plan.updates} updates are made")
        self.journal = Journal(record or NoRecord(), clock)
        self.members = Members(self.options.heartbeat_timeout)
        self._clock, self._place = clock, here()
        self._deadline = math.inf
        self._gate = Gate(self.options, plan.workers)
        self._admission = Admission(model, plan, self.options, self.members, self.journal)
        self._tuner = tuner
        self.trajectory = Trajectory(
            resume["parameters"].numpy() if resume else model.parameters,
            version=resume["version"] if resume else 0,
            slots=self.options.slots or plan.workers + 3,
            directory=Path(self.options.shared_memory_dir) if self.options.shared_memory else None,
        )
        buffers = resume["buffers"] if resume else torch.from_numpy(model.buffers.copy())
        self._handout = Handout(self.trajectory, self._gate, self.members, buffers)
        self._rule = make_rule(rule, self.size, self.options.sources(plan.workers), model.tensors)
        self._spread = Spread(self.options.update_threads)
        updater = Updater(self.trajectory, self._rule, tuner, rule.gradient_decay, self._spread)
        bound, threshold = self.options.max_staleness, rule.discards_from
        self._intake = Intake(updater, self._gate, self.journal, self.session, bound, threshold)
        if resume:
            try:
                self._load(resume)
            except (KeyError, ValueError) as error:
                self.trajectory.close()
                found = f"one without {error}" if isinstance(error, KeyError) else error
                raise CheckpointError(
                    f"--resume: expected a checkpoint that this rule and this tuner can go on from, got {found}; "
                    "resume with the settings and the release that the run was started with"
                ) from error
        else:
            tuner.record(0, self.trajectory.current.tensor)

    @property
    def version(self) -> int:
        """Number of updates made, which is the newest version."""
        return self.trajectory.version

    @property
    def _over(self) -> bool:
        """No further update will be made."""
        return self.phase in ("draining", "done")

    @property
    def _end(self) -> Stop | None:
        """What workers are told once no further update will be made."""
        return Stop(*self.reason) if self._over else None

    @property
    def size(self) -> int:
        """N, the number of parameters."""
        return self.trajectory.current.values.size

    def handle(self, sender: str, message: Request) -> Reply | None:
        """Decide about one message of the connection `sender`; None when the reply is held back."""
        if isinstance(message, wire.Watch):
            return self.journal.status(self.phase, self.version, self.plan.updates, self.members)
        if isinstance(message, wire.Hello):
            return self._hello(sender, message)
        member = self.members.find(message.member if isinstance(message, wire.Heartbeat) else sender)
        if member is not None:
            member.heard = self._clock()
        if isinstance(message, wire.Heartbeat):
            return wire.Alive(self.session, self.version, member is not None, self._over)
        if member is None:
            return Stop(*self.reason) if self.phase == "done" else Refusal("unknown", "say Hello first (again)")
        match message:
            case wire.Push() if member.role == "worker":
                return self._push(member, message)
            case wire.Pull():
                member.pulled = True
                return self._handout.answer(member, self._end)
            case wire.Report() if member.role == "evaluator":
                self._handout.release(member)
                self.journal.evaluation(message.version, message.values, self.version)
                return wire.Noted()
            case wire.Goodbye():
                return self._goodbye(member, message)
        raise WireError(f"message: expected what a {member.role} says, got {type(message).__name__}")

    def released(self) -> list[tuple[str, Reply]]:
        """Replies, with their receivers, that were held back and are due now."""
        return self._handout.due(self._end)

    def tick(self, *, heard_all: bool = True) -> None:
        """Notice lost members; end a run that waits for nobody any more.

        heard_all: no message waits to be handled; until then, nobody is lost for silence.
        """
        for member, how in self.members.overdue(self._clock() if heard_all else -math.inf, self._place):
            if member.role == "worker" and not self._over:
                self.journal.progress.lost += 1
            self.journal.event("lost", member, f"{member.name} lost: {how}")
            self._part(member, "lost")
        if self.phase == "draining":
            late = [m for m in self.members if m.present]
            if not late or self._clock() > self._deadline:
                for member in late:
                    self.journal.event("late", member, f"{member.name} did not say goodbye in time")
                self.phase = "done"

    def stop(self, reason: Reason, text: str) -> None:
        """End the run now: every later message is answered with Stop."""
        if self.phase != "done":
            self.reason, self.phase = (reason, text), "done"
            self.journal.event(reason, None, text)

    def close(self) -> None:
        """Remove all shared memory; end the threads; close the record."""
        for member in self.members:
            member.drop_gradient()
        self._spread.close()
        self.trajectory.close()
        self.journal.close()

    def excuse(self, seconds: float) -> None:
        """The server was away (stopped, or writing) for that long: nobody counts as silent or late for it."""
        self.members.excuse(seconds)
        self._deadline += seconds

    def summary(self) -> dict[str, Any]:
        """Write summary.json and return what it holds."""
        return self.journal.summary(self.reason, self.version, len(self.members.workers))

    def state_dict(self) -> dict[str, Any]:
        """Everything a later life needs to continue: trajectory, rule, tuner, buffers, steps and counts."""
        current, previous = self.trajectory.current.tensor, self.trajectory.previous.tensor
        return {
            "layout": self.layout,
            "version": self.version,
            "parameters": current,
            "previous": previous if previous is not current else previous.clone(),
            "buffers": self.averaged_buffers(),
            "rule": self._rule.state_dict(),
            "tuner": self._tuner.state_dict(),
            "steps": self.members.state_dict(),
            "journal": self.journal.state_dict(),
        }

    def averaged_buffers(self) -> torch.Tensor:
        """Mean of the BatchNorm statistics last reported by each worker (float32 [B])."""
        return self._handout.averaged_buffers()

    def _load(self, state: dict[str, Any]) -> None:
        self.trajectory.restore_previous(state["previous"].numpy())
        self._rule.load_state_dict(state["rule"])
        self._tuner.load_state_dict(state["tuner"])
        self.members.load_state_dict(state["steps"])
        self.journal.load_state_dict(state["journal"])
        self.journal.event("resumed", None, f"resumed at update {self.version}")
        self._close_round()

    # Members ----------------------------------------------------------------------------------------------------

    def _hello(self, sender: str, hello: wire.Hello) -> Reply:
        if self.phase == "done" or (self._over and hello.role == "worker"):
            return Stop(*self.reason)
        refusal = self._admission.refusal(sender, hello)
        if refusal is not None:
            return refusal
        known = self.members.find(sender)
        if known is not None:
            self._handout.release(known)
            if known.role != hello.role or hello.rank not in (None, known.number):
                self._part(known, "left")
        member = self._admission.admit(sender, hello, self._clock())
        self._gate.forget(member)
        return self._admission.welcome(member, self.session, self.version)

    def _goodbye(self, member: Member, message: wire.Goodbye) -> Reply:
        kind = "failed" if message.reason == "failed" else "left"
        detail = f": {message.text}" if message.text else ""
        self.journal.event(kind, member, f"{member.name} {kind} after {message.pushes} pushes{detail}")
        self._part(member, "left")
        return Stop(*self.reason) if self._over else Stop("done", "goodbye")

    def _part(self, member: Member, state: Literal["lost", "left"]) -> None:
        self._handout.release(member, unread=state == "lost" and member.gradient is None)
        if not self._over:
            member.buffers = None
        self._gate.forget(member)
        self.members.part(member, state)
        member.drop_gradient()
        self._close_round()

    # Gradients --------------------------------------------------------------------------------------------------

    def _push(self, member: Member, push: Push) -> Reply | None:
        progress = self.journal.progress
        if push.step <= member.step:
            progress.repeated += 1
            return self._handout.again(member, self._end)
        member.account(push.step, self._clock())
        self._handout.release(member)
        refusal = Refusal("stale", "the run is complete") if self._over else self._intake.judge(push)
        if refusal is None:
            self.phase = "training"
            refusal = self._intake.take(member, push)
        member.not_finite = member.not_finite + 1 if refusal and refusal.code == "not-finite" else 0
        if refusal is None and isinstance(push.buffers, np.ndarray) and np.isfinite(push.buffers).all():
            member.buffers = torch.from_numpy(push.buffers.copy())
        rejection = self._reject(member, push, refusal) if refusal is not None else None
        self._close_round()
        return rejection or self._handout.answer(member, self._end)

    def _reject(self, member: Member, push: Push, refusal: Refusal) -> Reply:
        member.rejected += 1
        if self._over:
            self.journal.progress.reject_late()
            return Stop(*self.reason)
        self.journal.refuse(self.version, push.version, Arrival(member.number, push.step, push.fresh), refusal.code)
        if member.rejected == 1 or not self._intake.discards(push.version):  # what happens all the time is told once
            self.journal.event("rejected", member, f"{member.name}, step {push.step}: {refusal.text}")
        counts = [m.not_finite for m in self.members.workers if m.present]
        if min(counts) >= _HOPELESS:
            self.stop("failed", f"diverged: the last {sum(counts)} gradients were not finite")
            return Stop(*self.reason)
        return refusal

    def _close_round(self) -> None:
        """Make the synchronous update if it is due; see whether the run is complete."""
        if self._over:
            return
        if self._intake.close_round(self._handout.computing) is not None:
            self.stop("failed", "diverged: the mean of finite gradients is not finite")
        elif self.version >= self.plan.updates:
            self.phase = "draining"
            self._deadline = self._clock() + self.options.drain_timeout
