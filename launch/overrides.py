"""Settings given beside an experiment file: `--set section.key=value`, and the options that are short for one."""

from __future__ import annotations

import contextlib
import datetime
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from psserver.errors import ConfigurationError

_OPENING = ("[", "{", '"', "'")


@dataclass(frozen=True)
class Override:
    """One value, the keys that lead to it, and what the user typed (for error messages)."""

    keys: tuple[str, ...]
    value: Any
    origin: str


def parse_override(text: str) -> Override:
    """Read `section.key=value`: the value is TOML, a bare word is a string, and `none` means no value.

    Raises ConfigurationError for a missing `=`, an empty key, or a list, table or quotation that is not closed.
    """
    origin = f"--set {text}"
    name, equals, value = text.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys):
        raise ConfigurationError(f"--set: expected section.key=value, got {text!r}; for example --set train.seed=2")
    return Override(keys, _value(value.strip(), origin), origin)


def _value(text: str, origin: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text.startswith(_OPENING):
            raise ConfigurationError(f"{origin}: expected a TOML value, got {text}: {error}") from error
        with contextlib.suppress(ValueError):
            return float(text)
        return text
    value = parsed["value"]
    dates = (datetime.date, datetime.time)
    return text if len(parsed) > 1 or isinstance(value, dates) else value


def apply_override(document: dict[str, Any], override: Override, words: Collection[tuple[str, ...]] = ()) -> None:
    """Put the override's value into `document`, making tables on the way.

    `none` is one of the choices of the keys in `words`. It removes an argument of a task, so that the function's own
    default holds; elsewhere it stays no value, to be accepted or refused by the key's type. Raises
    ConfigurationError where a key leads through a plain value.
    """
    table = document
    for depth, key in enumerate(override.keys[:-1]):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            path = ".".join(override.keys[: depth + 1])
            raise ConfigurationError(f"{override.origin}: expected {path} to be a section, got {inner!r}")
        table = inner
    if override.value is None and override.keys in words:
        table[override.keys[-1]] = "none"
    elif override.value is None and override.keys[:2] == ("task", "arguments"):
        table.pop(override.keys[-1], None)
    else:
        table[override.keys[-1]] = override.value
