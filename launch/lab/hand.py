"""A process that computes points, one after another, for a sweep.

It imports torch once. Requests come as lines of JSON on its standard input, {"folder": .., "how": ..}; each is answered
by one line, {"done": folder} or {"error": class, "text": .., "trace": ..}. It ends with its sweep, however that ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from launch.experiment import Experiment, load_experiment
from launch.nursery import die_with_parent
from launch.rundir import RunDir, read_summary
from launch.supervisor import RunFailed
from psserver.errors import TaskError, UserError
from psserver.options import CheckpointOptions


def compute(folder: Path, how: Literal["simulate", "train"]) -> None:
    """Run `folder/experiment.toml` in `folder/run`, then write `folder/outcome.json`.

    A sweep has many points, so checkpoints and TensorBoard's files are dropped, and the arrivals of a simulated run,
    which its experiment repeats. Raises UserError for what is wrong with the task or its data; a run that fails is
    an outcome.
    """
    run = RunDir(folder / "run")
    shutil.rmtree(run.path, ignore_errors=True)
    experiment = load_experiment(folder).model_copy(update={"checkpoint": CheckpointOptions(every=0)})
    started = time.monotonic()
    try:
        _run(experiment, run.path, how)
        failure = ""
    except RunFailed as error:
        failure = str(error)
    write_outcome(folder, time.monotonic() - started, failure, read_summary(run.summary))
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.rmtree(run.tensorboard, ignore_errors=True)
    if how == "simulate":
        run.arrivals.unlink(missing_ok=True)


def _run(experiment: Experiment, path: Path, how: Literal["simulate", "train"]) -> None:
    from launch.api import simulate, train

    (simulate if how == "simulate" else train)(experiment, path)


def write_outcome(folder: Path, seconds: float, failure: str, summary: dict[str, Any], *, lost: bool = False) -> None:
    """Write `folder/outcome.json`, whole or not at all. lost: the process that computed it was."""
    diverged = summary.get("reason") == "failed" or bool(failure)
    written = {"diverged": diverged, "failure": failure, "seconds": seconds, "summary": summary, "lost": lost}
    part = folder / "outcome.json.part"
    part.write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2) + b"\n")
    os.replace(part, folder / "outcome.json")


def main(parent: int) -> None:
    """Answer requests until there are no more."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides
    answers = os.dup(1)
    import launch.simulation  # noqa: F401 (imported before the first point, whose seconds are measured)

    for line in sys.stdin:
        request = json.loads(line)
        answer = _answer(Path(request["folder"]), request["how"])
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _answer(folder: Path, how: Literal["simulate", "train"]) -> dict[str, str]:
    """Compute a point, with all that it prints in its log."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    for target in (1, 2):
        os.dup2(log, target)
    os.close(log)
    print(f"started {datetime.now().isoformat(timespec='seconds')}, process {os.getpid()}", flush=True)
    try:
        compute(folder, how)
    except UserError as error:
        trace = ""
        if isinstance(error, TaskError):
            from worker.load import user_traceback

            trace = user_traceback(error)
        return {"error": type(error).__name__, "text": str(error), "trace": trace}
    finally:
        sys.stdout.flush()
    return {"done": str(folder)}


if __name__ == "__main__":
    main(int(sys.argv[1]))
