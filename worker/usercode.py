"""Where the user's own code runs: its exceptions become `TaskError`, its traceback is shown from its own frame on."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

import torch

from psserver.errors import TaskError, YellowFinError

_OURS = Path(__file__).resolve().parent.parent
_NOT_THE_USERS = (
    *(str(_OURS / package) + "/" for package in ("launch", "psserver", "tuner", "worker")),
    str(Path(torch.__file__).resolve().parent) + "/",
    "<frozen ",
)


class UserCode:
    """Context in which `what` (say "the loss of my_task.py:resnet") runs; what it raises becomes a `TaskError`.

    Our own errors pass unchanged, and so do interrupts.
    """

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, YellowFinError):
            text = str(error).strip()
            said = f"{type(error).__name__}: {text}" if text else type(error).__name__
            raise TaskError(f"{self._what} raised {said}") from error


def user_traceback(error: BaseException) -> str:
    """Return the traceback of the user's code behind `error`, from the first frame outside this project and torch.

    Takes the cause of a `TaskError`, else `error` itself. Chained exceptions are kept. Where no frame
    is the user's (a syntax error, or an error inside the ready-made tasks), the whole stack is shown.
    """
    cause = error.__cause__ if isinstance(error, TaskError) and error.__cause__ is not None else error
    report = traceback.TracebackException.from_exception(cause)
    frames = list(report.stack)
    first = next((k for k, frame in enumerate(frames) if not frame.filename.startswith(_NOT_THE_USERS)), None)
    if first is not None:
        report.stack = traceback.StackSummary.from_list(frames[first:])
    elif isinstance(cause, SyntaxError):
        report.stack = traceback.StackSummary()
    return "".join(report.format())
