"""The runs of the zero-tuning suite: a task's settings tuned, raced and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.experiment import Experiment
from launch.lab.comparison import SEEDS, Arena, Entry, Tuned, races
from launch.lab.contenders import Contender, Settings
from launch.lab.finding import Lab
from launch.lab.halving import LATE, RUNGS, SHORT, Rung, halve, lengths, possible
from launch.lab.points import forget
from launch.lab.suite_contenders import BASELINES, GROUPS, Published, baselines, published, untuned, why_unknown
from launch.lab.suite_score import Score, Standard, standard
from launch.lab.suite_tasks import KINDS, NUMBERS, Setting, SuiteTask, settings_of, tasks
from psserver.errors import ConfigurationError


@dataclass(frozen=True)
class Result:
    """What came out in a setting.

    entries, scores: label -> runs and score.   unknown: label -> why this version cannot run it.
    """

    setting: Setting
    standard: Standard
    entries: dict[str, Entry]
    scores: dict[str, Score]
    unknown: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """What takes part: settings by task, and groups of contenders."""

    settings: dict[str, list[Setting]]
    groups: tuple[str, ...]

    @staticmethod
    def of(lab: Lab) -> Choice:
        """What `lab.only` names, of tasks, workers, kinds of staleness and groups; of what it names none, all.

        Raises ConfigurationError where no setting has all of it.
        """
        every = tasks(lab.scale)
        asked = [task.name for task in every if task.name in lab.only]
        names = asked or [task.name for task in every if not task.further]
        kinds = [kind for kind in KINDS if kind in lab.only] or list(KINDS)
        groups = tuple(group for group in GROUPS if group in lab.only) or GROUPS
        numbers = [number for number in NUMBERS if str(number) in lab.only]
        chosen = {task.name: _of_kinds(task, lab, kinds, numbers) for task in every if task.name in names}
        settings = {name: some for name, some in chosen.items() if some}
        if not settings:
            raise ConfigurationError(
                f"--only {','.join(lab.only)}: expected parts that occur together, but no setting at the {lab.scale} "
                "scale has that task, number of workers and staleness; leave one of them out"
            )
        return Choice(settings, groups)


def _of_kinds(task: SuiteTask, lab: Lab, kinds: Sequence[str], numbers: Sequence[int]) -> list[Setting]:
    return [setting for setting in settings_of(task, lab.scale, numbers) if setting.kind in kinds]


def compute(lab: Lab, settings: Sequence[Setting], groups: Sequence[str]) -> list[Result]:
    """Tune, race and score these settings, of one task; the runs of all are computed together.

    What `lab.afresh` names is computed again.
    """
    tuned = _baselines(lab, settings)
    unknown: list[dict[str, str]] = [{} for _ in settings]
    rules: list[tuple[int, Contender]] = []
    for k, setting in enumerate(settings):
        for rule in published(setting, lab.scale) if "published" in groups else ():
            contender = rule.contender(_best(tuned[k], rule))
            reason = why_unknown(setting, contender)
            if reason:
                unknown[k][rule.label] = reason
            else:
                rules.append((k, contender))
    entrants = [(settings[k].arena, contender, SHORT) for k, contender in rules]
    _forget(lab, "published", entrants)
    for (k, _), one in zip(rules, halve(lab, entrants), strict=True):
        tuned[k].append(one)
    for k, setting in enumerate(settings):
        for group in groups:
            fixed = untuned([group], setting)
            _forget(lab, group, [(setting.arena, contender, ()) for contender in fixed])
            tuned[k] += [Tuned(contender, {}, ()) for contender in fixed]
    raced = races(lab, [(setting.arena, some) for setting, some in zip(settings, tuned, strict=True)], lab.seeds)
    return [_result(*each) for each in zip(settings, raced, unknown, strict=True)]


def _baselines(lab: Lab, settings: Sequence[Setting]) -> list[list[Tuned]]:
    """The tuned baselines of each setting."""
    entrants = [(one.arena, each, _rungs(one)) for one in settings for each in baselines(one, lab.scale)]
    _forget(lab, "baselines", entrants)
    found = iter(halve(lab, entrants))
    return [[next(found) for _ in baselines(setting, lab.scale)] for setting in settings]


def _rungs(setting: Setting) -> Sequence[Rung]:
    return RUNGS if setting.steady else LATE


def _result(setting: Setting, entries: dict[str, Entry], unknown: dict[str, str]) -> Result:
    budget = setting.arena.workload.updates
    measure = standard({label: entries[label] for label in BASELINES}, budget)
    return Result(setting, measure, entries, {label: measure.score(one) for label, one in entries.items()}, unknown)


def _best(tuned: Sequence[Tuned], rule: Published) -> Settings:
    return next(one.chosen for one in tuned if one.contender.label == rule.about)


def _forget(lab: Lab, group: str, entrants: Sequence[tuple[Arena, Contender, Sequence[Rung]]]) -> None:
    if group in lab.afresh:
        forget([point for arena, one, rungs in entrants for point in possible(arena, one, rungs)], lab.folder)


def work(lab: Lab) -> list[tuple[Experiment, int]]:
    """The experiments that a lab's choice comes to, with the gradients each computes at most."""
    choice = Choice.of(lab)
    items: list[tuple[Experiment, int]] = []
    for setting in (setting for settings in choice.settings.values() for setting in settings):
        arena, experiment = setting.arena, setting.arena.experiment({}, SEEDS[0])
        tuned: list[tuple[int, Sequence[Rung]]] = [
            (len(one.candidates), _rungs(setting)) for one in baselines(setting, lab.scale)
        ]
        rules = published(setting, lab.scale) if "published" in choice.groups else []
        tuned += [(len(rule.factors), SHORT) for rule in rules]
        runs = [updates for count, rungs in tuned for updates in lengths(arena, count, rungs)]
        further = lab.seeds - len(SEEDS)
        seeds = (
            len(untuned(choice.groups, setting)) * lab.seeds + len(rules) * (lab.seeds - 1) + len(BASELINES) * further
        )
        items += [(experiment, updates) for updates in [*runs, *[arena.workload.updates] * seeds]]
    return items
