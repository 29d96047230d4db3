"""The experiment: one typed description of a run, read from TOML and written back resolved."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from launch.explain import explain, keys_that_take
from launch.overrides import Override, apply_override, parse_override
from launch.shipped import find_experiment
from psserver.errors import ConfigurationError
from psserver.options import CheckpointOptions, RuleOptions, ServerOptions
from tuner.options import TunerOptions

Staleness = Literal["none", "round-robin", "memoryless", "gamma", "stragglers", "trace"]


class Section(BaseModel):
    """What every section shares: unknown keys are errors, and nothing changes after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSection(Section):
    """Where the problem comes from.

    function:  "package.module:function" or "file.py:function"; it returns a `worker.Task`.
    arguments: keywords that the function is called with.
    """

    function: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class TrainSection(Section):
    """How long, how wide, from which seed, on which device.

    updates: versions to reach.   workers: processes (or simulated workers) that compute gradients.
    device:  "auto", "cpu", "cuda" or "cuda:N"; a task that names its own device overrides "auto".
    """

    updates: int = Field(default=1000, ge=1)
    workers: int = Field(default=4, ge=1, le=4096)
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"


class EvaluateSection(Section):
    """When the evaluator looks at the parameters, and where it computes.

    every:      updates between two evaluations; 0 evaluates only the last version.
    device:     as `train.device`.
    statistics: training batches over which BatchNorm's statistics are computed for the version that is evaluated;
                0 takes the average of what the workers reported, which is some tens of updates old.
    """

    every: int = Field(default=500, ge=0)
    device: str = "auto"
    statistics: int = Field(default=16, ge=0)


class LaunchSection(Section):
    """The processes of a run on one host.

    worker_restarts: times each worker is started again after it died.   server_restarts: the same for the server.
    threads:   PyTorch threads a worker; 0 shares the cores among the workers.
    evaluator: run an evaluator beside the workers, so that no update waits for an evaluation.
    patience:  seconds a worker waits for a silent server before it gives up.
    """

    worker_restarts: int = Field(default=3, ge=0)
    server_restarts: int = Field(default=3, ge=0)
    threads: int = Field(default=1, ge=0)
    evaluator: bool = True
    patience: float = Field(default=120.0, gt=0, allow_inf_nan=False)


class SimulateOptions(Section):
    """Who pushes next in a simulated run; a real one ignores this section.

    staleness:  "none": each worker in turn, at the newest version. "round-robin": each in turn, so that staleness is
                M − 1. "memoryless": one drawn at random for each push. "gamma": each takes service times of a gamma
                distribution. "stragglers": so too, and some are slower. "trace": in the order of a recorded run.
    shape:      k of the gamma distribution: 1 is memoryless, a large one nearly round-robin (gamma and stragglers).
    stragglers: number of slow workers, the first ones.
    slowdown:   mean service time of a slow worker in seconds; that of the others is 1.
    trace:      folder of the recorded run, or its arrivals.jsonl.
    change_at:  version from which on there are other workers, none for no change.
    workers_at_first, workers_at_end: workers before and after that change, the first so many; 0 means all. Those that
                come start at the newest version then; those that leave take what they were computing with them.
    appear_at:  version at which the stragglers become slow; until then they are as fast as the others.
    """

    staleness: Staleness = "round-robin"
    shape: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    stragglers: int = Field(default=1, ge=0)
    slowdown: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    trace: str | None = None
    change_at: int | None = Field(default=None, ge=1)
    workers_at_first: int = Field(default=0, ge=0)
    workers_at_end: int = Field(default=0, ge=0)
    appear_at: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        for name in ("workers_at_first", "workers_at_end"):
            if getattr(self, name) and self.change_at is None:
                raise ValueError(f"{name}: expected change_at, the version at which workers come or leave, got none")
        return self

    @model_validator(mode="after")
    def _names_its_trace(self) -> Self:
        if self.staleness == "trace" and not self.trace:
            raise ValueError("trace: expected the folder of a recorded run, for staleness 'trace', got none")
        return self


class DataSection(Section):
    """Where data sets lie. dir: a folder; none leaves the search to the task."""

    dir: str | None = None


class Experiment(Section):
    """Everything that decides a run. The sections `rule`, `server`, `checkpoint` and `tuner` live with their owners."""

    name: str = "experiment"
    task: TaskSection
    train: TrainSection = TrainSection()
    rule: RuleOptions = RuleOptions()
    tuner: TunerOptions = TunerOptions()
    server: ServerOptions = ServerOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    evaluate: EvaluateSection = EvaluateSection()
    launch: LaunchSection = LaunchSection()
    simulate: SimulateOptions = SimulateOptions()
    data: DataSection = DataSection()

    @model_validator(mode="after")
    def _rule_fits_the_server(self) -> Self:
        self.rule.check_with(self.server)
        return self

    @model_validator(mode="after")
    def _rule_fits_the_target(self) -> Self:
        if self.tuner.target == "distance" and self.rule.name not in ("soap", "adam", "adamw"):
            raise ValueError(
                "tuner.target: expected one that fits rule.name "
                f"{self.rule.name!r} (yellowfin, constant, step or cosine), got 'distance', which sets the length of "
                "a step as soap, adam and adamw have it; choose another target, or another rule"
            )
        return self

    def to_toml(self) -> str:
        """The whole experiment as TOML; reading it back gives an equal experiment."""
        return as_toml(self.model_dump())

    def write(self, path: Path) -> None:
        """Write `to_toml()` to `path`."""
        path.write_text(self.to_toml(), encoding="utf-8")

    def with_settings(self, *settings: str | Override) -> Experiment:
        """A copy with `section.key=value` settings applied, checked like a file."""
        return _build(self.model_dump(), f"experiment {self.name}", _parsed(settings))


def as_toml(document: dict[str, Any]) -> str:
    """Sections and their keys as TOML; what is None is left out."""
    return tomlkit.dumps(_without_none(document))


def load_experiment(source: str | Path, settings: Iterable[str | Override] = ()) -> Experiment:
    """Read a file, a run's folder or a shipped config, apply the settings in order, and check every key.

    A relative path in `task.function`, `data.dir` or `simulate.trace` becomes absolute, so that the result means the
    same everywhere.
    Raises ConfigurationError that says where, what was expected and what came.
    """
    path = find_experiment(source)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: expected a TOML file: {error}") from error
    document.setdefault("name", path.stem)
    return _build(document, str(path), _parsed(settings), path.parent)


def experiment_from(document: dict[str, Any], where: str, settings: Iterable[str | Override] = ()) -> Experiment:
    """The experiment of a record's `model_dump`, with settings applied. Raises ConfigurationError, naming `where`."""
    return _build(document, where, _parsed(settings))


def _parsed(settings: Iterable[str | Override]) -> list[Override]:
    return [parse_override(item) if isinstance(item, str) else item for item in settings]


def _build(document: dict[str, Any], where: str, overrides: list[Override], folder: Path | None = None) -> Experiment:
    words = keys_that_take("none", Experiment)
    for override in overrides:
        apply_override(document, override, words)
    _make_paths_absolute(document, folder)
    text = json.dumps(document, default=str)
    try:
        return Experiment.model_validate_json(text, strict=True)
    except ValidationError as error:
        origins = {override.keys: override.origin for override in overrides}
        raise ConfigurationError(explain(error, Experiment, where, origins)) from error


def _make_paths_absolute(document: dict[str, Any], folder: Path | None) -> None:
    task = document.get("task")
    if isinstance(task, dict) and isinstance(task.get("function"), str):
        file, colon, function = task["function"].rpartition(":")
        if colon and (file.endswith(".py") or "/" in file):
            found = _resolve(Path(file).expanduser(), folder)
            task["function"] = f"{found}:{function}" if found else task["function"]
    for section, key in (("data", "dir"), ("simulate", "trace")):
        table = document.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = str(Path(table[key]).expanduser().absolute())


def _resolve(file: Path, folder: Path | None) -> Path | None:
    places = [Path.cwd(), *([folder] if folder else [])]
    found = (place / file for place in places if (place / file).is_file())
    return next((path.resolve() for path in found), None)


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }
