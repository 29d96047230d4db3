"""The command line: one group of commands, and what each kind of error ends it with."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from launch.cli_lab import LABORATORY
from launch.cli_look import LOOKING
from launch.cli_run import RUNNING

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def commands() -> None:
    """YellowFin PS: asynchronous training that measures its own total momentum and tunes itself.

    Try `yfps demo`, then `yfps train digits_async16`, then your own task: `yfps configs` shows a template.
    """


for _command in (*RUNNING, *LABORATORY, *LOOKING):
    commands.add_command(_command)


class _Ending:
    """Turns what a command raised into an exit code and a sentence. The errors are imported when there is one."""

    def __init__(self) -> None:
        self.code = 0

    def __enter__(self) -> _Ending:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        if isinstance(error, click.Abort | KeyboardInterrupt):
            click.echo("yfps: interrupted", err=True)
            self.code = INTERRUPTED
            return True
        if isinstance(error, click.ClickException):
            error.show()
            self.code = error.exit_code
            return True
        return self._mended(error)

    def _mended(self, error: BaseException) -> bool:
        from psserver.errors import TaskError, YellowFinError

        if not isinstance(error, YellowFinError):
            return False
        if isinstance(error, TaskError):
            from worker.load import user_traceback

            click.echo(user_traceback(error), err=True)
        click.echo(f"yfps: {error}", err=True)
        self.code = error.exit_code
        return True


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    0 done, 1 failed, 2 something the user can mend (said in one sentence), 130 interrupted.
    """
    with _Ending() as ending:
        result = commands.main(args=list(arguments), prog_name="yfps", standalone_mode=False)
        return result if isinstance(result, int) else 0
    return ending.code


def main() -> None:
    """The `yfps` command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
