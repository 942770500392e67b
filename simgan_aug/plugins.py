"""The one registry: which parts there are, who offers them, and what went wrong.

Our own parts and those of installed distributions (entry point group "simgan_aug") come through the
same hooks. A broken plugin is kept apart, named by `failures` and by a warning, and stops nothing
else.

    SIMGAN_AUG_STRICT_PLUGINS    1: a broken plugin is an error

Which are installed, and which of these are not wanted, `discovery` knows.
"""

from __future__ import annotations

import functools
import inspect
import os
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from simgan_aug import builtin, discovery, factories, hookspecs, offers
from simgan_aug.errors import PluginError, did_you_mean

PROJECT = discovery.GROUP

_OURS = ("simgan_register_", "simgan_training_")
"""How the names of hooks begin, so that a misspelt one is told of though it is not marked."""

KINDS = tuple(offers.KINDS)
"""Kinds of parts that `parts` and `build` know."""


@dataclass(frozen=True)
class RegisteredPart:
    """A factory (of a feature transform: the function itself) and the plugin that offers it."""

    make: Callable[..., Any]
    plugin: str


@dataclass
class Plugin:
    """One plugin as `simgan-aug plugins` lists it."""

    name: str
    distribution: str
    version: str
    module: Any = None
    hooks: list[str] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    error: str = ""
    """Why it was kept apart; empty if it was not."""

    @property
    def title(self) -> str:
        """As messages call it."""
        return f"{self.name!r} of {self.distribution} {self.version}"


class Registry:
    """Plugins of one process, loaded once; the functions of this module ask the shared one.

    Args:
        entry_points: of the installed distributions, or others in a test.
        builtins: modules that come with the package, by name.
    """

    def __init__(
        self, entry_points: list[metadata.EntryPoint], builtins: Mapping[str, Any]
    ) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.plugins: dict[str, Plugin] = {}
        self.parts: dict[str, dict[str, RegisteredPart]] = {kind: {} for kind in KINDS}
        self._silenced: set[tuple[str, str, Any]] = set()  # plugin, its hook that raised, run
        for name, module in builtins.items():
            self._add(Plugin(name, PROJECT, metadata.version("simgan-aug"), module))
        for entry in entry_points:
            if not discovery.is_disabled(entry.name):
                self._load(entry)

    def build(self, kind: str, name: str, /, **options: Any) -> Any:
        """A part made by its factory.

        Raises:
            PluginError: no part of this kind has this name.
            ConfigError: the factory has no such option, or refuses a value.
        """
        return factories.call(self.find(kind, name).make, options, f"{kind} {name!r}")

    def find(self, kind: str, name: str) -> RegisteredPart:
        """A part by name; an unknown name is a PluginError that lists the known ones."""
        known = self.parts[kind]
        if name not in known:
            raise PluginError(f"no {kind} named {name!r}{did_you_mean(name, known)}{self.broken}")
        return known[name]

    @property
    def broken(self) -> str:
        """The tail of a message about an unknown name: the plugins that might have had it."""
        names = [plugin.name for plugin in self.plugins.values() if plugin.error]
        return f"; broken plugins: {', '.join(names)} (see simgan-aug plugins)" if names else ""

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook plugin by plugin.

        One that raises is warned of and this hook of it not called again for this run (`out`).
        """
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            silenced = (implementation.plugin_name, hook, arguments["out"])
            if silenced in self._silenced:
                continue
            try:
                wanted = {name: arguments[name] for name in implementation.argnames}
                implementation.function(**wanted)
            except Exception as error:
                self._silenced.add(silenced)
                plugin = self.plugins[implementation.plugin_name]
                plugin.error = f"{hook}: {_describe(error)} ({_place(error, implementation)})"
                _warn(
                    f"plugin {plugin.title} fails, and is not told of this any more in "
                    f"{arguments['out']}: {plugin.error}"
                )

    def _load(self, entry: metadata.EntryPoint) -> None:
        distribution = entry.dist.name if entry.dist else "unknown"
        plugin = Plugin(entry.name, distribution, entry.dist.version if entry.dist else "unknown")
        if entry.name in self.plugins:
            other = self.plugins[entry.name].distribution
            plugin.name = f"{entry.name} ({distribution})"
            self._fail(plugin, f"the name {entry.name!r} is taken by a plugin of {other}")
            return
        try:
            plugin.module = entry.load()
        except BaseException as error:  # a module may do anything on import, sys.exit included
            if isinstance(error, KeyboardInterrupt):
                raise
            self._fail(plugin, f"import: {_describe(error)}")
            return
        self._add(plugin)

    def _add(self, plugin: Plugin) -> None:
        """Register a plugin and take its parts; all of it or nothing."""
        try:
            self.manager.register(plugin.module, name=plugin.name)
            plugin.hooks = sorted(
                caller.name for caller in self.manager.get_hookcallers(plugin.module) or []
            )
            self._check_hooks(plugin)
            offered = {kind: self._offered(plugin, kind) for kind in KINDS}
        except (Exception, SystemExit) as error:
            self._fail(plugin, _describe(error))
            return
        for kind, made in offered.items():
            plugin.parts[kind] = sorted(made)
            self.parts[kind] |= {
                name: RegisteredPart(make, plugin.name) for name, make in made.items()
            }
        self.plugins[plugin.name] = plugin

    def _check_hooks(self, plugin: Plugin) -> None:
        """Reject hooks that nobody would call: not marked, misspelt, or none at all."""
        known = [name for name in vars(hookspecs) if name.startswith("simgan_")]
        for name in known:
            if name not in plugin.hooks and callable(getattr(plugin.module, name, None)):
                raise PluginError(f"{name} is not marked: put @simgan_aug.hookimpl above it")
        unmarked = [
            name
            for name, value in getattr(plugin.module, "__dict__", {}).items()
            if name.startswith(_OURS) and inspect.isfunction(value) and name not in plugin.hooks
        ]
        for name in (*plugin.hooks, *unmarked):
            caller = getattr(self.manager.hook, name, None)
            known_by = [] if caller is None else caller.get_hookimpls()
            mine = [each for each in known_by if each.plugin is plugin.module]
            is_ours = caller is not None and caller.has_spec()
            if not is_ours and not (mine and all(each.optionalhook for each in mine)):
                raise PluginError(
                    f"no hook named {name!r} in version {hookspecs.VERSION} of the contract"
                    f"{did_you_mean(name, known)}"
                )
            for each in mine:
                if each.wrapper or each.hookwrapper or _is_lazy(each.function):
                    raise PluginError(
                        f"{name} is a wrapper, a generator or a coroutine, which would never run: "
                        "hooks are called one by one, make it a plain function"
                    )
        if not plugin.hooks:
            raise PluginError("it has no function that is marked with @simgan_aug.hookimpl")

    def _offered(self, plugin: Plugin, kind: str) -> dict[str, Any]:
        hook = offers.KINDS[kind].hook
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin is plugin.module:
                try:
                    returned = implementation.function()
                except (Exception, SystemExit) as error:
                    raise PluginError(f"{hook}: {_describe(error)}") from error
                parts = offers.checked(kind, returned)
                for name in parts:
                    self._check_free(kind, name)
                return parts
        return {}

    def _check_free(self, kind: str, name: str) -> None:
        """Reject a part whose name is taken."""
        taken = self.parts[kind].get(name)
        owner = self.plugins[taken.plugin].title if taken else ""
        if name in offers.TAKEN.get(kind, ()):
            owner = PROJECT
        if owner:
            raise PluginError(
                f"{offers.KINDS[kind].hook}: the {kind} {name!r} is already offered by {owner}; "
                "rename one of them"
            )

    def _fail(self, plugin: Plugin, error: str) -> None:
        if self.manager.has_plugin(plugin.name):
            self.manager.unregister(name=plugin.name)
        self.plugins[plugin.name] = plugin
        self._complain(plugin, error)

    def _complain(self, plugin: Plugin, error: str) -> None:
        plugin.error = error
        _warn(f"plugin {plugin.title} is left out: {error}")


@functools.cache
def registry() -> Registry:
    """The shared registry, made at the first call."""
    from simgan_aug import observers

    return Registry(discovery.installed(), {"builtin": builtin, "observers": observers})


def parts(kind: str) -> Mapping[str, RegisteredPart]:
    """Registered parts of a kind, one of `KINDS`, by name."""
    return registry().parts[kind]


def build(kind: str, name: str, /, **options: Any) -> Any:
    """See `Registry.build`."""
    return registry().build(kind, name, **options)


def plugins() -> list[Plugin]:
    """All plugins found, the broken ones with their error."""
    return list(registry().plugins.values())


def failures() -> dict[str, str]:
    """Why a plugin was kept apart, by its name."""
    return {plugin.name: plugin.error for plugin in plugins() if plugin.error}


def owner(kind: str, name: str) -> str:
    """The plugin that offers a part, as messages call it."""
    return registry().plugins[registry().find(kind, name).plugin].title


def provider(kind: str, name: str) -> tuple[str, str]:
    """Distribution and version that offer a part."""
    plugin = registry().plugins[registry().find(kind, name).plugin]
    return plugin.distribution, plugin.version


def _warn(message: str) -> None:
    """Of a broken plugin; an error, where that is asked for."""
    if os.environ.get("SIMGAN_AUG_STRICT_PLUGINS") == "1":
        raise PluginError(message)
    warnings.warn(message, stacklevel=2)


def _is_lazy(function: Any) -> bool:
    """Whether a call of it runs none of it."""
    kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
    return any(is_kind(function) for is_kind in kinds)


def _place(error: BaseException, implementation: pluggy.HookImpl) -> str:
    """Where in the file of a hook something was raised, or what that called."""
    frames = traceback.extract_tb(error.__traceback__)
    code = getattr(implementation.function, "__code__", None)
    own = code and code.co_filename
    frame = next((each for each in reversed(frames) if each.filename == own), frames[-1])
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, PluginError) else str(error)


__all__ = [
    "KINDS",
    "Plugin",
    "RegisteredPart",
    "Registry",
    "build",
    "failures",
    "owner",
    "parts",
    "plugins",
    "provider",
    "registry",
]
