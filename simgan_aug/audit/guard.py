"""The guard: what moved or changed a label is taken back, as far as it must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgspec
import numpy as np

from simgan_aug.audit.gates import Gates
from simgan_aug.audit.image import ImageAudit, audit, placed
from simgan_aug.audit.limits import Limits
from simgan_aug.audit.measures import window
from simgan_aug.audit.pair import View
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
    """Measures that had failed, sorted; then "appeared", and reasons of gates."""

    @property
    def is_untouched(self) -> bool:
        """Whether there was nothing to take back."""
        return self.strength == 1 and not self.labels


@dataclass(frozen=True)
class Guard:
    """Takes back what fails an audit, or a gate.

    Args:
        policy: "image": blend a whole image that fails with the original, to the largest of
            `STEPS` strengths that passes, else leave the original; "label": do so only under the
            labels that fail, and a rim around them, else the same with the whole.
        limits: see `Limits`.
        gates: names of quality gates, which plugins register; the image must pass them, too.

    Raises:
        ConfigError: another policy.
        PluginError: there is no gate of a name.
    """

    policy: str = "label"
    limits: Limits = field(default_factory=Limits)
    gates: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Reject an unknown policy."""
        if self.policy not in POLICIES:
            raise ConfigError(f"guard must be one of {', '.join(POLICIES)}, got {self.policy!r}")
        if not isinstance(self.limits, Limits):
            raise ConfigError(f"limits must be Limits(...), got {self.limits!r}")
        Gates(self.gates)

    def __call__(
        self,
        old: Array,
        new: Array,
        annotations: Sequence[Annotation] | None = None,
        saved: Callable[[Array], Array] | None = None,
    ) -> tuple[Array, Guarded]:
        """The refined image as far as it passes, and what was done.

        Args:
            old, new: (H, W) or (H, W, C) before and after.
            annotations: of the image; None: cells of `CELL` px stand for labels.
            saved: what a file that loses something makes of an image; that is what must pass.

        Raises:
            DataError: as `audit`.
            PluginError: as `Gates`.
        """
        look = _Look(old, annotations, self, saved)
        found = look(new, fully=True)
        if found.passes:
            return new, Guarded(1.0)
        failures = sorted({name for label in found.labels for name in label.failures})
        failures += ["appeared"] if found.appeared else []
        failures += found.gates
        if self.policy == "label":
            pixels, labels = _by_label(look, new, found)
            if pixels is not None:
                return pixels, Guarded(1.0, labels, failures)
        pixels, strength = _whole(look, new)
        return pixels, Guarded(strength, [], failures)


class _Look:
    """Audits of one image under several changes; what it was is looked at once."""

    def __init__(
        self,
        old: Array,
        annotations: Sequence[Annotation] | None,
        guard: Guard,
        saved: Callable[[Array], Array] | None,
    ) -> None:
        self.old, self._given = old, annotations or ()
        held = cells(old.shape[0], old.shape[1]) if annotations is None else annotations
        self.annotations = placed(held)
        self._view, self._limits, self._saved = View(old), guard.limits, saved
        self._gates = Gates(guard.gates)

    def __call__(self, pixels: Array, fully: bool = False) -> ImageAudit:
        """Of what is saved of these pixels; gates are asked if all else passes, or `fully`."""
        kept = pixels if self._saved is None else self._saved(pixels)
        found = audit(self._view, kept, self.annotations, limits=self._limits, reach=False)
        if not fully and not found.passes:
            return found
        return msgspec.structs.replace(found, gates=self._gates(self.old, kept, self._given))


def _whole(look: _Look, new: Array) -> tuple[Array, float]:
    """The image at the largest strength that passes; of the original, 0."""
    for step in range(STEPS - 1, 0, -1):
        pixels = blend(look.old, new, step / STEPS)
        if look(pixels).passes:
            return pixels, step / STEPS
    return look.old, 0.0


def _by_label(
    look: _Look, new: Array, found: ImageAudit
) -> tuple[Array | None, list[tuple[Any, float]]]:
    """The image with less under what fails, step by step; None if that does not help."""
    size = new.shape[0], new.shape[1]
    regions: dict[Any, _Region] = {}
    for _ in range(STEPS):
        if not found.moved and not found.appeared:  # what a gate refuses is no label's fault
            break
        for number in found.moved:
            if number not in regions:
                mask = mask_of(look.annotations[number], *size)
                regions[number] = _Region(found.labels[number].id, mask)
            regions[number].lower()
        if found.appeared:
            fresh = np.zeros(size, dtype=bool)
            for place in found.appeared:
                fresh[window(place["bbox"], size)] = True
            regions.setdefault("new", _Region("new", fresh)).lower(fresh)
        pixels = blend(look.old, new, _shares(list(regions.values()), size))
        found = look(pixels)
        if found.passes:
            return pixels, [(region.id, region.strength) for region in regions.values()]
    return None, []


class _Region:
    """Where less of the change is let through; kept as the window that it lies in."""

    def __init__(self, id: Any, mask: Array) -> None:
        self.id, self.strength = id, 1.0
        self._grow(mask)

    def lower(self, more: Array | None = None) -> None:
        """Let a step less through, and do so there, too."""
        if more is not None:
            mask = np.zeros(more.shape, dtype=bool)
            mask[self.at] = self._mask
            self._grow(mask | more)
        self.strength = max(0.0, self.strength - 1 / STEPS)

    def _grow(self, mask: Array) -> None:
        box = cv2.boundingRect(mask.astype(np.uint8))
        self.at = window(box, (mask.shape[0], mask.shape[1]), RIM + round(FEATHER))
        self._mask = mask[self.at].copy()

    def share(self) -> Array:
        """Of the window: the strength within and on a rim, from there on softly more, up to 1."""
        away = cv2.distanceTransform((~self._mask).astype(np.uint8), cv2.DIST_L2, 5)
        along = np.clip((away - RIM) / FEATHER, 0, 1)
        soft: Array = along * along * (3 - 2 * along)
        return self.strength + (1 - self.strength) * soft


def _shares(regions: list[_Region], size: tuple[int, int]) -> Array:
    """(H, W) float32 of the change that is let through."""
    share: Array = np.ones(size, dtype=np.float32)
    for region in regions:
        np.minimum(share[region.at], region.share(), out=share[region.at])
    return share


def cells(height: int, width: int) -> list[Annotation]:
    """An image divided into boxes of about `CELL` px."""
    down, across = max(1, round(height / CELL)), max(1, round(width / CELL))
    tall, wide = height / down, width / across
    return [
        Annotation(image_id=0, bbox=[wide * column, tall * row, wide, tall])
        for row in range(down)
        for column in range(across)
    ]
