"""Patch discriminators: a map of logits, one per local patch (paper, section 2.2).

A logit is that of "this patch is refined": positive for refined, negative for real, unbounded. None
has a normalisation layer, whose statistics would tell refined batches from real ones.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from simgan_aug.errors import ConfigError
from simgan_aug.networks.contract import TONE_LEVELS, check_between


class PaperPatch(nn.Module):
    """The paper's two published discriminators (section 3.1 and 3.2).

    eyes: conv 3x3 s2 96; conv 3x3 s2 64; max pool 3x3 s1; conv 3x3 s1 32; conv 1x1 32; conv 1x1 2.
    hands: conv 7x7 s4 96; conv 5x5 s2 64; max pool 3x3 s2; conv 3x3 s2 32; conv 1x1 32; conv 1x1 2.
    Receptive fields 23 and 71 px. The softmax over the last two maps is the sigmoid of their
    difference, which is the logit returned. ReLU between the layers and "same" padding are ours.

    Args:
        channels: of the image.
        form: "eyes" or "hands".
    """

    recordable = True

    def __init__(self, channels: int = 3, form: str = "eyes") -> None:
        super().__init__()
        check_between("channels", channels, 1, 64)
        if form not in ("eyes", "hands"):
            raise ConfigError(f"form must be 'eyes' or 'hands', got {form!r}")
        eyes = form == "eyes"
        self.receptive_field = 23 if eyes else 71
        self.independent = True
        self.layers = nn.Sequential(
            *_conv(channels, 96, kernel=3 if eyes else 7, stride=2 if eyes else 4),
            *_conv(96, 64, kernel=3 if eyes else 5, stride=2),
            nn.MaxPool2d(3, stride=1 if eyes else 2, padding=1),
            *_conv(64, 32, kernel=3, stride=1 if eyes else 2),
            *_conv(32, 32, kernel=1, stride=1),
            nn.Conv2d(32, 2, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, 1, h, w) logits."""
        maps = self.layers(images)
        return cast(Tensor, maps[:, :1] - maps[:, 1:])


class Patch(nn.Module):
    """The recipe's discriminator: two strided 4x4 convolutions, two 3x3, one 1x1; 26 px.

    A small field sees texture and not layout; large fields invite hallucination.

    Args:
        channels: of the image.
        features: of the first layer; later layers have twice as many.
        spectral: spectral normalisation of every layer (Miyato et al., arXiv:1802.05957).
        takes_reference: see the tone of a real photo beside the image (`contract.with_tone`): of
            real images their own, of refined ones that which they were given, so that a refiner
            cannot ignore it.
    """

    recordable = True
    receptive_field = 26
    independent = True

    def __init__(
        self,
        channels: int = 3,
        features: int = 64,
        spectral: bool = False,
        takes_reference: bool = False,
    ) -> None:
        super().__init__()
        check_between("channels", channels, 1, 64)
        check_between("features", features, 1, 1024)
        wide = 2 * features
        self.takes_reference = takes_reference
        inputs = channels * (1 + TONE_LEVELS) if takes_reference else channels
        convolutions = [
            nn.Conv2d(inputs, features, 4, stride=2, padding=1),
            nn.Conv2d(features, wide, 4, stride=2, padding=1),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.Conv2d(wide, wide, 3, padding=1),
            nn.Conv2d(wide, 1, 1),
        ]
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [spectral_norm(convolution) if spectral else convolution, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])  # the logits themselves are not squashed

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1], 4 px at least each way -> (B, 1, H/4, W/4) logits."""
        return cast(Tensor, self.layers(images))


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2), nn.ReLU()]
