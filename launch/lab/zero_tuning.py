"""`reproduce zero-tuning`: the default, with nothing tuned, against everything tuned in the very setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launch.lab.comparison import counted
from launch.lab.contenders import DEFAULT
from launch.lab.finding import Finding, Lab, Reproduction, Scale
from launch.lab.suite_contenders import GROUPS
from launch.lab.suite_picture import draw
from launch.lab.suite_run import Choice, Result, compute, work
from launch.lab.suite_score import summary
from launch.lab.suite_tables import notes, runs, scores, scores_of, summed, table, tried
from launch.lab.suite_tasks import KINDS, NUMBERS, tasks
from launch.lab.suite_verdict import Verdict, all_the_way, verdicts
from launch.numbers import shown

_QUESTION = (
    "Is the default, with nothing tuned, as good as the best SGD and Adam tuned for each task, number of workers and "
    "kind of staleness?"
)


def run(lab: Lab) -> Finding:
    """Compute what the lab's choice names, a task after another, and judge it."""
    choice = Choice.of(lab)
    results: list[Result] = []
    for name, settings in choice.settings.items():
        found = compute(lab, settings, choice.groups)
        results += found
        lab.show(f"{name}: {_means(found)}")
    labels = list(dict.fromkeys(label for result in results for label in result.scores))
    judged = verdicts(results)
    verdict = [one.holds for one in judged]
    return Finding(
        name="zero-tuning",
        title="Nothing tuned",
        question=_QUESTION,
        agrees=None if None in verdict or lab.only else all(verdict),
        sentence=_sentence(results, judged),
        table=table(results, labels),
        data={"scores": scores(results), "tried": tried(results), "runs": runs(results)},
        figure=draw(results, labels),
        notes=[*(f"{one.words}." for one in judged), *all_the_way(results), *notes(results)],
    )


def _means(results: Sequence[Result]) -> str:
    """Every contender's geometric mean, in a line."""
    labels = dict.fromkeys(label for result in results for label in result.scores)
    return ", ".join(f"{label} {shown(summary(scores_of(results, label))[0], 3)}" for label in labels)


def _sentence(results: Sequence[Result], judged: Sequence[Verdict]) -> str:
    if not scores_of(results, DEFAULT):
        return f"Baselines in {len(results)} settings; the default was not asked for."
    counted_in, _ = summed(results)
    mean, worst, lost = summary(scores_of(counted_in, DEFAULT))
    held = sum(one.holds is True for one in judged)
    settings = "1 setting" if len(counted_in) == 1 else f"{len(counted_in)} settings"
    return (
        f"In {settings} the default needs {shown(mean, 3)} times the updates of the best SGD or Adam tuned in place "
        f"(geometric mean), {shown(worst, 3)} times in the worst, and diverges in {lost}; {held} of {len(judged)} "
        "criteria hold."
    )


def _parts(scale: Scale) -> tuple[str, ...]:
    return (*(task.name for task in tasks(scale)), *map(str, NUMBERS), *KINDS, *GROUPS)


def _cost(scale: Scale) -> str:
    return counted(work(Lab(Path(), scale)), scale, _MINUTES)


_MINUTES = 80
"""Of a small suite: between 2:21 and 3:01 hours of one core, the second beside other work."""
ZERO_TUNING = Reproduction("zero-tuning", _QUESTION, run, _cost, ("cifar10",), work, _parts, suite=True)
