"""Digests of points: what they must change with, and what they must not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic.dataclasses import dataclass as checked

from launch import load_experiment
from launch.experiment import Experiment
from launch.lab import digest as module
from launch.lab.comparison import SEEDS, Arena
from launch.lab.contenders import ADAM, CLOSED
from launch.lab.contenders import baselines as article_baselines
from launch.lab.digest import digest
from launch.lab.suite_contenders import PUBLISHED, SGD, baselines, untuned
from launch.lab.suite_tasks import settings_of, tasks
from launch.lab.workloads import workload
from tuner.options import TunerOptions


def later(**defaults: Any) -> type[Experiment]:
    """Experiments of a later version, whose tuner has further options, or other defaults."""
    fields = [(key, type(value), dataclasses.field(default=value)) for key, value in defaults.items()]
    options = checked(frozen=True)(dataclasses.make_dataclass("Later", fields, bases=(TunerOptions,), frozen=True))
    namespace = {"__annotations__": {"tuner": options}, "tuner": options(), "__module__": __name__}
    return type("LaterExperiment", (Experiment,), namespace)


def of(kind: type[Experiment], **tuner: Any) -> str:
    return digest(kind.model_validate({"task": {"function": "a:b"}, "tuner": tuner}), "simulate")


THEN = [
    "rule.name=momentum_sgd", "rule.beta2=0.999", "tuner.target=yellowfin", "tuner.loop=closed", "tuner.robust=false",
    "tuner.momentum=0.9",
]  # fmt: skip
"""What were the defaults when digests began, where they are others now."""


def test_a_digest_is_what_it_always_was() -> None:
    assert digest(load_experiment("quadratic", THEN), "simulate") == "80fe16e79329"
    assert digest(load_experiment("quadratic"), "simulate") != "80fe16e79329"


def test_points_of_the_baselines_are_what_they_always_were() -> None:
    setting = settings_of(tasks("small")[0], "small")[0]
    sgd, adam = (setting.arena.point(one, one.candidates[0], SEEDS[0]).key for one in baselines(setting, "small"))
    published = [setting.arena.point(one, {}, SEEDS[0]).key for one in untuned(["yellowfin"], setting)]
    arena = Arena(workload("cifar100", "small"), 16)
    article = {one.label: arena.point(one, one.candidates[0], SEEDS[0]).key for one in article_baselines("small")}
    assert (sgd, adam) == ("8670d8184765", "1590954a7294")
    assert published == ["91f05614707e", "07b918a660f9"]
    assert (article[SGD], article[ADAM], article[CLOSED]) == ("eccccd557d5f", "e1ee2cd2267c", "043f9a0c2a6c")


def test_an_option_that_comes_later_changes_digests_only_where_it_is_used() -> None:
    now, then = Experiment, later(guard=False)
    assert of(then) == of(now)
    assert of(then, guard=False, momentum=0.5) == of(now, momentum=0.5)
    assert of(then, guard=True) != of(now)


def test_a_default_that_changes_is_another_point_only_where_it_was_relied_on() -> None:
    then = later(loop="open")
    assert of(then) != of(Experiment)
    assert of(then) == of(Experiment, loop="open")
    assert of(then, loop="closed") == of(Experiment, loop="closed")


def test_a_later_option_that_becomes_the_default_needs_its_neutral_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.NEUTRAL, "tuner.guard", False)
    then = later(guard=True)
    assert of(then) != of(Experiment)
    assert of(then, guard=False) == of(Experiment)


def test_baselines_say_everything_that_a_default_may_come_to_change() -> None:
    setting = settings_of(tasks("small")[0], "small")[-1]
    fixed = [*baselines(setting, "small"), *(rule.contender(best) for rule in PUBLISHED[:3] for best in [BEST])]
    fixed += untuned(["yellowfin"], setting)
    for contender in fixed:
        said = {**contender.settings, **contender.candidates[0]}
        assert {"rule.name", "tuner.target", "tuner.loop", "tuner.estimator", "rule.staleness"} <= set(said)
        free = {f"tuner.{field.name}" for field in dataclasses.fields(TunerOptions)} - set(said)
        schedules = {"tuner.milestones", "tuner.decay", "tuner.learning_rate", "tuner.momentum"}
        assert free <= schedules
        assert setting.arena.experiment(said, SEEDS[0]).tuner.loop == said["tuner.loop"]


BEST = {"tuner.momentum": 0.5, "tuner.learning_rate": 0.05}
