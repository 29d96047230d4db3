"""Work on parts of a vector that have nothing to do with each other: side by side, on a few threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Part = TypeVar("Part")


class Spread:
    """`threads` threads, which start with the first work there is; one thread is the caller's own.

    What is done to a part is the same whichever thread does it and when, so results are, bit for bit.
    """

    def __init__(self, threads: int = 1) -> None:
        # PyTorch's number of threads is each thread's own
        ours = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(threads, "update", torch.set_num_threads, (ours,)) if threads > 1 else None

    def each(self, work: Callable[[Part], None], parts: Iterable[Part]) -> None:
        """Do `work` to every part; raises what the first of them that failed has raised, once all are over."""
        if self._pool is None:
            for part in parts:
                work(part)
            return
        begun = [self._pool.submit(work, part) for part in parts]
        wait(begun)
        for done in begun:
            done.result()

    def close(self) -> None:
        """End the threads; nothing may follow."""
        if self._pool is not None:
            self._pool.shutdown()
