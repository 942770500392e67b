"""CycleGAN's generator (Zhu et al., arXiv:1703.10593, section 7.1), as an architecture to time."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class ResNet9(nn.Module):
    """c7s1-64, d128, d256, nine R256, u128, u64, c7s1-3 with instance normalisation, untrained.

    It normalises over the whole image, so that it cannot be tiled.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = [*_step(nn.Conv2d(3, 64, 7, padding=3, padding_mode="reflect"))]
        for inside in (64, 128):
            layers += _step(nn.Conv2d(inside, 2 * inside, 3, stride=2, padding=1))
        layers += [_Residual() for _ in range(9)]
        for inside in (256, 128):
            layers += _step(
                nn.ConvTranspose2d(inside, inside // 2, 3, stride=2, padding=1, output_padding=1)
            )
        layers += [nn.Conv2d(64, 3, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> the same; H and W are multiples of 4."""
        return cast(Tensor, self.layers(images))


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second = (nn.Conv2d(256, 256, 3, padding=1, padding_mode="reflect") for _ in "12")
        self.layers = nn.Sequential(*_step(first), second, nn.InstanceNorm2d(256))

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(images + self.layers(images))


def _step(convolution: nn.Module) -> list[nn.Module]:
    channels = cast(int, convolution.out_channels)
    return [convolution, nn.InstanceNorm2d(channels), nn.ReLU()]
