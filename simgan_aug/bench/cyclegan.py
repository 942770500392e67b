"""CycleGAN's generator, as an architecture whose time ours is held against."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class ResNet9(nn.Module):
    """`resnet_9blocks` of the authors' code: two steps down, nine blocks, two steps up.

    Zhu et al., "Unpaired image-to-image translation using cycle-consistent adversarial networks",
    ICCV 2017, section 4 and appendix 7.2. Height and width are multiples of 4.
    """

    def __init__(self, channels: int = 3, features: int = 64, blocks: int = 9) -> None:
        super().__init__()
        twice, wide = 2 * features, 4 * features
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3),
            *_normed(nn.Conv2d(channels, features, 7), features),
            *_normed(nn.Conv2d(features, twice, 3, 2, 1), twice),
            *_normed(nn.Conv2d(twice, wide, 3, 2, 1), wide),
            *(_Block(wide) for _ in range(blocks)),
            *_normed(nn.ConvTranspose2d(wide, twice, 3, 2, 1, output_padding=1), twice),
            *_normed(nn.ConvTranspose2d(twice, features, 3, 2, 1, output_padding=1), features),
            nn.ReflectionPad2d(3),
            nn.Conv2d(features, channels, 7),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same."""
        return cast(Tensor, self.layers(images)).to(images.dtype)


class _Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_normed(nn.Conv2d(features, features, 3), features),
            nn.ReflectionPad2d(1),
            nn.Conv2d(features, features, 3),
            nn.InstanceNorm2d(features),
        )

    def forward(self, images: Tensor) -> Tensor:
        return images + cast(Tensor, self.layers(images))


def _normed(layer: nn.Module, features: int) -> tuple[nn.Module, ...]:
    return layer, nn.InstanceNorm2d(features), nn.ReLU(inplace=True)
