"""A bilateral grid of affine colour transforms (HDRNet: Gharbi et al., arXiv:1707.02880)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.networks.contract import check_between
from simgan_aug_bilateral.thumbnail import Thumbnail, by_strips

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class BilateralRefiner(nn.Module):
    """Each pixel's colour through an affine map that depends on where it is and how bright.

    A network sees a thumbnail and fills a grid of maps, `cells` x `cells` places by `levels` of
    brightness; a pixel's map is interpolated between the eight around it. So pixels that are alike
    and near each other become alike: an edge is there only where there was one, or as a ramp as
    wide as a cell. The maps are the identity at the start.

    It sees the whole image, whatever its size, and so declares no receptive field.

    Args:
        channels: of the image, 1 or 3.
        cells: of the grid, each way.
        levels: of the grid, in brightness.
        features: channels inside.
        noise_channels: channels of noise, each a number per image; 0: none.
        takes_reference: also see the tone (quantiles) of a real photo.
    """

    def __init__(
        self,
        channels: int = 3,
        cells: int = 4,
        levels: int = 8,
        features: int = 32,
        noise_channels: int = 0,
        takes_reference: bool = False,
    ) -> None:
        super().__init__()
        check_between("cells", cells, 1, 32)
        check_between("levels", levels, 1, 32)
        self.channels = channels
        self.noise_channels = noise_channels
        self.takes_reference = takes_reference
        self.bytes_per_pixel = 8 * channels  # the result in strips, and joined
        self.thumbnail = Thumbnail(channels, cells, features, noise_channels, takes_reference)
        self.head = nn.Conv2d(features, channels * (channels + 1) * levels, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.guide = nn.Parameter(torch.tensor(LUMA).log()) if channels == 3 else None
        """Log of the channels' weights in brightness."""

    def forward(
        self, images: Tensor, noise: Tensor | None = None, reference: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape, unbounded.

        Args:
            images: any height and width.
            noise: (B, noise_channels, H, W), standard normal.
            reference: (B, C, Q), quantiles of a real photo per channel, in [-1, 1].
        """
        height, channels = images.shape[2], self.channels
        grid = self.head(self.thumbnail(images, noise, reference)).float()
        grid = grid.unflatten(1, (channels * (channels + 1), -1))  # (B, M, levels, cells, cells)

        def colour(rows: Tensor, start: int) -> Tensor:
            planes = _planes(grid, start, rows.shape[2], height)
            maps = _slice(planes, self._brightness(rows)).unflatten(2, (channels, channels + 1))
            lifted = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
            pixels = lifted.transpose(1, 2)[:, :, None]  # (B, h, 1, C + 1, W)
            return rows + (maps * pixels).sum(3).transpose(1, 2).to(rows.dtype)

        return by_strips(colour, images)

    def _brightness(self, images: Tensor) -> Tensor:
        """A mean of the channels: (B, C, H, W) -> (B, H, W)."""
        if self.guide is None:
            return images[:, 0]
        weights = self.guide.softmax(0)
        return sum(weights[i] * images[:, i] for i in range(3))


def _planes(grid: Tensor, start: int, rows: int, height: int) -> Tensor:
    """The grid at some rows of pixels: (B, M, levels, cells, cells) -> (B, h, M, levels, cells).

    Down the image first leaves two axes to sample, which is four times as fast as three.
    """
    cells = grid.shape[3]
    places = (torch.arange(start, start + rows, device=grid.device) + 0.5) * cells / height - 0.5
    places = places.clamp(0, cells - 1)
    above = places.long()
    below = (above + 1).clamp(max=cells - 1)
    share = (places - above)[:, None]
    return torch.lerp(grid[:, :, :, above], grid[:, :, :, below], share).permute(0, 3, 1, 2, 4)


def _slice(planes: Tensor, brightness: Tensor) -> Tensor:
    """The maps of pixels, by column and brightness.

    Args:
        planes: (B, h, M, levels, cells), a plane for each row of pixels.
        brightness: (B, h, W) in [-1, 1].

    Returns:
        (B, h, M, W).
    """
    columns = (torch.arange(brightness.shape[2], device=brightness.device) + 0.5) * 2
    columns = (columns / brightness.shape[2] - 1).expand_as(brightness)
    places = torch.stack([columns, brightness.float()], dim=3).flatten(0, 1)[:, None]
    maps = F.grid_sample(planes.flatten(0, 1), places, padding_mode="border", align_corners=False)
    return maps.view(*brightness.shape[:2], -1, brightness.shape[2])
