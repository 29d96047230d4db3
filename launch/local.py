"""`train` and `server` on this host: a server process, worker processes, an evaluator, and a display of them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from launch.display import Display, Heading
from launch.experiment import Experiment
from launch.processes import Processes
from launch.run import Run
from launch.rundir import RunDir
from launch.supervisor import Supervisor
from launch.tensorboard import Follower
from psserver.shared_memory import sweep
from worker.connection import Watcher

_STEP_SECONDS = 0.1
_FOLLOW_SECONDS = 2.0
_MOST_POINTS = 20_000


def run_train(
    experiment: Experiment, run_dir: Path, *, resume: bool, bind: str | None, insecure: bool, workers: int
) -> Run:
    """Train with a server and `workers` worker processes on this host; shows how it goes and returns the run.

    bind: a further address for workers of other hosts; `insecure` was said if that needs saying.
    Raises what ended the run early: UserError, RunFailed, or Interrupted after a first Ctrl-C (it was saved).
    """
    private = Path(tempfile.mkdtemp(prefix="yfps-"))
    try:
        return _run(experiment, run_dir, [f"ipc://{private}/server", *([bind] if bind else [])], resume, workers)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def run_server(experiment: Experiment, run_dir: Path, *, resume: bool, bind: str, insecure: bool) -> Run:
    """Serve workers that are started by hand, here or on other hosts."""
    return _run(experiment, run_dir, [bind], resume, 0)


def _run(experiment: Experiment, run_dir: Path, bind: list[str], resume: bool, workers: int) -> Run:
    run_dir.mkdir(parents=True, exist_ok=True)
    shared = Path(experiment.server.shared_memory_dir)
    sweep(shared)
    places = RunDir(run_dir)
    settings, lives = _text(places.experiment), _text(places.lives)
    experiment.write(places.experiment)
    processes = Processes(run_dir)
    supervisor = Supervisor(experiment, processes, bind, resume, workers)
    try:
        with supervisor.signals():
            supervisor.start()
            _watch(supervisor, Heading(experiment.name, str(run_dir), supervisor.addresses[-1]))
            supervisor.finish()
        return Run(run_dir)
    finally:
        processes.close()
        sweep(shared)
        if resume and settings and _text(places.lives) == lives:  # no life began: the run is as it was
            places.experiment.write_text(settings, encoding="utf-8")


def _text(path: Path) -> str:
    """A file's text; "" where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _watch(supervisor: Supervisor, heading: Heading) -> None:
    """Show how the run stands until it is over; keep TensorBoard's file up to date beside it."""
    updates = supervisor.experiment.train.updates
    follower = Follower(supervisor.processes.run_dir, max(1, updates // _MOST_POINTS))
    watcher = Watcher(supervisor.addresses[0])
    followed, following = time.monotonic(), True
    try:
        with Display(heading) as display:
            supervisor.say = display.note
            while supervisor.step():
                status = watcher.poll()
                if status is not None:
                    supervisor.updates_seen = status.version
                    display.update(status)
                if time.monotonic() - followed > _FOLLOW_SECONDS:
                    following = following and _written(follower.step, display.note)
                    followed = time.monotonic()
                time.sleep(_STEP_SECONDS)
            display.finish(RunDir(supervisor.processes.run_dir))
    finally:
        watcher.close()
        _written(follower.close, supervisor.say if following else lambda text: None)


def _written(write: Callable[[], object], say: Callable[[str], None]) -> bool:
    """Whether TensorBoard's file could be written; if not it is said, and no reason for the run to end."""
    try:
        write()
    except OSError as error:
        say(f"TensorBoard's file cannot be written any more: {error.strerror}; metrics.jsonl has what it lacks")
        return False
    return True
