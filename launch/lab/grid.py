"""The grid of a sweep, as a TOML file describes it, and the points it stands for."""

from __future__ import annotations

import difflib
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from launch.experiment import Experiment, Section, load_experiment
from launch.explain import explain
from launch.lab.points import Point
from launch.overrides import Override
from launch.shipped import config_dir
from psserver.errors import ConfigurationError


class Variant(Section):
    """One line of a comparison.

    settings: key -> value.   grid: key -> the values to try; every combination is a point. Keys as with `--set`.
    """

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Any] = Field(default_factory=dict)


class Grid(Section):
    """A sweep.

    name:       of its folder; by default the file's.
    experiment: a file (also beside the grid), the folder of a run or a shipped config.
    seeds:      `train.seed` of every setting's runs.   how: "simulate" or "train", with real processes.
    window:     updates over which training losses are smoothed.
    settings:   of all variants.
    """

    name: str
    experiment: str
    seeds: tuple[int, ...] = Field(default=(1,), min_length=1)
    how: Literal["simulate", "train"] = "simulate"
    window: int = Field(default=100, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    variant: tuple[Variant, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """One point of a grid: its variant, the value of each swept key, its seed."""

    variant: str
    swept: dict[str, Any]
    seed: int
    point: Point


@dataclass(frozen=True)
class LoadedGrid:
    """A grid whose every point is checked."""

    name: str
    window: int
    keys: tuple[str, ...]
    cells: tuple[Cell, ...]


def find_grid(source: str) -> Path:
    """The file that `source` means: a path, or the name of a grid that ships with the package.

    Raises ConfigurationError, with the names there are, when there is none.
    """
    path, folder = Path(source).expanduser(), config_dir() / "grids"
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(folder.glob("*.toml"))}
    if source in shipped:
        return shipped[source]
    raise ConfigurationError(f"no grid {source!r}: it is neither a file nor one that is shipped ({', '.join(shipped)})")


def load_grid(path: Path, data_dir: Path | None = None) -> LoadedGrid:
    """Read a grid and build all of its experiments.

    Raises ConfigurationError that names the key: of the grid, or of the experiment that it sets.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: expected a TOML file: {error}") from error
    document.setdefault("name", path.stem)
    _check_keys(document, Grid, str(path))
    variants = document.get("variant", [])
    for number, variant in enumerate(variants if isinstance(variants, list) else [], start=1):
        _check_keys(variant, Variant, f"{path}, variant {number}")
    try:
        grid = Grid.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Grid, str(path), {})) from error
    names = [variant.name for variant in grid.variant]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{path}: expected a name of its own for each variant, got {', '.join(names)}")
    cells = tuple(cell for variant in grid.variant for cell in _cells(grid, variant, path, data_dir))
    keys = tuple(dict.fromkeys(key for cell in cells for key in cell.swept))
    return LoadedGrid(grid.name, grid.window, keys, cells)


def _check_keys(table: Any, model: type[Section], where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: expected a table, got {table!r}")
    for key in table:
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, model.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(model.model_fields)}"
            raise ConfigurationError(f"{where}: unknown key {key!r}; {hint}")


def _cells(grid: Grid, variant: Variant, path: Path, data_dir: Path | None) -> Iterator[Cell]:
    where = f"{path}, variant {variant.name!r}"
    swept = dict(_flat(variant.grid))
    for key, values in swept.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{where}: {key}: expected a list of values to try, got {values!r}")
    fixed = {**dict(_flat(grid.settings)), **dict(_flat(variant.settings))}
    if data_dir is not None:
        fixed["data.dir"] = str(data_dir)
    for combination in itertools.product(*swept.values()):
        chosen = dict(zip(swept, combination, strict=True))
        for seed in grid.seeds:
            experiment = _experiment(grid.experiment, {**fixed, **chosen, "train.seed": seed}, path, where)
            yield Cell(variant.name, chosen, seed, Point(_named(variant.name, chosen, seed), experiment, grid.how))


def _experiment(source: str, settings: Mapping[str, Any], path: Path, where: str) -> Experiment:
    beside = path.parent / source
    overrides = [Override(tuple(key.split(".")), value, f"{where}: {key}") for key, value in settings.items()]
    return load_experiment(beside if beside.is_file() else source, overrides)


def _flat(table: Mapping[str, Any], prefix: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted key -> value, whether the file has `"tuner.loop" = ..` or a table `tuner`."""
    for key, value in table.items():
        path = (*prefix, key)
        if isinstance(value, dict):
            yield from _flat(value, path)
        else:
            yield ".".join(path), value


def _named(variant: str, swept: Mapping[str, Any], seed: int) -> str:
    words = [f"{key.rpartition('.')[2]} {value}" for key, value in swept.items()]
    return ", ".join([variant, *words, f"seed {seed}"])
