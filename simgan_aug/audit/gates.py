"""Quality gates of plugins: reasons why a refined image may not be used, beside the audit's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simgan_aug import plugins
from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError, PluginError, is_out_of_memory

Array = np.ndarray[Any, Any]


class Gates:
    """Gates by name, asked one after the other.

    Raises:
        ConfigError: no list of names.
        PluginError: there is none of a name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"expected a list of names of gates, got {names!r}")
        self._gates = {
            name: (plugins.registry().find("gate", name).make, plugins.owner("gate", name))
            for name in names
        }

    @property
    def versions(self) -> dict[str, str]:
        """Distribution and version that offer each gate, by name."""
        return {name: " ".join(plugins.provider("gate", name)) for name in sorted(self._gates)}

    def __call__(self, old: Array, new: Array, annotations: Sequence[Annotation]) -> list[str]:
        """Why an image may not be used, each reason after "gate NAME: "; empty: it may.

        Args:
            old, new: (H, W) or (H, W, C) before and after; a gate cannot write to them.
            annotations: of the image.

        Raises:
            PluginError: a gate raises, or returns no list of texts; names gate and plugin.
        """
        pair = _read_only(old), _read_only(new)
        reasons = []
        for name, (gate, who) in self._gates.items():
            try:
                found = gate(*pair, list(annotations))
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise PluginError(
                    f"gate {name!r} of {who}: {type(error).__name__}: {error}"
                ) from error
            if not isinstance(found, (list, tuple)) or not all(isinstance(r, str) for r in found):
                raise PluginError(
                    f"gate {name!r} of {who}: expected a list of reasons, which is empty for an "
                    f"image that passes; got {found!r}"
                )
            reasons += [f"gate {name}: {reason}" for reason in found]
        return reasons


def _read_only(image: Array) -> Array:
    view = image.view()
    view.flags.writeable = False
    return view
