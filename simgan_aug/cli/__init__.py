"""The command line: each command reads its options, calls one function, and says what came of it.

Exit codes: 0 done; 1 the work failed (a loss is not finite, the disk is full, a result is damaged);
2 the user can mend it; 3 done, but images were set aside; 130 interrupted.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import click

from simgan_aug.cli.audit import audit
from simgan_aug.cli.bench import bench
from simgan_aug.cli.commands import CommandFailed, Commands
from simgan_aug.cli.export import export
from simgan_aug.cli.new_plugin import new_plugin
from simgan_aug.cli.options import MEMORY_ADVICE
from simgan_aug.cli.realism import realism
from simgan_aug.cli.refine import refine
from simgan_aug.cli.report import report
from simgan_aug.cli.show import demo, plugins, preview
from simgan_aug.cli.study import study
from simgan_aug.cli.train import train
from simgan_aug.errors import OutputError, SimganAugError, TrainingError, is_out_of_memory


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
)
@click.version_option(package_name="simgan-aug")
def cli() -> None:
    """Make synthetic training images look real without moving their labels."""


for command in (
    train,
    refine,
    audit,
    report,
    realism,
    study,
    export,
    preview,
    plugins,
    new_plugin,
    bench,
    demo,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns its exit code and shows no traceback for a user's mistake."""
    from simgan_aug.progress import Interrupted

    warnings.showwarning = _show_warning  # type: ignore[assignment]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(cli.main(args=arguments, prog_name="simgan-aug", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SimganAugError as error:
        click.echo(f"error: {error}", err=True)
        return 1 if isinstance(error, (TrainingError, OutputError)) else 2
    except CommandFailed as error:
        click.echo(f"error: {error}", err=True)
        return 1
    except (Interrupted, KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        return 1
    except OSError as error:  # a name too long, no right to look
        click.echo(f"error: {error.filename or 'the system'}: {error.strerror or error}", err=True)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        click.echo(f"error: out of memory: {MEMORY_ADVICE}", err=True)
        return 1


def _show_warning(message: Any, *_: Any) -> None:
    click.echo(f"warning: {message}", err=True)
