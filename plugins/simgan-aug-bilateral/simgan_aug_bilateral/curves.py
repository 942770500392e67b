"""One map of colours for the whole image, mixed for each (Zeng et al., arXiv:2009.14468)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.networks.contract import check_between
from simgan_aug_bilateral.thumbnail import Thumbnail, by_strips


class CurvesRefiner(nn.Module):
    """Each pixel's colour through a table: of a grey image a tone curve, of a colour one a 3D LUT.

    The table is a mix of learned ones, by weights that a network gives which sees a thumbnail.
    Equal colours stay equal throughout the image: an edge can vanish or change its sign, and can
    appear nowhere. The tables change nothing at the start.

    It sees the whole image, whatever its size, and so declares no receptive field.

    Args:
        channels: of the image, 1 or 3.
        levels: of a table, for each channel.
        tables: that are mixed.
        features: channels inside.
        noise_channels: channels of noise, each a number per image; 0: none.
        takes_reference: also see the tone (quantiles) of a real photo.
    """

    def __init__(
        self,
        channels: int = 3,
        levels: int = 9,
        tables: int = 8,
        features: int = 32,
        noise_channels: int = 0,
        takes_reference: bool = False,
    ) -> None:
        super().__init__()
        check_between("levels", levels, 2, 64)
        check_between("tables", tables, 1, 64)
        self.noise_channels = noise_channels
        self.takes_reference = takes_reference
        self.bytes_per_pixel = 8 * channels  # the result in strips, and joined
        self.thumbnail = Thumbnail(channels, 4, features, noise_channels, takes_reference)
        self.head = nn.Linear(features, tables)
        sides = [levels if axis < channels else 1 for axis in (2, 1, 0)]  # blue, green, red
        self._shape = (channels, *sides)
        self.tables = nn.Parameter(torch.zeros(tables, channels * levels**channels))

    def forward(
        self, images: Tensor, noise: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape, unbounded.

        Args:
            images: any height and width.
            noise: (B, noise_channels, H, W), standard normal.
            reference: (B, C, Q), quantiles of a real photo per channel, in [-1, 1].
        """
        weights = self.head(self.thumbnail(images, noise, reference).mean((2, 3))).float()
        table = (weights[:, :, None] * self.tables).sum(1)  # no matmul, which may be one of bf16
        table = table.view(-1, *self._shape)

        def colour(rows: Tensor, start: int) -> Tensor:
            places = F.pad(rows, (0, 0, 0, 0, 0, 3 - rows.shape[1]))  # grey: on one axis of three
            places = places.permute(0, 2, 3, 1)[:, None].float()  # (B, 1, h, W, 3)
            change = F.grid_sample(table, places, padding_mode="border", align_corners=True)
            return rows + change[:, :, 0].to(rows.dtype)

        return by_strips(colour, images)
