"""Seeds for independent streams of random numbers, named by what they are for."""

from __future__ import annotations

from hashlib import blake2b


def seed_of(*key: int | str) -> int:
    """Return a 64-bit seed that depends on every part of `key`, e.g. `seed_of("augment", seed, rank, step)`.

    The same on every machine and in every process, unlike `hash`.
    """
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "little")
