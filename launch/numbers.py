"""How numbers, durations and texts from elsewhere are written for people."""

from __future__ import annotations

import math
import unicodedata

NOTHING = "–"


def shown(value: float | None, digits: int = 4) -> str:
    """A number to some significant digits; an en dash when it was not measured, a true minus sign below zero."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    return f"{value:.{digits}g}".replace("-", "−") if value else "0"


def fixed(value: float | None, places: int = 3) -> str:
    """A number with a fixed number of places, so that it does not jump about between two looks."""
    return NOTHING if value is None else f"{value:.{places}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as 4 s, 3:07 or 2:05:09."""
    if not math.isfinite(seconds):
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bytes_shown(count: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def harmless(text: str) -> str:
    """Text from another host without control characters, which could rewrite the terminal."""
    return "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in text)
