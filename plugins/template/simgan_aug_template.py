"""A refiner for simgan-aug: change what it computes, and keep what the tests hold it to."""

import torch
from torch import Tensor, nn

from simgan_aug import hookimpl


class TemplateRefiner(nn.Module):
    """Adds to each pixel what three convolutions make of its neighbours and of noise.

    Args:
        channels: of the image: 1 (grey) or 3 (RGB).
        features: channels inside.
    """

    noise_channels = 1
    """It is called with so many channels of standard normal noise, drawn from the image's seed."""
    receptive_field = 7
    """Px that one output pixel depends on: three 3x3 convolutions. Large images are cut by it."""

    def __init__(self, channels: int = 3, features: int = 32) -> None:
        super().__init__()
        self.bytes_per_pixel = 4 * 3 * features  # of memory, at inference
        self.layers = nn.Sequential(
            nn.Conv2d(
                channels + self.noise_channels,
                features,
                3,
                padding="same",
                padding_mode="replicate",
            ),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding="same", padding_mode="replicate"),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(features, channels, 3, padding="same", padding_mode="replicate")
        nn.init.zeros_(self.head.weight)  # so that an untrained refiner changes nothing
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and (B, 1, H, W) noise -> (B, C, H, W)."""
        change = self.head(self.layers(torch.cat([images, noise], dim=1)))
        return images + change.to(images.dtype)


@hookimpl
def simgan_register_refiners():
    """What this distribution offers, by the name that stands in a config."""
    return {"template": TemplateRefiner}
