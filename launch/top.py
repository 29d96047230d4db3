"""Watches a server that is already running, by its address alone."""

from __future__ import annotations

import time

from rich.console import Console

from launch.display import Display, Heading, show_until_done
from psserver.messages import Status
from psserver.wire import Limits
from worker.client import RunOver
from worker.connection import Connection

_PATIENCE = 10.0


def watch(address: str, console: Console | None = None, patience: float = _PATIENCE) -> None:
    """Show the run behind `address` until it is over.

    patience: seconds without an answer before AddressError (never reached) or ServerLostError (lost on the way).
    """
    connection = Connection(address, Limits(), patience)
    display = Display(Heading("yfps top", "", address), console)

    def poll() -> Status:
        return connection.status()

    try:
        show_until_done(poll, display, time.sleep)
    except RunOver as over:
        display.note(f"The run is over: {over}")
    finally:
        connection.close()
