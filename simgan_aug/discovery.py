"""Which plugins are installed; nothing of them is imported here.

SIMGAN_AUG_DISABLE_PLUGINS   1: load no third-party plugin; a comma-separated list: not these
"""

from __future__ import annotations

import os
from importlib import metadata

GROUP = "simgan_aug"
"""Of entry points."""


def installed() -> list[metadata.EntryPoint]:
    """The entry points of all plugins that are not disabled, in an order that stays."""
    found = sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    return [entry for entry in found if not is_disabled(entry.name)]


def is_disabled(name: str) -> bool:
    """Whether the user does not want a plugin."""
    wish = os.environ.get("SIMGAN_AUG_DISABLE_PLUGINS", "")
    return wish == "1" or name in [part.strip() for part in wish.split(",")]
