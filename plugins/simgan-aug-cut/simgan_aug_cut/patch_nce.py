"""PatchNCE: what the refiner's own layers see at a place must tell it from other places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.errors import ConfigError, did_you_mean
from simgan_aug.networks.contract import check_between, condition, takes_reference
from simgan_aug.tone import histogram, quantiles
from simgan_aug_cut.networks import start

SIDE = 64
"""Px of the image that a refiner is tried on."""


class PatchNCE(nn.Module):
    """The contrastive term of CUT (Park et al., arXiv:2007.15651, eq. 3 and 4).

    At places drawn in both images, features of the refiner's layers go through heads of two linear
    layers each, and are normalised. A refined place shall be more like the synthetic image's same
    place than like its other places: cross-entropy over all of them, mean over places and layers.
    The heads train with the refiner. Places come from torch's generator on the CPU.

    Args:
        refiner: whose layers these are; it is looked at, and not kept.
        channels: of the images.
        layers: of the refiner, by the names of `named_modules()`; none: up to five, evenly spaced,
            of those that run first (two thirds of all that give feature maps).
        places: drawn in each layer; all of a smaller one.
        width: of the heads.
        temperature: tau.
        flip_equivariance: mirror the synthetic images for half of all batches, and their features
            back (FastCUT).

    Raises:
        ConfigError: a layer that the refiner does not have, or that gives no feature map.
    """

    def __init__(
        self,
        refiner: nn.Module,
        channels: int = 3,
        layers: tuple[str, ...] = (),
        places: int = 256,
        width: int = 256,
        temperature: float = 0.07,
        flip_equivariance: bool = False,
    ) -> None:
        super().__init__()
        check_between("places", places, 2, 65_536)
        check_between("width", width, 1, 4096)
        check_between("temperature", temperature, 0.001, 100)
        self.places, self.temperature = places, temperature
        self.flip_equivariance = flip_equivariance
        maps = _maps_of(refiner, channels)
        self.layers = tuple(layers) or _early(refiner, list(maps))
        for name in self.layers:
            if name not in maps:
                raise ConfigError(
                    f"the refiner has no layer {name!r} that gives a feature map"
                    f"{did_you_mean(name, maps)}"
                )
        self.heads = nn.ModuleList(_head(maps[name], width) for name in self.layers)
        start(self.heads)

    def forward(
        self, refiner: nn.Module, refined: Tensor, synthetic: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """The term, a scalar with gradients to `refined`, the refiner and the heads.

        Args:
            refiner: as it trains.
            refined, synthetic: (B, C, H, W) in [-1, 1].
            weights: (B, 1, H, W), how much a place counts; None: 1 everywhere.
        """
        mirrored = self.flip_equivariance and bool(torch.rand(()) < 0.5)
        extra = _conditions(refiner, synthetic)
        with torch.no_grad():
            keys = self._features(refiner, synthetic.flip(3) if mirrored else synthetic, extra)
        queries = self._features(refiner, refined, extra)
        total = refined.new_zeros((), dtype=torch.float32)
        for head, query, key in zip(self.heads, queries, keys, strict=True):
            places = torch.randperm(query.shape[2] * query.shape[3])[: self.places].to(query.device)
            known = _at(head, key.flip(3) if mirrored else key, places)
            losses = contrast(_at(head, query, places), known, self.temperature)
            total = total + (losses * _weights_at(weights, query, places)).mean()
        return total / len(self.heads)

    def _features(
        self, refiner: nn.Module, images: Tensor, extra: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """What the layers give for these images, (B, F, h, w) each; later layers do not run."""
        with _watched(refiner, self.layers) as seen:
            refiner(images, **extra)
        return [seen[name] for name in self.layers]


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each query's own key among all keys of its image.

    Args:
        queries, keys: (B, N, F), of length 1; only the queries get a gradient.

    Returns:
        (B, N); log N where nothing tells the keys apart.
    """
    with torch.autocast(queries.device.type, enabled=False):  # bfloat16 would leave steps of .05
        logits = queries @ keys.detach().transpose(1, 2) / temperature  # (B, N, N)
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    return F.cross_entropy(logits.transpose(1, 2), own, reduction="none")


def _at(head: nn.Module, maps: Tensor, places: Tensor) -> Tensor:
    """(B, F, h, w), (N,) -> (B, N, width) of length 1, float32 in autocast too."""
    features = head(maps.movedim(1, -1).flatten(1, 2)[:, places])
    return F.normalize(features.float(), dim=2)


def _weights_at(weights: Tensor | None, maps: Tensor, places: Tensor) -> Tensor | float:
    if weights is None:
        return 1.0
    pooled = F.adaptive_avg_pool2d(weights, (maps.shape[2], maps.shape[3]))
    return pooled.flatten(1)[:, places]  # (B, N)


def _head(inputs: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width))


def _conditions(refiner: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What a refiner is called with beside the image: no noise, and the images' own tone."""
    batch, _, height, width = images.shape
    noise = images.new_zeros(batch, getattr(refiner, "noise_channels", 0), height, width)
    reference = None
    if takes_reference(refiner):
        levels = images.detach().float() / 2 + 0.5
        reference = torch.stack([quantiles(histogram(image)) for image in levels]) * 2 - 1
    return condition(refiner, noise, reference)


def _maps_of(refiner: nn.Module, channels: int) -> dict[str, int]:
    """Channels of all layers that give feature maps, by name, in the order in which they end."""
    modes = {layer: layer.training for layer in refiner.modules()}
    names = [name for name, _ in refiner.named_modules() if name]
    image = torch.zeros(1, channels, SIDE, SIDE, device=next(refiner.parameters()).device)
    refiner.eval()  # so that a look changes no statistics
    try:
        with torch.no_grad(), _watched(refiner, names, to_the_end=True) as seen:
            refiner(image, **_conditions(refiner, image))
    finally:
        for layer, training in modes.items():
            layer.training = training
    return {name: maps.shape[1] for name, maps in seen.items() if maps.ndim == 4}


def _early(refiner: nn.Module, names: list[str]) -> tuple[str, ...]:
    """Up to five layers, evenly spaced; what a row of layers gives is what its last one gives."""
    single = [each for each in names if not isinstance(refiner.get_submodule(each), nn.Sequential)]
    first = single[: math.ceil(len(single) * 2 / 3)]
    return tuple(first[:: math.ceil(len(first) / 5)])


class _Enough(Exception):
    """All layers have been seen."""


@contextmanager
def _watched(
    refiner: nn.Module, names: list[str] | tuple[str, ...], to_the_end: bool = False
) -> Iterator[dict[str, Any]]:
    """Collects what layers give; a call within ends with the last of them."""
    seen: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, output)
            if len(seen) == len(names) and not to_the_end:
                raise _Enough

        return keep

    handles = [refiner.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield seen
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
