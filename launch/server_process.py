"""The server's own process: `python -m launch.server_process PARENT RUN_DIR ADDRESS... [--resume]`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from launch.nursery import die_with_parent


def main(arguments: list[str]) -> int:
    """Serve a run whose folder holds its experiment.toml; ends with its supervisor, by way of a checkpoint."""
    die_with_parent(signal.SIGTERM)
    resume = "--resume" in arguments
    parent, run_dir, *bind = [argument for argument in arguments if argument != "--resume"]
    folder = Path(run_dir)
    (folder / "logs" / "server.failure").unlink(missing_ok=True)
    from launch.process import guarded, run_server_process

    return guarded("server", folder, lambda: run_server_process(folder, bind, resume, int(parent)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
