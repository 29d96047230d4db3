"""What a reproduction gets and gives: a place to compute, and a finding with table, picture and data."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from matplotlib.figure import Figure

from launch.experiment import DataSection, Experiment
from launch.lab.picture import save
from launch.lab.points import Outcome, Point, run_points
from launch.numbers import NOTHING, shown

Scale = Literal["small", "paper"]
LEAST_SEEDS = 3


@dataclass(frozen=True)
class Lab:
    """Where a reproduction computes.

    folder:   of all reproductions at this scale; points are shared between them, and found again.
    scale:    "small" for two cores and minutes, "paper" for the article's own settings.
    jobs:     points at a time; None: as many as there are cores.
    data_dir: where data sets lie, None to leave it to the tasks.
    show:     takes lines of progress.
    used:     the outcomes handed out so far.
    only:     parts to which a reproduction that has any is confined; none for all.
    afresh:   parts whose points are computed again.
    seeds:    with how many a suite races; it tunes with the first three.
    """

    folder: Path
    scale: Scale = "small"
    jobs: int | None = None
    data_dir: Path | None = None
    show: Callable[[str], None] = print
    used: list[Outcome] = field(default_factory=list, repr=False)
    only: tuple[str, ...] = ()
    afresh: tuple[str, ...] = ()
    seeds: int = LEAST_SEEDS

    def points(self, points: Sequence[Point]) -> list[Outcome]:
        """Run these points in the lab's folder, or find them there; the outcomes in order."""
        if self.data_dir is not None:
            data = {"data": DataSection(dir=str(self.data_dir.absolute()))}
            points = [Point(p.name, p.experiment.model_copy(update=data), p.how) for p in points]
        outcomes = run_points(points, self.folder, self.jobs, self.show)
        self.used.extend(outcomes)
        return outcomes


@dataclass(frozen=True)
class Table:
    """Rows under columns. A cell is text, a number (NaN or None: not measured) or a truth value."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass(frozen=True)
class Finding:
    """What a reproduction found.

    name, title, question: of the reproduction.
    agrees:   with the article or theory; None where that cannot be said (or there is nothing to agree with).
    sentence: that judgement in words, made from the numbers.
    table:    for people.   data: csv name (without .csv) -> what is behind the picture.
    figure:   the picture, None for none.   notes: what a reader must know beside it.
    """

    name: str
    title: str
    question: str
    agrees: bool | None
    sentence: str
    table: Table
    data: dict[str, Table] = field(default_factory=dict)
    figure: Figure | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reproduction:
    """A figure or comparison that `yfps reproduce NAME` makes.

    run:   computes it.   cost: what that takes at a scale, in a sentence.
    needs: data sets that are not shipped: "cifar10", "cifar100", "ptb", "wsj".
    work:  the experiments it runs, each with the number of gradients it computes at most; for an estimate in hours.
    parts: what `Lab.only` and `Lab.afresh` may name, at a scale.
    suite: whether it goes by `Lab.seeds`.
    """

    name: str
    question: str
    run: Callable[[Lab], Finding]
    cost: Callable[[Scale], str]
    needs: tuple[str, ...] = ()
    work: Callable[[Lab], list[tuple[Experiment, int]]] | None = None
    parts: Callable[[Scale], tuple[str, ...]] | None = None
    suite: bool = False


def write_finding(lab: Lab, finding: Finding, facts: dict[str, Any] | None = None) -> Path:
    """Write NAME.md, NAME.png, the CSV files and finding.json to `lab.folder/NAME`; returns that folder.

    facts: how it was obtained (command, hardware, versions, seconds ...), kept in finding.json and told in NAME.md.
    """
    folder = lab.folder / finding.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in finding.data.items():
        write_csv(folder / f"{name}.csv", table)
    if finding.figure is not None:
        save(finding.figure, folder / f"{finding.name}.png")
    written = {
        "name": finding.name,
        "title": finding.title,
        "question": finding.question,
        "scale": lab.scale,
        "agrees": finding.agrees,
        "sentence": finding.sentence,
        "notes": finding.notes,
        "columns": finding.table.columns,
        "rows": [[plain(cell) for cell in row] for row in finding.table.rows],
        "picture": finding.figure is not None,
        "data": sorted(finding.data),
        "facts": facts or {},
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    (folder / "finding.json").write_bytes(orjson.dumps(written, option=options) + b"\n")
    (folder / f"{finding.name}.md").write_text(f"# {section(written, '')}", encoding="utf-8")
    return folder


def section(written: dict[str, Any], folder: str) -> str:
    """A finding, as finding.json has it, in Markdown that starts with its title. folder: prefix of the links."""
    name = written["name"]
    verdict = {True: "**Agrees.** ", False: "**Does not agree.** ", None: ""}[written["agrees"]]
    lines = [written["title"], "", f"*{written['question']}*", "", f"{verdict}{written['sentence']}", ""]
    if written["picture"]:
        lines += [f"![{written['title']}]({folder}{name}.png)", ""]
    lines += [markdown(Table(written["columns"], written["rows"])), ""]
    for note in written["notes"]:
        lines.append(f"- {note}")
    lines += [f"- {fact}: {value}" for fact, value in written["facts"].items()]
    files = ", ".join(f"[{file}.csv]({folder}{file}.csv)" for file in written["data"])
    lines += [f"- Data: {files}"] if files else []
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> str:
    """The table in Markdown; numbers to four digits, aligned right where a column has only numbers."""
    numeric = [
        all(isinstance(row[k], int | float) or row[k] is None for row in table.rows) for k in range(len(table.columns))
    ]
    rule = ["---:" if flag else "---" for flag in numeric]
    rows = [table.columns, rule, *([_cell(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write_csv(path: Path, table: Table) -> None:
    """Write a table; floats with all their digits, nothing where nothing was measured."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([["" if plain(cell) is None else plain(cell) for cell in row] for row in table.rows])


def plain(cell: Any) -> Any:
    """A cell as Python has it; None for a number that is not one."""
    value = cell.item() if isinstance(cell, np.generic) else cell
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(cell: Any) -> str:
    value = plain(cell)
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    return shown(value) if isinstance(value, float) else str(value).replace("|", "\\|")
