"""Numbers as people read them."""

from __future__ import annotations

import pytest

from launch.numbers import bytes_shown, duration, fixed, harmless, shown


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0"), (-0.2134, "−0.2134"), (1e-7, "1e−07"), (float("inf"), "inf")]
)
def test_numbers_keep_their_sign_and_their_absence(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_fixed_numbers_keep_their_width() -> None:
    assert (fixed(-0.25), fixed(None)) == ("−0.250", "–")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1:00"), (187, "3:07"), (7509, "2:05:09"), (float("inf"), "–")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (231 * 2**20, "231 MiB"), (2**50, "1024.0 TiB")]
)
def test_bytes_take_the_largest_unit(count: int, text: str) -> None:
    assert bytes_shown(count) == text


def test_control_characters_become_spaces() -> None:
    assert harmless("a\x1b[2J\u202eb\n") == "a [2J b "
