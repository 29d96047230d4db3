"""The Python interface: `train` and `simulate` take an experiment, a file or a shipped name, and return the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from launch.experiment import Experiment, Staleness, load_experiment
from launch.run import Run
from launch.rundir import choose_run_dir


def train(
    experiment: Experiment | str | Path,
    run_dir: str | Path | None = None,
    *,
    settings: Iterable[str] = (),
    resume: bool = False,
) -> Run:
    """Train with a server and worker processes on this host; returns when the run is over.

    settings: "section.key=value", as with `--set`.   run_dir: default `runs/NAME-DATE-TIME`.
    Raises the errors of `psserver.errors`, and KeyboardInterrupt after Ctrl-C (the run is saved first).
    """
    from launch.local import run_train

    resolved = _resolved(experiment, settings)
    folder = choose_run_dir(resolved.name, Path(run_dir) if run_dir else None, resume)
    return run_train(resolved, folder, resume=resume, bind=None, insecure=False, workers=resolved.train.workers)


def simulate(
    experiment: Experiment | str | Path,
    run_dir: str | Path | None = None,
    staleness: Staleness | None = None,
    settings: Iterable[str] = (),
) -> Run:
    """Run the same server and task in this process, with exact staleness; the same seed gives the same bytes.

    staleness: short for the setting `simulate.staleness`.   settings: "section.key=value", which win.
    """
    from launch.simulation import run_simulation

    chosen = [] if staleness is None else [f"simulate.staleness={staleness}"]
    resolved = _resolved(experiment, [*chosen, *settings])
    folder = choose_run_dir(resolved.name, Path(run_dir) if run_dir else None, resume=False)
    return run_simulation(resolved, folder)


def _resolved(experiment: Experiment | str | Path, settings: Iterable[str]) -> Experiment:
    if isinstance(experiment, Experiment):
        return experiment.with_settings(*settings)
    return load_experiment(experiment, settings)
