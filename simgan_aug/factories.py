"""Calling a part's factory with options that come from a file: each held against its signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from simgan_aug.errors import (
    ConfigError,
    PluginError,
    SimganAugError,
    did_you_mean,
    is_out_of_memory,
)


def call(make: Callable[..., Any], options: Mapping[str, Any], what: str) -> Any:
    """What a factory makes with these options.

    Args:
        make: the factory.
        options: plain values.
        what: it is, for the message.

    Raises:
        ConfigError: the factory has no such option, or refuses a value.
        PluginError: it fails in another way.
    """
    checked = _checked(make, options, what)
    try:
        return make(**checked)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, of an impossible size
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{what}: {error}") from error
    except SimganAugError:
        raise
    except Exception as error:  # of a plugin, whose library is missing, say
        raise PluginError(f"{what}: {type(error).__name__}: {error}") from error


def takes(make: Callable[..., Any], name: str) -> bool:
    """Whether the signature of a factory names an argument."""
    try:
        return name in inspect.signature(make).parameters
    except ValueError:  # of some built-in types there is no signature
        return False


def _checked(make: Callable[..., Any], options: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The options, held against the factory's signature and annotations."""
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:  # of some built-in types there is no signature
        return dict(options)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(options)
    hints = _hints(make)
    checked = {}
    for name, value in options.items():
        if name not in parameters and name == "channels":
            raise ConfigError(f"{what}: its factory must take `channels`, those of the images")
        if name not in parameters:
            raise ConfigError(f"{what}: no option {name!r}{did_you_mean(name, parameters)}")
        try:
            checked[name] = msgspec.convert(value, hints[name]) if name in hints else value
        except msgspec.ValidationError as error:
            raise ConfigError(f"{what}: {name}: {error}") from None
    return checked


def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a factory that plain values can be checked against."""
    target = make.__init__ if inspect.isclass(make) else make
    try:
        hints = typing.get_type_hints(target)
    except Exception:  # an annotation of theirs that does not resolve: the value is not checked
        return {}
    plain = (int, float, str, bool, list, tuple, dict)
    return {
        name: hint
        for name, hint in hints.items()
        if hint in plain or typing.get_origin(hint) in (list, tuple, dict)
    }
