"""`yfps reproduce`: every figure of the article by its name, and one page of what was found."""

from __future__ import annotations

import difflib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from launch.lab.asynchronous import ASYNC_ADAM, ASYNC_CIFAR100
from launch.lab.asynchronous_long import ASYNC_CIFAR100_LONG
from launch.lab.facts import estimate, hardware, software
from launch.lab.finding import LEAST_SEEDS, Finding, Lab, Reproduction, Scale, section, write_finding
from launch.lab.implicit_momentum import IMPLICIT_MOMENTUM
from launch.lab.lstm_rates import LSTM_RATES
from launch.lab.points import Outcome, alone, cores
from launch.lab.robust_region import ROBUST_REGION
from launch.lab.synchronous import REPRODUCTIONS as SYNCHRONOUS
from launch.lab.total_momentum import CLOSED_LOOP, TOTAL_MOMENTUM
from launch.lab.two_curvatures import TWO_CURVATURES
from launch.lab.workers import WORKERS_FIGURE
from launch.lab.zero_tuning import ZERO_TUNING
from launch.numbers import duration
from psserver.errors import ConfigurationError, DataError

_ALL: tuple[Reproduction, ...] = (
    ROBUST_REGION,
    TWO_CURVATURES,
    LSTM_RATES,
    TOTAL_MOMENTUM,
    CLOSED_LOOP,
    IMPLICIT_MOMENTUM,
    *SYNCHRONOUS.values(),
    ASYNC_CIFAR100,
    ASYNC_CIFAR100_LONG,
    ASYNC_ADAM,
    WORKERS_FIGURE,
    ZERO_TUNING,
)
REPRODUCTIONS: dict[str, Reproduction] = {one.name: one for one in _ALL}
"""Every reproduction by its name, from theory to comparisons."""


def reproduce(name: str, lab: Lab) -> list[str]:
    """Make one figure, or "all"; returns the names made. Everything lies in `lab.folder`, with results.md over all.

    Points that are there already are not computed again. Under "all", a figure whose data set is missing is said and
    left out. Raises ConfigurationError for an unknown name or part, DataError when a named one's data set is missing.
    """
    chosen = list(REPRODUCTIONS.values()) if name == "all" else [_named(name)]
    _check_parts(chosen, lab)
    _check_seeds(chosen, lab)
    made = []
    with alone(lab.folder):
        _say_costs(chosen, lab)
        for number, reproduction in enumerate(chosen, start=1):
            lab.show(f"{number}/{len(chosen)}  {reproduction.name}: {reproduction.question}")
            try:
                finding = _made(reproduction, lab)
            except DataError as error:
                if name != "all":
                    raise
                lab.show(f"{reproduction.name} is left out: {error}")
                continue
            made.append(reproduction.name)
            lab.show(f"{_verdict(finding.agrees)}{finding.sentence}")
        write_results(lab.folder)
    return made


def _named(name: str) -> Reproduction:
    if name in REPRODUCTIONS:
        return REPRODUCTIONS[name]
    near = difflib.get_close_matches(name, REPRODUCTIONS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected all or one of {', '.join(REPRODUCTIONS)}"
    raise ConfigurationError(f"no reproduction {name!r}; {hint}")


def _check_parts(chosen: list[Reproduction], lab: Lab) -> None:
    known = [part for one in chosen if one.parts is not None for part in one.parts(lab.scale)]
    for part in (*lab.only, *lab.afresh):
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"expected some of: {', '.join(known) or 'it has no parts'}"
            )
            raise ConfigurationError(f"no part {part!r} of {chosen[0].name}; {hint}")


def _check_seeds(chosen: list[Reproduction], lab: Lab) -> None:
    if lab.seeds < LEAST_SEEDS:
        raise ConfigurationError(
            f"--seeds: expected at least {LEAST_SEEDS}, which decide what is tuned, got {lab.seeds}"
        )
    if lab.seeds > LEAST_SEEDS and not any(one.suite for one in chosen):
        suites = ", ".join(one.name for one in REPRODUCTIONS.values() if one.suite)
        raise ConfigurationError(
            f"--seeds {lab.seeds}: {chosen[0].name} always has {LEAST_SEEDS} seeds; leave --seeds out, or make {suites}"
        )


def _say_costs(chosen: list[Reproduction], lab: Lab) -> None:
    """Before anything long begins: what it will take; measured where it is the paper's scale."""
    for reproduction in chosen:
        words = reproduction.cost(lab.scale)
        if lab.scale == "paper" and reproduction.work is not None:
            try:
                words += f"; {estimate(reproduction.work(lab), lab.jobs or cores())}"
            except DataError as error:
                words += f"; not measured: {error}"
        if lab.scale == "paper" or len(chosen) == 1:
            lab.show(f"{reproduction.name} costs: {words}")


def _made(reproduction: Reproduction, lab: Lab) -> Finding:
    started = time.monotonic()
    own = replace(lab, used=[])
    finding = reproduction.run(own)
    facts = {
        "Command": f"`yfps reproduce {reproduction.name} --scale {lab.scale}{_only(lab)}{_seeds(lab, reproduction)}`",
        "Computed": _work_done(own.used, time.monotonic() - started),
        "Hardware": hardware(),
        "Versions": software(),
    }
    write_finding(lab, finding, facts)
    return finding


def _work_done(used: list[Outcome], seconds: float) -> str:
    runs = {outcome.point.key: outcome for outcome in used}
    if not runs:
        return f"in {duration(seconds)}"
    total = sum(outcome.seconds for outcome in runs.values())
    updates = sum(len(outcome.losses) for outcome in runs.values())
    return f"{len(runs)} runs, {updates:,} updates, {duration(total)} of computing (some may serve several figures)"


def _only(lab: Lab) -> str:
    return f" --only {','.join(lab.only)}" if lab.only else ""


def _seeds(lab: Lab, reproduction: Reproduction) -> str:
    return f" --seeds {lab.seeds}" if reproduction.suite and lab.seeds > LEAST_SEEDS else ""


def _verdict(agrees: bool | None) -> str:
    return {True: "agrees: ", False: "does not agree: ", None: ""}[agrees]


def write_results(folder: Path) -> Path:
    """Write results.md over all findings in `folder`, in the order of REPRODUCTIONS; returns its path."""
    found = [_read(folder / name / "finding.json") for name in REPRODUCTIONS]
    findings = [written for written in found if written]
    lines = ["# Results", "", "What `yfps reproduce` found, in its own words; every sentence is made from the numbers."]
    lines += ["", "| figure | scale | agrees | in short |", "| --- | --- | --- | --- |"]
    for written in findings:
        agrees = {True: "yes", False: "no", None: "–"}[written["agrees"]]
        link = f"[{written['name']}](#{_anchor(written['title'])})"
        lines.append(f"| {link} | {written['scale']} | {agrees} | {written['sentence']} |")
    parts = [f"\n## {section(written, written['name'] + '/')}" for written in findings]
    path = folder / "results.md"
    path.write_text("\n".join(lines) + "\n" + "".join(parts), encoding="utf-8")
    return path


def _read(path: Path) -> dict[str, Any] | None:
    return orjson.loads(path.read_bytes()) if path.is_file() else None


def _anchor(title: str) -> str:
    """The link that Markdown viewers make of a heading."""
    kept = (letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return "".join(kept).replace(" ", "-")


def costs(scale: Scale) -> list[str]:
    """A line for every reproduction: its name, its question, what it takes."""
    return [f"{one.name}\n    {one.question}\n    {one.cost(scale)}" for one in REPRODUCTIONS.values()]
