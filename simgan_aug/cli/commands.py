"""Our commands, and after them those of plugins, which are loaded when they are asked for."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any

import click

from simgan_aug import discovery
from simgan_aug.errors import SimganAugError, did_you_mean, is_out_of_memory


class CommandFailed(Exception):
    """A plugin's command has raised what is no error of ours."""


class Commands(click.Group):
    """A group that knows the commands of plugins, too.

    SIMGAN_AUG_TRACEBACK   1: show where in its plugin a command has failed
    """

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """One of ours, else one of a plugin, else none; a name that is neither is answered."""
        if name in self.commands or context.resilient_parsing or name.startswith("-"):
            return self.commands.get(name)
        offered = _offered()
        if name not in offered:
            known = did_you_mean(name, [*self.commands, *offered])
            context.fail(f"no command named {name!r}{known}{_broken()}")
        command: click.Command = offered[name].make
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Ours, then those of plugins."""
        super().format_commands(context, formatter)
        shown = {n: part.make for n, part in sorted(_offered().items()) if not part.make.hidden}
        if shown:
            room = formatter.width - 6 - max(map(len, shown))
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(n, c.get_short_help_str(room)) for n, c in shown.items()])

    def invoke(self, context: click.Context) -> Any:
        """Run the command that was named; of a plugin's, an int that it returns is the exit code.

        Raises:
            CommandFailed: a plugin's command has raised; names both.
        """
        try:
            result = super().invoke(context)
        except Exception as error:
            name = context.invoked_subcommand
            if name is None or name in self.commands or _is_told(error):
                raise
            raise CommandFailed(_failure(name, error)) from error
        ours = context.invoked_subcommand in self.commands
        return result if ours or isinstance(result, int) else 0


def _is_told(error: Exception) -> bool:
    """Whether it is an error that the command line has words for."""
    from simgan_aug.progress import Interrupted

    told = (SimganAugError, click.ClickException, click.exceptions.Exit, click.Abort, Interrupted)
    return isinstance(error, (*told, BrokenPipeError)) or is_out_of_memory(error)


def _failure(name: str, error: Exception) -> str:
    from simgan_aug import plugins

    said = f"command {name!r} of plugin {plugins.owner('command', name)}: "
    if os.environ.get("SIMGAN_AUG_TRACEBACK") == "1":
        return said + "\n" + "".join(traceback.format_exception(error)).rstrip()
    return f"{said}{type(error).__name__}: {error} (where: SIMGAN_AUG_TRACEBACK=1)"


def _offered() -> Mapping[str, Any]:
    """Commands of plugins by name."""
    if not discovery.installed():
        return {}  # without the registry, with which torch would come
    from simgan_aug import plugins

    return plugins.parts("command")


def _broken() -> str:
    """A note on plugins that might have had a command, had they not been broken."""
    if not discovery.installed():
        return ""
    from simgan_aug import plugins

    return plugins.registry().broken
