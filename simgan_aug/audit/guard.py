"""The guard: what moved or changed a label is taken back, as far as it must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgspec
import numpy as np

from simgan_aug.audit.image import ImageAudit, audit, lies_somewhere
from simgan_aug.audit.limits import Limits
from simgan_aug.audit.measures import window
from simgan_aug.coco import Annotation
from simgan_aug.errors import ConfigError
from simgan_aug.geometry import mask_of
from simgan_aug.pixels import blend

Array = np.ndarray[Any, Any]

POLICIES = ("image", "label")

STEPS = 8
"""Strengths that are tried, from all of the change to none of it."""

RIM = 8
"""Px around a label that are taken back with it."""

FEATHER = 16.0
"""Px further over which that goes over into the rest, so that no new edge comes of it."""

CELL = 64
"""Px of the cells that stand for labels where there are none."""


class Guarded(msgspec.Struct, frozen=True):
    """What a guard did to an image."""

    strength: float
    """Share of the change that is left of the whole image: 1 all, 0: it is the original."""
    labels: list[tuple[Any, float]] = []
    """Ids of labels, and of what appeared beside them "new", and the share left there."""
    failures: list[str] = []
    """Measures that had failed, sorted."""

    @property
    def is_untouched(self) -> bool:
        """Whether there was nothing to take back."""
        return self.strength == 1 and not self.labels


@dataclass(frozen=True)
class Guard:
    """Takes back what fails an audit.

    Args:
        policy: "image": blend a whole image that fails with the original, to the largest of
            `STEPS` strengths that passes, else leave the original; "label": do so only under the
            labels that fail, and a rim around them, else the same with the whole.
        limits: see `Limits`.

    Raises:
        ConfigError: another policy.
    """

    policy: str = "label"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Reject an unknown policy."""
        if self.policy not in POLICIES:
            raise ConfigError(f"guard must be one of {', '.join(POLICIES)}, got {self.policy!r}")

    def __call__(
        self, old: Array, new: Array, annotations: Sequence[Annotation] | None = None
    ) -> tuple[Array, Guarded]:
        """The refined image as far as it passes, and what was done.

        Args:
            old, new: (H, W) or (H, W, C) before and after.
            annotations: of the image; None: cells of `CELL` px stand for labels.

        Raises:
            DataError: as `audit`.
        """
        if annotations is None:
            annotations = cells(old.shape[0], old.shape[1])
        annotations = [each for each in annotations if lies_somewhere(each)]
        found = audit(old, new, annotations, limits=self.limits)
        if found.passes:
            return new, Guarded(1.0)
        failures = sorted({name for label in found.labels for name in label.failures})
        failures += ["appeared"] if found.appeared else []
        if self.policy == "label":
            pixels, labels = self._by_label(old, new, annotations, found)
            if pixels is not None:
                return pixels, Guarded(1.0, labels, failures)
        pixels, strength = self._whole(old, new, annotations)
        return pixels, Guarded(strength, [], failures)

    def _whole(
        self, old: Array, new: Array, annotations: Sequence[Annotation]
    ) -> tuple[Array, float]:
        """The largest strength of the whole image that passes; of the original, 0."""
        for step in range(STEPS - 1, 0, -1):
            pixels = blend(old, new, step / STEPS)
            if audit(old, pixels, annotations, limits=self.limits).passes:
                return pixels, step / STEPS
        return old, 0.0

    def _by_label(
        self, old: Array, new: Array, annotations: Sequence[Annotation], found: ImageAudit
    ) -> tuple[Array | None, list[tuple[Any, float]]]:
        """The image with less under what fails, step by step; None if that does not help."""
        size = old.shape[0], old.shape[1]
        regions: dict[Any, _Region] = {}
        for _ in range(STEPS):
            for number, label in enumerate(found.labels):
                if label.failures:
                    mask = mask_of(annotations[number], *size)
                    regions.setdefault(number, _Region(label.id, mask)).lower(mask)
            for place in found.appeared:
                mask = np.zeros(size, dtype=bool)
                mask[window(place["bbox"], size)] = True
                regions.setdefault("new", _Region("new", mask)).lower(mask)
            share = np.min([region.share() for region in regions.values()], axis=0)
            pixels = blend(old, new, share)
            found = audit(old, pixels, annotations, limits=self.limits)
            if found.passes:
                return pixels, [(region.id, region.strength) for region in regions.values()]
        return None, []


@dataclass
class _Region:
    """Where less of the change is let through."""

    id: Any
    mask: Array
    strength: float = 1.0

    def lower(self, mask: Array) -> None:
        """Let a step less through, also there."""
        self.mask = self.mask | mask
        self.strength = max(0.0, self.strength - 1 / STEPS)

    def share(self) -> Array:
        """(H, W) float32: the strength within and on a rim, from there on softly more, up to 1."""
        away = cv2.distanceTransform((~self.mask).astype(np.uint8), cv2.DIST_L2, 5)
        along = np.clip((away - RIM) / FEATHER, 0, 1)
        soft: Array = along * along * (3 - 2 * along)
        return self.strength + (1 - self.strength) * soft


def cells(height: int, width: int) -> list[Annotation]:
    """An image divided into boxes of about `CELL` px."""
    down, across = max(1, round(height / CELL)), max(1, round(width / CELL))
    tall, wide = height / down, width / across
    return [
        Annotation(image_id=0, bbox=[wide * column, tall * row, wide, tall])
        for row in range(down)
        for column in range(across)
    ]
