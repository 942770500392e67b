"""What a refiner may declare about itself, read with the defaults that a plain network has.

A refiner is an `nn.Module` from (B, C, H, W) in [-1, 1] to the same shape, for every H and W. By
plain attributes it may declare

    receptive_field   px: the widest span of input that one output pixel depends on; without it the
                      whole image counts, and the refiner is never tiled
    multiple          px: grid that its arithmetic is bound to (the factor of a pixel-unshuffle)
    bytes_per_pixel   peak bytes of float32 activations per input pixel at inference
    noise_channels    n > 0: it is called with `noise`, (B, n, H, W) standard normal
    takes_reference   True: it is called with `reference`, (B, C, Q): quantiles of a real photo's
                      channels in [-1, 1]
    recordable        True: called with other values, it does the same work; nothing that it does
                      depends on values, on counts of calls, or on draws of the host, and it makes
                      no tensor of the host's. A GPU then records what it does and replays it:
                      refining, and a training step, if all parts of it say so, which takes a
                      fourth of the time. A subclass has to say so anew
    change_limit      grey levels (of 255) that it changes a pixel by at most, whatever its weights;
                      0: no bound

A refiner may also come in three stages, `unfold(core(fold(images, noise), reference), images)`
being what it adds to images. `core` is what other engines run (`simgan_aug.backends`): it takes any
height and width, and nothing in it may depend on them but through the shapes of its convolutions.

`simgan_aug.testing.check_refiner` holds a network to all of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.errors import ConfigError


def condition(
    refiner: nn.Module, noise: Tensor | None, reference: Tensor | None
) -> dict[str, Tensor]:
    """The keyword arguments that this refiner is called with beside the image."""
    wanted = {}
    if getattr(refiner, "noise_channels", 0):
        assert noise is not None
        wanted["noise"] = noise
    if takes_reference(refiner):
        if reference is None:
            raise ConfigError(
                "this refiner takes a reference photo's tone: set tone.photos to 1 or more"
            )
        wanted["reference"] = reference
    return wanted


TONE_LEVELS = 8
"""Quantiles per channel that a network sees of a photo's tone."""


def tone_levels(reference: Tensor) -> Tensor:
    """The tone that a network sees: (B, C, Q) quantiles -> (B, C * TONE_LEVELS)."""
    return F.adaptive_avg_pool1d(reference, TONE_LEVELS).flatten(1)


def with_tone(images: Tensor, reference: Tensor) -> Tensor:
    """Images with a tone beside them as flat channels: (B, C + C * TONE_LEVELS, H, W)."""
    flat = tone_levels(reference)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, flat], dim=1)


def takes_reference(network: nn.Module) -> bool:
    """Whether a refiner or a discriminator asks for the tone of a real photo."""
    return bool(getattr(network, "takes_reference", False))


def halo(refiner: nn.Module) -> int | None:
    """Px around a tile whose content the tile's own pixels depend on; None: the whole image."""
    field: int | None = getattr(refiner, "receptive_field", None)
    if field is None:
        return None
    grid = int(getattr(refiner, "multiple", 1))
    return math.ceil(field / 2 / grid) * grid


def memory_per_pixel(refiner: nn.Module) -> int:
    """Peak bytes of activations per input pixel, as declared or else a wide guess."""
    return int(getattr(refiner, "bytes_per_pixel", 2048))


def to_channels_last(network: nn.Module) -> None:
    """Lay weights out as training and inference lay out images; those of other layers stay.

    As `network.to(memory_format=torch.channels_last)`, which refuses the weights of a `Conv3d`.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Reject a constructor's value outside [low, high].

    The upper limits keep a hostile checkpoint from asking for a network that fills the machine.
    """
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie between {low} and {high}, got {value}")
