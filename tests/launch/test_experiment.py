"""Experiments: reading, settings, errors that help, and writing back."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.experiment import Experiment, TaskSection, TrainSection, load_experiment
from launch.overrides import parse_override
from launch.shipped import question, shipped_configs
from psserver.errors import ConfigurationError
from psserver.options import RuleOptions

SMALL = '[task]\nfunction = "worker.zoo.quadratic:quadratic"\n'


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def refusal(source: Path, *settings: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(source, settings)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_loads_by_its_bare_name_and_says_its_question(name: str) -> None:
    assert load_experiment(name).name == name
    assert question(shipped_configs()[name]).endswith((".", "?"))


@pytest.mark.parametrize("name", shipped_configs())
def test_a_written_experiment_reads_back_equal(name: str, tmp_path: Path) -> None:
    experiment = load_experiment(name)
    experiment.write(tmp_path / "experiment.toml")
    assert load_experiment(tmp_path) == experiment


def test_defaults_fill_what_the_file_leaves_out(small: Path) -> None:
    experiment = load_experiment(small)
    assert (experiment.name, experiment.train.workers) == ("small", 4)
    assert (experiment.rule.name, experiment.rule.beta2) == ("soap", 0.95)
    assert (experiment.tuner.target, experiment.tuner.loop) == ("distance", "both")


@pytest.mark.parametrize("name", get_args(get_type_hints(RuleOptions)["name"]))
def test_the_distance_target_goes_with_rules_of_adams_kind_only(name: str, small: Path) -> None:
    settings = [f"rule.name={name}"]
    if name in ("soap", "adam", "adamw"):
        assert load_experiment(small, settings).tuner.target == "distance"
    else:
        with pytest.raises(ConfigurationError, match=f"tuner.target: expected one that fits rule.name '{name}'"):
            load_experiment(small, settings)
    assert load_experiment(small, [*settings, "tuner.target=constant"]).rule.name == name


def test_settings_win_over_the_file_and_later_ones_over_earlier_ones(small: Path) -> None:
    experiment = load_experiment(small, ["train.seed=1", "train.seed=2", "task.arguments.noise=0.5"])
    assert experiment.train.seed == 2
    assert experiment.task.arguments == {"noise": 0.5}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("true", True),
        ("none", None),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ("cuda:1", "cuda:1"),
        ("a.py:f", "a.py:f"),
        ("2024-01-01", "2024-01-01"),
        ("1\nb = 2", "1\nb = 2"),
        ("", ""),
    ],
)
def test_a_setting_is_toml_and_a_bare_word_is_a_string(text: str, value: object) -> None:
    assert parse_override(f"a.b={text}").value == value


@pytest.mark.parametrize("text", ["train.seed", "=3", ".seed=3", "a=[1,", 'a="x'])
def test_a_setting_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--set"):
        parse_override(text)


def test_none_lifts_a_bound_and_hands_an_argument_back_to_its_default(small: Path) -> None:
    bounded = load_experiment(small, ["server.max_staleness=4", "task.arguments.noise=1"])
    lifted = bounded.with_settings("server.max_staleness=none", "task.arguments.noise=none")
    assert (lifted.server.max_staleness, lifted.task.arguments) == (None, {})


def test_none_is_a_word_where_it_is_one_of_the_choices(small: Path) -> None:
    assert load_experiment(small, ["tuner.smoothing=none"]).tuner.smoothing == "none"


def test_an_unknown_key_names_the_near_miss_and_the_place(small: Path) -> None:
    small.write_text(SMALL + "[train]\nupdats = 3\n")
    assert refusal(small) == f"{small}: unknown key 'updats' in section [train]; did you mean 'updates'?"


def test_an_unknown_key_of_an_owners_section_names_the_near_miss(small: Path) -> None:
    assert "--set tuner.gian=1: unknown key 'gian' in section [tuner]; did you mean 'gain'?" in refusal(
        small, "tuner.gian=1"
    )


def test_a_key_in_the_wrong_section_is_led_to_the_right_one(small: Path) -> None:
    assert "did you mean tuner.gain?" in refusal(small, "server.gain=1")
    assert "did you mean train.updates?" in refusal(small, "updates=5")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.updates=soon", "train.updates: expected a whole number, got 'soon'"),
        ("train.workers=0", "train.workers: expected 1 or more, got 0"),
        ("train.seed=none", "train.seed: expected a whole number, got none"),
        ("launch.evaluator=yes", "launch.evaluator: expected true or false, got 'yes'"),
        ("server.mode=fast", "server.mode: expected 'asynchronous' or 'synchronous', got 'fast'"),
        ("server.slots=1", "server.slots: expected 0, or at least 3, got 1"),
        ("tuner=3", "tuner: expected a section, got 3"),
        ("train.seed.x=3", "train.seed: expected a whole number, got {'x': 3}"),
    ],
)
def test_a_wrong_value_says_expected_got_and_where(small: Path, setting: str, sentence: str) -> None:
    assert refusal(small, setting) == f"--set {setting}: {sentence}"


def test_every_mistake_is_said_at_once(small: Path) -> None:
    assert len(refusal(small, "train.updates=x", "server.slots=1", "sever.mode=x").splitlines()) == 3


def test_a_missing_task_and_broken_toml_are_refused(small: Path) -> None:
    small.write_text("[train]\nupdates = 3\n")
    assert "section [task] is missing" in refusal(small)
    small.write_text("[task\n")
    assert "expected a TOML file" in refusal(small)


def test_an_experiment_that_is_not_there_names_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean quadratic"):
        load_experiment("quadratc")
    with pytest.raises(ConfigurationError, match=r"without an experiment\.toml"):
        load_experiment(tmp_path)


def test_a_tasks_file_is_found_beside_the_config_and_from_here_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "task.py").touch()
    config = tmp_path / "mine.toml"
    config.write_text('[task]\nfunction = "task.py:f"\n')
    monkeypatch.chdir(tmp_path / "here")
    assert load_experiment(config).task.function == f"{tmp_path / 'task.py'}:f"
    (tmp_path / "here" / "task.py").touch()
    assert load_experiment(config).task.function == f"{tmp_path / 'here' / 'task.py'}:f"


def test_an_experiment_does_not_change() -> None:
    experiment = Experiment(task=TaskSection(function="a:b"))
    with pytest.raises(ValueError, match="frozen"):
        experiment.train = TrainSection()


plain = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text())
trees = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(st.dictionaries(st.text(), trees, max_size=4))
def test_any_arguments_survive_being_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, arguments: dict
) -> None:  # type: ignore[type-arg]
    experiment = Experiment(task=TaskSection(function="a:b", arguments=arguments))
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    experiment.write(path)
    assert load_experiment(path) == experiment


def test_a_rule_that_the_servers_mode_gives_no_meaning_is_refused(small: Path) -> None:
    text = refusal(small, "server.mode=synchronous", "rule.staleness=threshold", "rule.delay_threshold=4")
    assert "rule.staleness: expected no 'threshold' in synchronous mode" in text
    assert "rule.delay_threshold: expected 1 or more updates" in refusal(small, "rule.staleness=threshold")
