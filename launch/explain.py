"""Turns what a typed model refuses into sentences: where, what was expected, what came, what was meant."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a section",
    "model_type": "a section",
    "model_attributes_type": "a section",
    "dataclass_type": "a section",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
}


def explain(error: ValidationError, model: type[BaseModel], where: str, origins: Mapping[tuple[str, ...], str]) -> str:
    """One sentence for each thing that is wrong, a line each.

    `where` names the document; `origins` maps the keys of values given on the command line to what was typed.
    """
    lines = []
    for item in error.errors():
        keys = tuple(str(part) for part in item["loc"])
        place = _place(keys, where, origins)
        if item["type"] in _UNKNOWN:
            line = f"unknown {_name(keys)}{_hint(keys, model)}"
        elif item["type"] == "missing":
            line = f"{_name(keys)} is missing"
        elif item["type"] == "value_error":
            field, _, rest = item["msg"].removeprefix("Value error, ").partition(": ")
            place = _place((*keys, field), where, origins)
            line = f"{'.'.join((*keys, field))}: {rest}"
        else:
            expected = _EXPECTED.get(item["type"], "").format(**item.get("ctx", {})) or item["msg"]
            line = f"{'.'.join(keys)}: expected {expected}, got {_shown(item['input'])}"
        lines.append(f"{place}: {line}")
    return "\n".join(dict.fromkeys(lines))


def _place(keys: tuple[str, ...], where: str, origins: Mapping[tuple[str, ...], str]) -> str:
    matches = (typed for path, typed in origins.items() if keys[: len(path)] == path or path[: len(keys)] == keys)
    exact = (typed for path, typed in origins.items() if path == keys)
    return next(exact, None) or next(matches, where)


def _name(keys: tuple[str, ...]) -> str:
    return f"section [{keys[0]}]" if len(keys) == 1 else f"key {keys[-1]!r} in section [{'.'.join(keys[:-1])}]"


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)


def _hint(keys: tuple[str, ...], model: type[BaseModel]) -> str:
    tree = {name: _children(field.annotation) for name, field in model.model_fields.items()}
    siblings = tree if len(keys) == 1 else tree.get(keys[0], {})
    near = difflib.get_close_matches(keys[-1], list(siblings), n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    elsewhere = [f"{section}.{keys[-1]}" for section, names in tree.items() if keys[-1] in names]
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; expected one of {', '.join(siblings)}"


def keys_that_take(word: str, model: type[BaseModel]) -> set[tuple[str, ...]]:
    """The (section, key) pairs for which `word` is one of the choices."""
    return {
        (section, key)
        for section, field in model.model_fields.items()
        for key, hint in _children(field.annotation).items()
        if get_origin(hint) is Literal and word in get_args(hint)
    }


def _children(kind: Any) -> dict[str, Any]:
    """The keys of a section and their types."""
    known = isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))
    hints = get_type_hints(kind) if known else {}
    return {key: hint for key, hint in hints.items() if get_origin(hint) is not ClassVar}
