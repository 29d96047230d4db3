"""Finding an experiment: a file, the folder of a run, or the bare name of a config that ships with the package."""

from __future__ import annotations

import difflib
from pathlib import Path

from psserver.errors import ConfigurationError


def config_dir() -> Path:
    """The folder of the shipped configs: inside the package when installed, beside it in a checkout."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Name -> file of every shipped config, in alphabetical order."""
    return {path.stem: path for path in sorted(config_dir().glob("*.toml"))}


def question(path: Path) -> str:
    """The question that a config answers: its first comment line, or "" when it has none."""
    first, *_ = path.read_text(encoding="utf-8").splitlines() or [""]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_experiment(source: str | Path) -> Path:
    """The file that `source` means.

    Raises ConfigurationError, with the nearest names that exist, when there is none.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if (path / "experiment.toml").is_file():
        return path / "experiment.toml"
    shipped = shipped_configs()
    bare = str(source).removesuffix(".toml")
    if bare in shipped:
        return shipped[bare]
    if path.is_dir():
        raise ConfigurationError(f"expected an experiment, got the folder {path} without an experiment.toml")
    nearby = [str(file) for file in Path().glob("*.toml") if file.name != "pyproject.toml"]
    near = difflib.get_close_matches(str(source), [*shipped, *nearby], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`yfps configs` lists the ones that are shipped."
    raise ConfigurationError(f"no experiment {str(source)!r}: it is neither a file nor a shipped config; {hint}")
