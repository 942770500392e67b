"""The paper's refiner (section 3.1 and figure 6), in both published forms."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.errors import ConfigError
from simgan_aug.networks.contract import check_between


class ResNetRefiner(nn.Module):
    """Convolution, residual blocks, 1x1 convolution; no stride, no pooling.

    Eyes: kernel 3, 64 features, 4 blocks (receptive field 19 px). Hands: kernel 7, 64 features, 10
    blocks (127 px). Zero padding and the linear output are ours: the paper states neither.

    Args:
        channels: of the image.
        kernel: width of all convolutions but the last, odd, in px.
        features: channels inside.
        blocks: residual blocks of two convolutions each.
    """

    recordable = True

    def __init__(
        self, channels: int = 3, kernel: int = 3, features: int = 64, blocks: int = 4
    ) -> None:
        super().__init__()
        for name, value, high in (
            ("channels", channels, 64),
            ("features", features, 1024),
            ("blocks", blocks, 64),
        ):
            check_between(name, value, 1, high)
        check_between("kernel", kernel, 1, 15)
        if kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, got {kernel}")
        self.receptive_field = 1 + (kernel - 1) * (1 + 2 * blocks)
        self.bytes_per_pixel = 4 * 4 * features
        self.first = nn.Conv2d(channels, features, kernel, padding="same")
        self.blocks = nn.Sequential(*(ResidualBlock(features, kernel) for _ in range(blocks)))
        self.last = nn.Conv2d(features, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape, unbounded."""
        features = convolved_rectified(self.first, images)
        return cast(Tensor, self.last(self.blocks(features))).to(images.dtype)


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, addition, ReLU (figure 6)."""

    def __init__(
        self, features: int, kernel: int = 3, padding_mode: Literal["zeros", "reflect"] = "zeros"
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(
            features, features, kernel, padding="same", padding_mode=padding_mode
        )
        self.second = nn.Conv2d(
            features, features, kernel, padding="same", padding_mode=padding_mode
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, F, H, W)."""
        inner = convolved_rectified(self.first, images)
        return convolved_rectified(self.second, inner, images)


def convolved_rectified(layer: nn.Conv2d, images: Tensor, added: Tensor | None = None) -> Tensor:
    """ReLU of what a layer makes of images, and of what is added to that."""
    if not _is_fused(layer, images):
        made = convolved(layer, images)
        return rectified(made if added is None else added + made)
    dtype, margin = torch.bfloat16, layer.kernel_size[0] // 2
    images = images.to(dtype, memory_format=torch.channels_last)
    if layer.padding_mode == "reflect":
        images, margin = reflected(images, margin), 0
    weight = layer.weight.to(dtype, memory_format=torch.channels_last)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    form = (1, 1), (margin, margin), (1, 1), 1
    if added is None:
        return torch.cudnn_convolution_relu(images, weight, bias, *form)
    return torch.cudnn_convolution_add_relu(images, weight, added.to(dtype), 1.0, bias, *form)


def _is_fused(layer: nn.Conv2d, images: Tensor) -> bool:
    """Whether cuDNN does all of it in one go, as it does in bfloat16 for inference: half of the
    time of the paper's network on an H200. What torch compiles joins other things instead."""
    if not images.is_cuda or not is_plain() or torch.version.hip is not None:
        return False
    if torch.get_autocast_dtype("cuda") != torch.bfloat16 or not torch.is_autocast_enabled("cuda"):
        return False
    if torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled():
        return False
    has_units = torch.cuda.get_device_capability(images.device) >= (8, 0)
    return torch.backends.cudnn.enabled and has_units and layer.out_channels % 8 == 0


def rectified(fresh: Tensor) -> Tensor:
    """ReLU of what nothing else needs; in place, but of bfloat16, where torch is slower in place
    than afresh."""
    return F.relu(fresh, inplace=fresh.dtype == torch.float32)


def convolved(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """What a layer makes of images; it reflects them in the precision that they have.

    Autocast would pad in float32: slower than the convolution itself.
    """
    if layer.padding_mode != "reflect":
        return cast(Tensor, layer(images))
    return F.conv2d(reflected(images, layer.kernel_size[0] // 2), layer.weight, layer.bias)


def reflected(images: Tensor, margin: int) -> Tensor:
    """With `margin` px more on each side, mirrored at the border."""
    if images.is_cuda and is_plain() and 0 < margin < min(images.shape[2:]):
        return _framed(images, margin)
    with torch.autocast(images.device.type, enabled=False):
        return F.pad(images, (margin,) * 4, mode="reflect")


def is_plain() -> bool:
    """Whether nothing differentiates or traces what is computed now."""
    return not (is_traced() or torch.is_grad_enabled())


def is_traced() -> bool:
    """Whether a graph is made of what is computed now."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]


def _framed(images: Tensor, margin: int) -> Tensor:
    """`reflected`, for a GPU: torch's own wants the channels first, and takes four times as long as
    the convolution for which it pads."""
    batch, channels, height, width = images.shape
    framed = torch.empty(
        (batch, channels, height + 2 * margin, width + 2 * margin),
        dtype=images.dtype,
        device=images.device,
        memory_format=torch.channels_last,
    )
    framed[:, :, margin:-margin, margin:-margin] = images
    for axis in (2, 3):
        last = framed.shape[axis] - 1
        for place in range(margin):
            for at, of in ((place, 2 * margin - place), (last - place, last - 2 * margin + place)):
                framed.select(axis, at).copy_(framed.select(axis, of))
    return framed
