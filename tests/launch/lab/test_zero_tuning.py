"""The zero-tuning suite on losses that are made up, so that who must win, tie or diverge is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from launch.lab import finding as frame
from launch.lab import suite_run
from launch.lab.comparison import Entry, Tuned
from launch.lab.contenders import ADAM, MU, RATE, Contender
from launch.lab.finding import Finding, Lab, write_finding
from launch.lab.halving import RUNGS, halve, lengths, possible
from launch.lab.points import Outcome, Point
from launch.lab.reproduce import reproduce
from launch.lab.suite_contenders import DEFAULT, DEFAULT_OPEN, PUBLISHED, SGD, Published, baselines, why_unknown
from launch.lab.suite_run import Choice, work
from launch.lab.suite_score import first_at, profile, standard, summary, throughout
from launch.lab.suite_tasks import KINDS, Setting, settings_of, tasks
from launch.lab.zero_tuning import ZERO_TUNING
from psserver.errors import ConfigurationError

QUADRATIC = tasks("small")[0]


def speed(point: Point) -> float:
    """Of a made-up run: the default's closed loop is twice as fast as the best tuned, the open one as fast."""
    experiment = point.experiment
    tuner = experiment.tuner
    if tuner.target == "yellowfin":
        return 0.5
    if tuner.target == "distance":
        return 2.0 if tuner.loop == "both" else 1.0
    best = 1e-2 if experiment.rule.name == "adam" else 0.1
    return 1.0 / (1.0 + abs(np.log(tuner.learning_rate / best))) / (1.0 + abs(tuner.momentum))


def made_up(point: Point, folder: Path, wild: bool = False) -> Outcome:
    updates = point.experiment.train.updates
    losses = 1 + np.exp(-5 * speed(point) * np.arange(updates) / 800)
    diverged = wild or (point.experiment.tuner.target == "constant" and point.experiment.tuner.learning_rate > 1.0)
    if diverged:
        losses = losses[:60] * 1.1 ** np.arange(60)
    return Outcome(point, diverged, "", 1.0, {"final_train_loss": float(losses[-1])}, losses, [], folder)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(frame, "run_points", lambda points, folder, jobs, show: [made_up(p, folder) for p in points])
    return Lab(tmp_path, show=lambda line: None)


def found(lab: Lab, *only: str) -> Finding:
    return ZERO_TUNING.run(dataclasses.replace(lab, only=only))


def entry(*curves: list[float], window: int = 1) -> Entry:
    point = settings_of(QUADRATIC, "small")[0].arena.point(Contender("x", {}), {}, 1)
    outcomes = [Outcome(point, False, "", 0.0, {}, np.array(curve), [], Path()) for curve in curves]
    return Entry(Tuned(Contender("x", {}), {}, ()), tuple(outcomes), window, 1)


def test_the_standard_is_the_lowest_loss_within_four_fifths_of_the_budget() -> None:
    falling, late = [10.0, 8, 6, 5, 4, 4, 4, 4, 4, 4], [10.0] * 8 + [1.0, 1]
    measure = standard({"a": entry(falling), "b": entry(late)}, 10)
    assert (measure.best, measure.level) == ("a", 4.0)
    assert measure.score(entry(falling)).ratio == 1.0
    assert measure.score(entry([9.0, 3] + [3.0] * 8)).ratio == pytest.approx(2 / 5)


def test_a_level_that_is_missed_costs_the_budget_over_the_time_to_what_was_reached() -> None:
    measure = standard({"a": entry([10.0, 8, 6, 5, 4, 4, 4, 4, 4, 4])}, 10)
    score = measure.score(entry([10.0] * 9 + [6.0]))
    assert (score.ratio, score.updates, score.diverged) == (pytest.approx(10 / 3), None, 0)
    assert measure.score(entry([10.0] * 10)).ratio == 10.0
    assert measure.score(entry([9.5] * 9 + [4.5])).ratio == pytest.approx(10 / 5)


def test_what_diverges_counts_as_if_it_had_never_learnt() -> None:
    measure = standard({"a": entry([10.0, 8, 6, 5, 4, 4, 4, 4, 4, 4])}, 10)
    for curve in ([9.0, 1, np.nan], [9.0, 1, 1, 1, 1, 1, 1, 1, 1, 30.0]):
        score = measure.score(entry([9.0, 1] + [1.0] * 8, curve))
        assert (score.ratio, score.diverged) == (10.0, 1)
        assert score.seeds[0] == pytest.approx(2 / 5)


def test_profiles_and_summaries_count_settings() -> None:
    assert profile([0.5, 1.0, 4.0], [0.4, 1.0, 4.0]) == [0.0, pytest.approx(2 / 3), 1.0]
    measure = standard({"a": entry([2.0, 1.0, 1.0])}, 3)
    mean, worst, lost = summary([measure.score(entry([2.0, 1.0, 1.0])), measure.score(entry([1.0, 1.0, 1.0]))])
    assert (mean, worst, lost) == (pytest.approx(0.5**0.5), 1.0, 0)
    assert first_at(np.array([np.nan, 2, 1]), 0.5) is None


def test_two_curves_are_compared_at_every_new_low_of_the_second() -> None:
    slow, quick = np.array([np.nan, 8, 7, 7, 6, 7, 5, 5, 4.0]), np.array([np.nan, 8, 6, 5, 4, 4, 4, 4, 4.0])
    assert throughout(slow, slow) == 1.0
    assert throughout(quick, slow) == pytest.approx((3 * 3 * 4 * 5 / (3 * 5 * 7 * 9)) ** 0.25)
    assert throughout(slow, quick) == pytest.approx((5 * 7 * 9 / (3 * 4 * 5)) ** (1 / 3))
    lost = np.array([np.nan, 8, 7, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan])
    assert throughout(lost, quick) == pytest.approx((9 * 9 * 9 / (3 * 4 * 5)) ** (1 / 3))
    assert np.isnan(throughout(quick, lost[::-1])), "it has no new low"


def test_halving_runs_all_for_short_and_the_best_for_long(lab: Lab) -> None:
    setting = settings_of(QUADRATIC, "small")[0]
    sgd, adam = baselines(setting, "small")
    first, second = halve(lab, [(setting.arena, sgd, RUNGS), (setting.arena, adam, RUNGS)])
    updates = [outcome.point.experiment.train.updates for outcome in lab.used]
    assert sorted(updates) == sorted(lengths(setting.arena, 20, RUNGS) * 2)
    assert [updates.count(length) for length in (200, 400, 800)] == [40, 10, 12]
    assert second.chosen == {MU: 0.0, RATE: 1e-2}
    best = min(sgd.candidates, key=lambda c: -speed(setting.arena.point(sgd, c, 1)))
    assert first.chosen == best
    assert {p.key for p in possible(setting.arena, sgd, RUNGS)} >= {o.point.key for o in lab.used[:20]}


def test_the_suite_is_judged_by_its_numbers(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite_run, "tasks", lambda scale: [task for task in tasks(scale) if task.name == "digits-cnn"])
    finding = ZERO_TUNING.run(lab)
    rows = {row[1]: dict(zip(finding.table.columns, row, strict=True)) for row in finding.table.rows}
    assert len(rows) == 9 + 3
    assert float(rows["M = 4, memoryless"][DEFAULT]) < 0.6
    assert rows["M = 4, memoryless"]["DC-ASGD"] == "–"
    assert rows["M = 16, memoryless"]["DC-ASGD"] != "–"
    assert rows["M = 32, 4 at first"]["YellowFin, open"] == "–"
    assert float(rows["M = 32, 4 at first"][DEFAULT]) < 0.6
    assert finding.agrees is True
    on_the_way = next(note for note in finding.notes if "at every loss" in note)
    assert 0.5 <= float(on_the_way.split(": ")[1].split()[0]) < 0.6, (
        "the closed loop is twice as fast, but for smoothing"
    )
    assert "worst setting (digits-cnn, M = " in on_the_way
    assert "in 7 settings" in finding.sentence.lower()
    folder = write_finding(lab, finding)
    assert (folder / "zero-tuning.png").stat().st_size > 5000
    assert {"scores", "tried", "runs"} == set(finding.data)


def test_only_confines_tasks_staleness_and_contenders(lab: Lab) -> None:
    choice = Choice.of(dataclasses.replace(lab, only=("quadratic", "none", "default")))
    assert [setting.kind for settings in choice.settings.values() for setting in settings] == ["none"]
    finding = found(lab, "quadratic", "none", "default")
    assert finding.table.columns[4:] == [SGD, ADAM, DEFAULT]
    assert finding.agrees is None
    assert "not asked for" in found(lab, "quadratic", "none", "baselines").sentence
    changing = found(lab, "digits-cnn", "joining", "default")
    assert "in 1 setting the" in changing.sentence.lower()
    assert [row[1] for row in changing.table.rows[1:3]] == ["geometric mean", "worst"]
    assert "nan" not in (changing.sentence + str(changing.table.rows)).lower()


def test_afresh_drops_the_points_of_a_group_and_no_others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(suite_run, "forget", lambda points, folder: dropped.extend(point.name for point in points))
    ZERO_TUNING.run(dataclasses.replace(lab, only=("quadratic", "none", "default", "open"), afresh=("default",)))
    assert len(dropped) == 3
    assert all(name.startswith(f"{DEFAULT} (") for name in dropped)


def test_a_part_that_is_not_known_is_mended(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'memoryless'"):
        reproduce("zero-tuning", dataclasses.replace(lab, only=("memoryles",)))
    with pytest.raises(ConfigurationError, match="no part 'default' of workers; expected some of: it has no parts"):
        reproduce("workers", dataclasses.replace(lab, afresh=("default",)))


def test_a_rule_that_is_not_known_is_told_and_not_run() -> None:
    setting = settings_of(QUADRATIC, "small")[-1]
    best = {MU: 0.5, RATE: 0.05}
    unheard = Published("unheard of", {"rule.name": "unheard_of"}).contender(best)
    assert "unheard_of" in why_unknown(setting, unheard)
    assert why_unknown(setting, PUBLISHED[0].contender(best)) == ""


def test_published_rules_are_tuned_about_the_baselines_gain() -> None:
    rule = Published("x", {}, momentum=0.9).contender({MU: 0.5, RATE: 0.05})
    assert rule.candidates[1] == {MU: 0.9, RATE: 0.01}
    own = Published("y", {}).contender({MU: -0.5, RATE: 0.15})
    assert own.candidates[1] == {MU: -0.5, RATE: 0.15}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_every_setting_makes_an_experiment(scale: frame.Scale) -> None:
    every = [setting for task in tasks(scale) for setting in settings_of(task, scale)]
    assert {setting.kind for setting in every} == set(KINDS)
    assert len({setting.arena.label for setting in every}) == len(every)
    for setting in every:
        experiment = setting.arena.experiment({}, 1)
        assert experiment.train.workers == setting.workers
        assert experiment.evaluate.every == 0
    assert len(work(Lab(Path(), scale))) > 1000


def test_gains_fall_as_workers_grow() -> None:
    one, many = (Setting(QUADRATIC, workers, "memoryless").gains("small") for workers in (1, 16))
    assert (len(one), len(many)) == (5, 5)
    assert one[2] / many[2] == pytest.approx(9, rel=0.1)
    assert DEFAULT_OPEN != DEFAULT


def test_a_number_of_workers_can_be_asked_for_and_small_suites_have_thirty_two_only_then() -> None:
    def numbers(*only: str) -> dict[int, set[str]]:
        found = [one for some in Choice.of(Lab(Path(), "small", only=only)).settings.values() for one in some]
        return {number: {one.kind for one in found if one.workers == number} for number in {x.workers for x in found}}

    several = {"round-robin", "memoryless", "stragglers"}
    assert numbers() == {1: {"none"}, 4: several, 16: {*several, "slowing"}, 32: {"joining"}}
    assert numbers("32") == {32: {*several, "joining"}}
    assert numbers("1", "16", "none", "memoryless") == {1: {"none"}, 16: {"memoryless"}}


def test_parts_that_never_occur_together_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--only 4,slowing: expected parts that occur together"):
        reproduce("zero-tuning", Lab(tmp_path, "small", only=("4", "slowing")))


def test_more_seeds_race_and_the_same_three_tune(lab: Lab) -> None:
    five = dataclasses.replace(lab, seeds=5, only=("quadratic", "1", "baselines", "default"))
    three = dataclasses.replace(five, seeds=3)
    table = ZERO_TUNING.run(five).data["scores"]
    columns, rows = table.columns, table.rows
    assert columns[-5:] == [f"ratio_seed_{seed}" for seed in range(1, 6)]
    assert [len(row) for row in rows] == [len(columns)] * len(rows)
    before = ZERO_TUNING.run(three).data["scores"].rows
    chosen = columns.index("setting")
    assert [row[chosen] for row in rows] == [row[chosen] for row in before]
    assert len(work(five)) - len(work(three)) == 2 * 3, "SGD, Adam and the default"


@pytest.mark.parametrize(
    ("name", "seeds", "words"),
    [
        ("zero-tuning", 2, "--seeds: expected at least 3, which decide what is tuned, got 2"),
        ("robust-region", 5, "--seeds 5: robust-region always has 3 seeds; leave --seeds out, or make zero-tuning"),
    ],
)
def test_seeds_that_cannot_be_had_are_refused_in_words(tmp_path: Path, name: str, seeds: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        reproduce(name, Lab(tmp_path, "small", seeds=seeds))
