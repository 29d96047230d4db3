"""Commands that compute: train, server, worker, simulate, replay, evaluate, demo and bench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from launch.experiment import Experiment

_EXPERIMENT = click.argument("experiment", metavar="EXPERIMENT")
_FOLDER = click.Path(path_type=Path, file_okay=False)
_OPTIONS = {
    "workers": click.option("--workers", type=int, metavar="N", help="Workers (train.workers)."),
    "updates": click.option("--updates", type=int, metavar="N", help="Updates (train.updates)."),
    "device": click.option("--device", metavar="NAME", help="auto, cpu or cuda (train.device, evaluate.device)."),
    "data_dir": click.option("--data-dir", type=_FOLDER, help="Folder of the data sets (data.dir)."),
    "set": click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key: section.key=value; repeatable."
    ),
    "run_dir": click.option("--run-dir", type=_FOLDER, help="Folder of the run; default runs/NAME-DATE-TIME."),
    "resume": click.option("--resume", is_flag=True, help="Go on from the run's newest checkpoint."),
    "insecure": click.option(
        "--insecure", is_flag=True, help="Let --bind open a port that other hosts reach, without keys."
    ),
}
_SHORT_FOR = {
    "workers": ("train.workers",),
    "updates": ("train.updates",),
    "device": ("train.device", "evaluate.device"),
    "data_dir": ("data.dir",),
    "staleness": ("simulate.staleness",),
}
_STALENESS = ("none", "round-robin", "memoryless", "gamma", "stragglers", "trace")


def _options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = _OPTIONS[name](function)
        return function

    return decorate


def _load(source: str, settings: tuple[str, ...], **short: Any) -> Experiment:
    """The experiment with the options that are short for a key, then with `--set`, which therefore wins."""
    from launch.experiment import load_experiment
    from launch.overrides import Override

    given = [
        Override(
            tuple(key.split(".")),
            str(value) if isinstance(value, Path) else value,
            f"--{option.replace('_', '-')} {value}",
        )
        for option, value in short.items()
        if value is not None
        for key in _SHORT_FOR[option]
    ]
    return load_experiment(source, [*given, *settings])


def _report(folder: Path) -> None:
    """The page of a run that has just ended."""
    from launch.report import report

    click.echo(f"Report: {report([folder])}")


def _run_dir(source: str, name: str, wanted: Path | None, resume: bool) -> Path:
    from launch.rundir import choose_run_dir

    if resume and wanted is None and (Path(source) / "experiment.toml").is_file():
        wanted = Path(source)
    return choose_run_dir(name, wanted, resume)


@click.command()
@_EXPERIMENT
@_options("workers", "updates", "device", "data_dir", "set", "run_dir", "resume")
@click.option("--bind", metavar="ADDRESS", help="Also let workers of other hosts join here: tcp://HOST:PORT.")
@_options("insecure")
def train(
    experiment: str,
    settings: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
    bind: str | None,
    insecure: bool,
    **short: Any,
) -> None:
    """Train on this host, each worker a process.

    EXPERIMENT is a TOML file, a name from `yfps configs`, or (with --resume) the folder of a run.
    """
    from launch.address import check_bind

    loaded = _load(experiment, settings, **short)
    address = check_bind(bind, insecure) if bind else None
    folder = _run_dir(experiment, loaded.name, run_dir, resume)

    from launch.local import run_train

    run_train(loaded, folder, resume=resume, bind=address, insecure=insecure, workers=loaded.train.workers)
    _report(folder)


@click.command()
@_EXPERIMENT
@click.option("--bind", metavar="ADDRESS", required=True, help="Where workers connect: tcp://HOST:PORT.")
@_options("insecure", "updates", "device", "data_dir", "set", "run_dir", "resume")
def server(
    experiment: str,
    bind: str,
    insecure: bool,
    settings: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
    **short: Any,
) -> None:
    """Serve the parameters to workers of any host."""
    from launch.address import check_bind

    loaded = _load(experiment, settings, **short)
    address = check_bind(bind, insecure)
    folder = _run_dir(experiment, loaded.name, run_dir, resume)

    from launch.local import run_server

    run_server(loaded, folder, resume=resume, bind=address, insecure=insecure)
    _report(folder)


@click.command()
@_EXPERIMENT
@click.option("--connect", metavar="ADDRESS", required=True, help="The server: tcp://HOST:PORT.")
@click.option("--rank", type=int, help="Worker number; default torchrun's or Slurm's, else the server's choice.")
@click.option("--patience", type=float, metavar="S", help="Seconds to wait for a silent server (launch.patience).")
@_options("device", "data_dir", "set")
def worker(
    experiment: str, connect: str, rank: int | None, patience: float | None, settings: tuple[str, ...], **short: Any
) -> int:
    """Compute gradients for a server."""
    from launch.address import check_connect
    from launch.rank import find_rank

    loaded = _load(experiment, settings, **short)
    found = find_rank(rank)
    wait = loaded.launch.patience if patience is None else patience

    from launch.process import run_worker

    return run_worker(loaded, check_connect(connect), found.rank, found.local, wait)


@click.command()
@_EXPERIMENT
@click.option("--staleness", type=click.Choice(_STALENESS), help="Who pushes next, see below (simulate.staleness).")
@_options("workers", "updates", "device", "data_dir", "set", "run_dir")
def simulate(experiment: str, settings: tuple[str, ...], run_dir: Path | None, **short: Any) -> None:
    """Run with exact staleness, in one process.

    The same seed gives the same bits, on any number of cores. Thousands of workers are possible.

    \b
    --staleness  each worker pushes
    none         in turn, a gradient of the newest version
    round-robin  in turn (the default): staleness M - 1
    memoryless   when it is drawn, at random for each update
    gamma        when it is done: service times are gamma distributed (simulate.shape)
    stragglers   so too, and some are slower (simulate.stragglers, simulate.slowdown)
    trace        in the order of a recorded run (simulate.trace=RUN)
    """
    loaded = _load(experiment, settings, **short)
    folder = _run_dir(experiment, loaded.name, run_dir, resume=False)

    from launch.simulation import run_simulation

    run_simulation(loaded, folder)
    _report(folder)


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--checkpoint", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Default: the newest.")
@_options("data_dir")
def evaluate(run_dir: Path, checkpoint: Path | None, data_dir: Path | None) -> None:
    """Evaluate a checkpoint of a run."""
    from launch.evaluate import evaluate_run

    for name, value in evaluate_run(run_dir, checkpoint, data_dir).items():
        click.echo(f"{name} {value:.6g}")


@click.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--until", type=click.IntRange(min=1), metavar="UPDATE", help="Stop after this update.")
@_options("data_dir")
def replay(run_dir: Path, until: int | None, data_dir: Path | None) -> int:
    """Recompute a run from its arrivals, and compare every bit.

    Says "identical", or where the first difference is, and exits with 1. Of a run that diverged it says where values
    that are not finite first appeared, and in whose gradient.
    """
    from launch.replay_show import main

    return main(run_dir, until, data_dir)


@click.command()
@click.option("--run-dir", type=_FOLDER, help="Folder of the run; default runs/demo-DATE-TIME.")
def demo(run_dir: Path | None) -> None:
    """Watch 16 asynchronous workers learn handwritten digits."""
    from launch.demo import main
    from launch.rundir import choose_run_dir

    main(choose_run_dir("demo", run_dir, resume=False))


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> int:
    """Measure updates per second on this machine."""
    from launch.bench import main

    return main(list(arguments))


RUNNING: tuple[click.Command, ...] = (train, server, worker, simulate, replay, evaluate, demo, bench)
