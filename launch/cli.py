"""The command line: one group of commands, and what each kind of error ends it with."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from launch.cli_look import LOOKING
from launch.cli_run import RUNNING
from psserver.errors import TaskError, YellowFinError

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def commands() -> None:
    """YellowFin PS: asynchronous training that measures its own total momentum and tunes itself.

    Try `yfps demo`, then `yfps train digits_async16`, then your own task: `yfps configs` shows a template.
    """


for _command in (*RUNNING, *LOOKING):
    commands.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    0 done, 1 failed, 2 something the user can mend (said in one sentence), 130 interrupted.
    """
    try:
        result = commands.main(args=list(arguments), prog_name="yfps", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("yfps: interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TaskError as error:
        _show_users_traceback(error)
        click.echo(f"yfps: {error}", err=True)
        return error.exit_code
    except YellowFinError as error:
        click.echo(f"yfps: {error}", err=True)
        return error.exit_code
    return result if isinstance(result, int) else 0


def _show_users_traceback(error: TaskError) -> None:
    from worker.load import user_traceback

    click.echo(user_traceback(error), err=True)


def main() -> None:
    """The `yfps` command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
