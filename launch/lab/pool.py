"""The processes that compute a sweep's points side by side, and what is done when one of them dies."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import psserver.errors
from psserver.errors import YellowFinError

HAND = (sys.executable, "-m", "launch.lab.hand")
_ATTEMPTS = 2
_PATIENCE = 6.0
"""Seconds in which a process must end after SIGTERM; a run with real processes saves and stops them meanwhile."""


@dataclass(frozen=True)
class Work:
    """A point to compute: its name, the folder with its experiment.toml, and how it is run."""

    name: str
    folder: Path
    how: Literal["simulate", "train"]


@dataclass
class _Hand:
    """One process, what it computes now, and what it has said so far."""

    process: subprocess.Popen[bytes]
    work: Work | None = None
    said: bytes = field(default=b"", repr=False)

    @property
    def out(self) -> int:
        """Where it answers."""
        if self.process.stdout is None:
            raise RuntimeError("a computing process has no standard output")
        return self.process.stdout.fileno()

    def give(self, work: Work) -> None:
        """Let it compute `work`."""
        self.work = work
        request = json.dumps({"folder": str(work.folder), "how": work.how}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # it is gone; the end of its output says so
            if self.process.stdin is not None:
                self.process.stdin.write(request)

    def end(self) -> str:
        """How it ended, once its output has."""
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Pool:
    """Up to `jobs` processes. Use as a context manager: none is left afterwards, however it ends.

    say:     told when a process died and its point is tried once more.
    command: starts a process that answers as `launch.lab.hand` does; this process's id is added.
    """

    def __init__(self, jobs: int, say: Callable[[str], None], command: Sequence[str] = HAND) -> None:
        self._command = [*command, str(os.getpid())]
        self._jobs = max(jobs, 1)
        self._say = say
        self._hands: list[_Hand] = []
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._environment = {**os.environ, **dict.fromkeys(threads, "1"), "OMP_WAIT_POLICY": "passive"}

    def __enter__(self) -> Pool:
        """Processes are started when there is work for them."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all processes: at once when they are idle, gently when they compute, by force when that takes long."""
        for hand in self._hands:
            if hand.process.stdin is not None:
                hand.process.stdin.close()
            if hand.work is not None:
                hand.process.terminate()
        until = time.monotonic() + _PATIENCE
        for hand in self._hands:
            try:
                hand.process.wait(max(until - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                hand.process.kill()
            hand.end()
        self._hands = []

    def run(self, works: Sequence[Work]) -> Iterator[tuple[Work, str]]:
        """Compute every work; yields each as it is finished, with "" or the reason why it could not be.

        Raises the YellowFinError of a point whose task or data are wrong: the same holds for all others.
        """
        waiting = deque(works)
        deaths: Counter[Path] = Counter()
        left = len(waiting)
        while left:
            self._employ(waiting)
            for hand in self._ready():
                work = hand.work
                answer = self._listen(hand)
                if answer is None or work is None:
                    continue
                died = answer.get("dead", "")
                deaths[work.folder] += bool(died)
                if died and deaths[work.folder] < _ATTEMPTS:
                    self._say(f"{work.name}: its process {died}; trying once more")
                    waiting.appendleft(work)
                    continue
                left -= 1
                yield work, f"its process {died} again" if died else ""

    def _employ(self, waiting: deque[Work]) -> None:
        """Give every idle process work, and start processes while there is more."""
        for hand in self._hands:
            if hand.work is None and waiting:
                hand.give(waiting.popleft())
        while waiting and len(self._hands) < self._jobs:
            hand = _Hand(
                subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                    env=self._environment,
                )
            )
            self._hands.append(hand)
            hand.give(waiting.popleft())

    def _ready(self) -> list[_Hand]:
        """Processes that have answered or ended."""
        readable = set(select.select([hand.out for hand in self._hands], [], [], 0.5)[0])
        return [hand for hand in self._hands if hand.out in readable]

    def _listen(self, hand: _Hand) -> dict[str, Any] | None:
        """The answer of a process, {"dead": how} when it ended, None while it is incomplete."""
        data = os.read(hand.out, 1 << 16)
        if not data:
            self._hands.remove(hand)
            return {"dead": hand.end()}
        hand.said += data
        if not hand.said.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(hand.said)
        hand.said, hand.work = b"", None
        if "error" in answer:
            if answer["trace"]:
                print(answer["trace"], file=sys.stderr)
            kind: type[YellowFinError] = getattr(psserver.errors, answer["error"])
            raise kind(answer["text"])
        return answer
