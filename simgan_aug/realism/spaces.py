"""The feature spaces that images can be compared in, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simgan_aug import plugins
from simgan_aug.errors import (
    ConfigError,
    PluginError,
    SimganAugError,
    did_you_mean,
    is_out_of_memory,
)
from simgan_aug.pixels import Pixels
from simgan_aug.realism.backbone import HEADS, backbone
from simgan_aug.realism.filters import random_filters

Array = np.ndarray[Any, Any]

Extract = Callable[[Array], Tensor]
"""From one image, (H, W) or (H, W, C), to its features, (F,) float64."""


def extractor(name: str) -> Extract:
    """The function from an image to its features.

    Args:
        name: "random", filters of a fixed seed; or a space that a plugin registers; or a registered
            feature transform, of which mean and deviation over the image are taken; or
            "ARCHITECTURE:FILE", one of torchvision's networks (resnet18, resnet50, vgg16, ...) with
            the safetensors file of its state dict.

    Raises:
        ConfigError: another name.
        PluginError: a plugin's space cannot be made, or gives no features.
        CheckpointError: the file is missing, damaged, or of another architecture.
        DependencyError: torchvision is needed and cannot be imported.
    """
    if name == "random":
        return random_filters(3)
    architecture, colon, file = name.partition(":")
    if colon and architecture in HEADS:
        return backbone(architecture, Path(file))
    spaces, transforms = plugins.parts("space"), plugins.parts("feature transform")
    if name in spaces:
        return _Space(name)
    if name in transforms:
        return _pooled(name, transforms[name].make)
    files = {f"{architecture}:FILE" for architecture in HEADS}
    known = {"random", *spaces, *transforms, *files}
    wanted = f"{architecture}:FILE" if colon or name in HEADS else name
    raise ConfigError(f"no feature space named {name!r}{did_you_mean(wanted, known)}")


class _Space:
    """A plugin's space: its features, checked."""

    def __init__(self, name: str) -> None:
        self._who = f"space {name!r} of {plugins.owner('space', name)}"
        self._count: int | None = None
        self._extract = self._asked(plugins.parts("space")[name].make)

    @torch.no_grad()
    def __call__(self, image: Array) -> Tensor:
        found = self._asked(self._extract, image)
        features = (
            torch.as_tensor(found).detach() if isinstance(found, Tensor | np.ndarray) else None
        )
        if features is None or features.ndim != 1 or not bool(features.isfinite().all()):
            got = type(found).__name__ if features is None else tuple(features.shape)
            raise PluginError(f"{self._who}: expected finite (F,) of an image, got {got}")
        if self._count not in (None, len(features)):
            raise PluginError(f"{self._who}: {len(features)} features, after {self._count}")
        self._count = len(features)
        return features.to("cpu", torch.float64)

    def _asked(self, part: Any, *given: Array) -> Any:
        try:
            return part(*given)
        except Exception as error:
            if isinstance(error, SimganAugError) or is_out_of_memory(error):
                raise
            raise PluginError(f"{self._who}: {type(error).__name__}: {error}") from error


def _pooled(name: str, transform: Callable[[Tensor], Tensor]) -> Extract:
    """Mean and deviation of a feature transform psi over an image."""

    @torch.no_grad()
    def extract(image: Array) -> Tensor:
        found = transform(Pixels(image, 3).colour() * 2 - 1)
        if not isinstance(found, Tensor) or found.ndim != 4 or not bool(found.isfinite().all()):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise PluginError(
                f"feature transform {name!r}: expected finite (1, F, h, w) of an image, got {got}"
            )
        flat = found.double()[0].flatten(1)  # (F, pixels)
        return torch.cat([flat.mean(1), flat.std(1, correction=0)])

    return extract
