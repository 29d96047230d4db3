"""Commands of the laboratory: sweep and reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from launch.lab.finding import Scale

_FOLDER = click.Path(path_type=Path, file_okay=False)
_JOBS = click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at a time; default: the cores.")
_DATA_DIR = click.option("--data-dir", type=_FOLDER, help="Folder of the data sets (data.dir).")


@click.command()
@click.argument("grid")
@click.option("--out", type=_FOLDER, metavar="DIR", help="Default: runs/sweeps/NAME.")
@_JOBS
@_DATA_DIR
def sweep(grid: str, out: Path | None, jobs: int | None, data_dir: Path | None) -> None:
    """Run every point of a grid, over seeds.

    GRID is a TOML file, or the name of a shipped one (digits): an experiment, seeds, settings, and [[variant]]s with
    lists of values. Started again after an interruption, it computes only what is missing. Writes table.csv (a row a
    run), curves.csv and sweep.png.
    """
    from launch.lab.grid import find_grid, load_grid
    from launch.lab.sweep import run_sweep

    loaded = load_grid(find_grid(grid), data_dir)
    folder = out or Path("runs") / "sweeps" / loaded.name
    for path in run_sweep(loaded, folder, jobs, click.echo):
        click.echo(path)


@click.command()
@click.argument("name", required=False)
@click.option("--scale", type=click.Choice(["small", "paper"]), default="small", show_default=True, help="How large.")
@click.option("--out", type=_FOLDER, metavar="DIR", help="Default: runs/reproduce/SCALE.")
@_JOBS
@_DATA_DIR
@click.option(
    "--only", metavar="PART,...", default="", help="Confine zero-tuning: tasks, workers, staleness, contenders."
)
@click.option(
    "--afresh", metavar="PART,...", default="", help="Compute zero-tuning's contenders of these groups again."
)
@click.option("--seeds", type=int, default=3, show_default=True, help="With how many seeds zero-tuning races.")
def reproduce(
    name: str | None,
    scale: Scale,
    out: Path | None,
    jobs: int | None,
    data_dir: Path | None,
    only: str,
    afresh: str,
    seeds: int,
) -> None:
    """Make a figure of the article, or all.

    NAME is a figure, or all; without it, the figures, their questions and costs are listed. "small" is for two cores
    and minutes, "paper" for the article's own settings: it says what it costs first. Started again after an
    interruption, it computes only what is missing.
    """
    from launch.lab.finding import Lab
    from launch.lab.reproduce import costs
    from launch.lab.reproduce import reproduce as run

    if name is None:
        click.echo("\n".join(costs(scale)))
        return
    folder = out or Path("runs") / "reproduce" / scale
    parts, again = (tuple(filter(None, text.split(","))) for text in (only, afresh))
    run(name, Lab(folder, scale, jobs, data_dir, click.echo, only=parts, afresh=again, seeds=seeds))
    click.echo(f"Results: {folder / 'results.md'}")


LABORATORY: tuple[click.Command, ...] = (sweep, reproduce)
