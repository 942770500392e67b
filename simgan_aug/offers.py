"""What a plugin may offer, kind by kind, and what must be true of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from simgan_aug.errors import PluginError

COMMANDS = (
    "audit",
    "bench",
    "demo",
    "export",
    "new-plugin",
    "plugins",
    "preview",
    "realism",
    "refine",
)
TAKEN = {
    "command": (*COMMANDS, "report", "study", "train"),
    "preset": ("default", "wide"),
    "space": ("random",),
}
"""Names of ours that are no plugin's, by kind."""


SCHEME = r"[a-z][a-z0-9+.-]+"
"""What the name of an image source looks like; two characters at least."""


@dataclass(frozen=True)
class Offer:
    """A kind of part: the hook that it comes through, and what is wrong with one, if anything."""

    hook: str
    fault: Callable[[str, Any], str]
    """A name and what it stands for -> what was expected instead; "" if it can be used."""


def _no_callable(name: str, part: Any) -> str:
    return "" if callable(part) else "names to callables"


def _no_source(name: str, part: Any) -> str:
    if not re.fullmatch(SCHEME, name):
        return "schemes of two or more small letters, digits, +, - and ., a letter first"
    return _no_callable(name, part)


def _no_space(name: str, part: Any) -> str:
    return "names without a colon" if ":" in name else _no_callable(name, part)


def _no_command(name: str, part: Any) -> str:
    import click

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return "names of letters, digits, _, . and -"
    return "" if isinstance(part, click.Command) else "names to click commands"


KINDS = {
    "refiner": Offer("simgan_register_refiners", _no_callable),
    "discriminator": Offer("simgan_register_discriminators", _no_callable),
    "loss": Offer("simgan_register_losses", _no_callable),
    "regularization": Offer("simgan_register_regularizations", _no_callable),
    "feature transform": Offer("simgan_register_feature_transforms", _no_callable),
    "checkpoint": Offer("simgan_register_checkpoints", _no_callable),
    "preset": Offer("simgan_register_presets", _no_callable),
    "gate": Offer("simgan_register_gates", _no_callable),
    "space": Offer("simgan_register_spaces", _no_space),
    "command": Offer("simgan_register_commands", _no_command),
    "source": Offer("simgan_register_sources", _no_source),
}


def checked(kind: str, returned: Any) -> dict[str, Any]:
    """What the hook of a kind has returned, as a dict.

    Raises:
        PluginError: it is no mapping, or one of it cannot be a part of this kind.
    """
    offer = KINDS[kind]
    if not isinstance(returned, Mapping):
        raise PluginError(
            f"{offer.hook}: expected a mapping from names to factories, "
            f"got {type(returned).__name__}"
        )
    for name, part in returned.items():
        fault = offer.fault(name, part) if isinstance(name, str) and name else "names to callables"
        if fault:
            raise PluginError(f"{offer.hook}: expected {fault}, got {name!r}: {part!r}")
    return dict(returned)
