"""`yfps demo`: one story in five short runs on real data, told by what they measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from launch.experiment import load_experiment
from launch.local import run_train
from launch.report import report
from launch.run import Run
from launch.supervisor import RunFailed

_CONFIG = "digits_momentum_async16"
_LEARNED = 0.5  # of its first losses: below that a run has learned something


@dataclass(frozen=True)
class Scene:
    """One run: what it shows, and the settings that differ from the config."""

    name: str
    title: str
    settings: tuple[str, ...]


SCENES = (
    Scene("1-one-worker", "1 worker, loop open", ("train.workers=1",)),
    Scene("2-sixteen-open", "16 workers, loop open", ()),
    Scene("3-sixteen-median", "16, closed by median", ("tuner.loop=closed",)),
    Scene(
        "4-sixteen-lag",
        "16, closed by lag",
        ("tuner.loop=closed", "tuner.estimator=lag", "tuner.gain=0.05"),
    ),
    Scene(
        "5-sixteen-untuned",
        "16, nothing tuned",
        ("rule.name=soap", "tuner.target=distance", "tuner.loop=both", "tuner.momentum=0.8"),
    ),
)


def main(run_dir: Path) -> int:
    """Make the runs in `run_dir` and the report that compares them; print what they measured."""
    console = Console()
    runs: list[tuple[Scene, Run]] = []
    for scene in SCENES:
        command = f"yfps train {_CONFIG}" + "".join(f" --set {setting}" for setting in scene.settings)
        console.print(f"\n[bold]{scene.title}[/bold]\n[dim]$ {command}[/dim]")
        runs.append((scene, _run(scene, run_dir / scene.name)))
    console.print()
    console.print(_table(runs))
    page = report([run.path for _, run in runs], run_dir / "report.html")
    console.print("target: of the whole system; used: by the last update; total: as measured")
    console.print(f"Report: {page}\nPicture: {page.with_suffix('.png')}", highlight=False, soft_wrap=True)
    return 0


def _run(scene: Scene, folder: Path) -> Run:
    experiment = load_experiment(_CONFIG, scene.settings)
    try:
        run_train(experiment, folder, resume=False, bind=None, insecure=False, workers=experiment.train.workers)
    except RunFailed as failure:  # a run that diverges to infinity is part of the story
        Console().print(f"[red]{failure}[/red]")
    return Run(folder)


def _table(runs: list[tuple[Scene, Run]]) -> Table:
    # No wider than 80 columns: what is left of a number that was cut says nothing.
    title = "Measured: loss, accuracy, mean staleness, momentum"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in ("loss", "accuracy", "stale", "target", "used", "total"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("it", no_wrap=True)
    for scene, run in runs:
        rows, summary = run.metrics, run.summary
        first = sum(row["loss"] for row in rows[:20]) / max(1, len(rows[:20]))
        last = summary.get("final_train_loss")
        learned = last is not None and summary.get("reason") == "done" and last < _LEARNED * first
        table.add_row(
            scene.title,
            f"{first:.2f} → {_shown(last)}",
            _shown(summary.get("best_eval"), ".1%"),
            _shown(summary.get("mean_staleness"), ".1f"),
            _shown(rows[-1]["target_momentum"] if rows else None, ".2f"),
            _shown(summary.get("momentum_final"), ".2f"),
            _shown(summary.get("mean_total_momentum"), ".2f"),
            "[green]learned[/green]" if learned else "[red]failed[/red]",
        )
    return table


def _shown(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)
