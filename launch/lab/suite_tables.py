"""Tables and notes of the zero-tuning suite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from launch.lab.finding import Table
from launch.lab.halving import COUNTED
from launch.lab.suite_contenders import BASELINES
from launch.lab.suite_run import Result
from launch.lab.suite_score import Score, summary
from launch.numbers import NOTHING, shown


def scores_of(results: Sequence[Result], label: str) -> list[Score]:
    """A contender's scores, where it took part."""
    return [result.scores[label] for result in results if label in result.scores]


def table(results: Sequence[Result], labels: Sequence[str]) -> Table:
    """A row a setting, then three of summaries (see `summed`); a column a contender."""
    unknown = list(dict.fromkeys(label for result in results for label in result.unknown))
    columns = ["task", "setting", "best tuned", "its loss", *labels, *unknown]
    rows: list[list[Any]] = []
    for result in results:
        best = result.entries[result.standard.best]
        words = f"{best.label}: {best.tuned.contender.words(best.tuned.chosen)}"
        cells = [_cell(result.scores.get(label)) for label in labels]
        missing = ["not known" if label in result.unknown else NOTHING for label in unknown]
        setting = result.setting
        rows.append([setting.task.name, setting.label, words, result.standard.level, *cells, *missing])
    counted, which = summed(results)
    summaries = [summary(scores_of(counted, label)) for label in labels]
    lost = [summary(scores_of(results, label))[2] for label in labels]
    blank = [NOTHING] * len(unknown)
    for words, at in ((f"geometric mean{which}", 0), (f"worst{which}", 1)):
        rows.append(["all", words, NOTHING, None, *(shown(found[at], 3) for found in summaries), *blank])
    rows.append(["all", "settings that diverged", NOTHING, None, *(str(count) for count in lost), *blank])
    return Table(columns, rows)


def summed(results: Sequence[Result]) -> tuple[Sequence[Result], str]:
    """The results that are summed up, those where nothing changes if there are any, and words for that."""
    steady = [result for result in results if result.setting.steady]
    return (steady, ", nothing changing") if steady else (results, "")


def _cell(score: Score | None) -> str:
    if score is None:
        return NOTHING
    if score.diverged:
        return f"diverged ({score.diverged} of {len(score.seeds)})"
    return ("" if score.updates is not None else "> ") + shown(score.ratio, 3)


def notes(results: Sequence[Result]) -> list[str]:
    """How to read the table, what the tasks are, and what a reader must know of the tuning."""
    first = results[0].setting.task.workload
    lines = [
        f"A ratio is of updates to a loss, to those of the best tuned baseline ({' or '.join(BASELINES)}); below 1 is "
        f"faster. The loss is the lowest that it reaches within {COUNTED:.0%} of the budget: training loss smoothed "
        f"over {first.window} updates, mean over seeds 1 to {_seeds(results)}.",
        "“>”: the loss is not reached within the budget; the ratio is the whole budget over the baseline's updates to "
        "the lowest loss that is. “Diverged”: losses not finite, or higher at the end than at first, in some seed; "
        "this counts as never having learnt, a ratio of the budget over the smoothing window.",
        "Baselines and published rules are tuned in the very setting, by successive halving with the first seed; a "
        "baseline's best two are told apart with the first three.",
        "Tasks: " + "; ".join(dict.fromkeys(f"{r.setting.task.name}: {_words(r)}" for r in results)) + ".",
    ]
    edges = [
        f"{result.setting.task.name} {result.setting.label}: {label}"
        for result in results
        for label in BASELINES
        if (tuned := result.entries[label].tuned).contender.at_edge(tuned.chosen)
    ]
    if edges:
        lines.append(f"The learning rate of the baseline lies at the edge of its grid in {'; '.join(edges)}.")
    unknown = {label: reason for result in results for label, reason in result.unknown.items()}
    lines += [f"{label} is left out, for this version does not know it: {reason}." for label, reason in unknown.items()]
    return lines


def _seeds(results: Sequence[Result]) -> int:
    """How many seeds each contender ran with."""
    return max(len(entry.outcomes) for result in results for entry in result.entries.values())


def _words(result: Result) -> str:
    chosen = result.setting.task.workload
    return f"{chosen.words}, {chosen.updates:,} updates"


def scores(results: Sequence[Result]) -> Table:
    """A row for every contender in every setting."""
    columns = ["task", "workers", "staleness", "contender", "setting", "ratio", "updates", "final_loss", "diverged"]
    columns += ["level", "baseline", *(f"ratio_seed_{seed}" for seed in range(1, _seeds(results) + 1))]
    rows: list[list[Any]] = []
    for result in results:
        for label, score in result.scores.items():
            tuned = result.entries[label].tuned
            rows.append(
                [
                    result.setting.task.name,
                    result.setting.workers,
                    result.setting.kind,
                    label,
                    tuned.contender.words(tuned.chosen),
                    score.ratio,
                    score.updates,
                    score.final if math.isfinite(score.final) else None,
                    score.diverged,
                    result.standard.level,
                    result.standard.best,
                    *score.seeds,
                ]
            )
    return Table(columns, rows)


def tried(results: Sequence[Result]) -> Table:
    """Every candidate with its longest run."""
    rows = [
        [
            result.setting.task.name,
            result.setting.label,
            entry.label,
            entry.tuned.contender.words(chosen),
            outcome.point.experiment.train.updates,
            outcome.summary.get("final_train_loss"),
            chosen == entry.tuned.chosen,
        ]
        for result in results
        for entry in result.entries.values()
        for chosen, outcome in entry.tuned.tried
    ]
    return Table(["task", "setting", "contender", "candidate", "updates", "final_loss", "chosen"], rows)


def runs(results: Sequence[Result]) -> Table:
    """A row for every run that was scored."""
    rows = [
        [result.setting.task.name, result.setting.label, entry.label, seed, outcome.seconds, outcome.point.key]
        for result in results
        for entry in result.entries.values()
        for seed, outcome in enumerate(entry.outcomes, start=1)
    ]
    return Table(["task", "setting", "contender", "seed", "real_seconds", "key"], rows)
