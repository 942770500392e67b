"""What is measured of a label, and from where on it counts as moved or changed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from simgan_aug.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From where on a label counts as failed; from `examples/study/AUDIT.md`, not from taste.

    Raises:
        ConfigError: a limit that is no number.
    """

    displacement: float = 0.5
    """Px that the picture under a box may have moved on the whole."""
    local: float = 1.25
    """Px that a quarter of its parts may have moved."""
    keypoints: float = 0.75
    """Px that the picture around a keypoint may have moved."""
    contour: float = 0.5
    """Least share (F1) of the edges along a mask's outline that were and are there."""
    content: float = 0.4
    """Least similarity, in [-1, 1], of what is under a label after its best tone curve."""
    contrast: float = 0.35
    """Least contrast of a label, as a share of what became of the image's."""
    colour: float = 45.0
    """8-bit levels that the chroma under a label may be off the image's best colour map, beyond
    what three quarters of the image are."""
    appeared: float = 0.75
    """Strength of structure outside of all labels that is taken for a new object; 1 is as strong
    as the image's own strong edges."""

    def __post_init__(self) -> None:
        """Reject what cannot be compared with."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):
                raise ConfigError(
                    f"limit {field.name} must be a finite number, got {value!r}; one that nothing "
                    "reaches, such as 1e6 or for a share -1, switches the measure off"
                )

    @classmethod
    def of(cls, given: Mapping[str, float]) -> Limits:
        """The defaults with some replaced.

        Raises:
            ConfigError: an unknown name, or no number.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(f"no limit named {name!r}{did_you_mean(name, known)}")
        return cls(**given)


MEASURES = ("displacement", "local", "keypoints", "contour", "content", "contrast", "colour")
"""In the order in which they are shown."""

LOW_IS_BAD = frozenset({"contour", "content", "contrast"})
"""Measures of which a label must reach the limit; of the others it must not exceed it."""


def fails(measure: str, value: float | None, limits: Limits) -> bool:
    """Whether a value lies beyond its limit; one that could not be told does not."""
    if value is None:
        return False
    limit: float = getattr(limits, measure)
    return value < limit if measure in LOW_IS_BAD else value > limit
