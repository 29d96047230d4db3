"""Commands that look: report, top, configs, doctor and version."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: report.html in the first run.")
@click.option("--csv", is_flag=True, help="Also write every value, as NAME.csv, NAME-pushes.csv, NAME-evaluations.csv.")
def report(run_dirs: tuple[Path, ...], out: Path | None, csv: bool) -> None:
    """Write one HTML page of a run, or comparing several, that can be explored; and its curves as a PNG."""
    from launch.report import report as write

    click.echo(write(run_dirs, out, csv))


@click.command()
@click.argument("address")
def top(address: str) -> None:
    """Watch a running server from anywhere."""
    from launch.address import check_connect
    from launch.top import watch

    watch(check_connect(address))


@click.command()
@click.option("--path", is_flag=True, help="Print the files instead.")
def configs(path: bool) -> None:
    """List the shipped experiments and their questions."""
    from launch.shipped import question, shipped_configs

    for name, file in shipped_configs().items():
        click.echo(file if path else f"{name}\n    {question(file)}")


@click.command()
@click.argument("experiment", required=False)
def doctor(experiment: str | None) -> int:
    """Check this machine, and that EXPERIMENT fits on it.

    Exit code 1 when something must be mended."""
    from launch.doctor import examine, show

    return show(examine(experiment))


@click.command()
def version() -> None:
    """Print the version, and those it stands on."""
    from launch.doctor import versions

    click.echo("\n".join(f"{name} {number}" for name, number in versions().items()))


LOOKING: tuple[click.Command, ...] = (report, top, configs, doctor, version)
