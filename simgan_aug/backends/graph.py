"""A network as other programs run it: arithmetic of one image, and what lies around it.

A network that declares `fold`, `core` and `unfold` (see `simgan_aug.networks.contract`) is exported
as its core alone, which is convolutions and little else: that is what other engines are fast at and
what can be held in 8 bits. The picture itself never passes through it: what the network adds is
added to the exact pixels outside.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from simgan_aug.networks.contract import condition, takes_reference


class Graph(nn.Module):
    """A network with the channels last, as it is exported.

    It is called with `inputs_of(...)` and answers with what `added_by` takes.

    Args:
        network: a refiner.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.is_staged = hasattr(network, "core")
        """Whether height and width may be any; else a graph is of one size."""

    def forward(self, images: Tensor, *others: Tensor) -> Tensor:
        """(1, H, W, C) and what else the network takes -> (1, H', W', C')."""
        planes = images.permute(0, 3, 1, 2)
        if self.is_staged:
            made = cast(nn.Module, self.network.core)(planes, *others)
        else:
            has_noise = bool(getattr(self.network, "noise_channels", 0))
            noise = others[0].permute(0, 3, 1, 2) if has_noise else None
            reference = others[-1] if takes_reference(self.network) else None
            made = self.network(planes, **condition(self.network, noise, reference))
        return cast(Tensor, made).permute(0, 2, 3, 1)

    def inputs_of(
        self, images: Tensor, noise: Tensor | None, reference: Tensor | None
    ) -> list[Tensor]:
        """What `forward` takes for (1, C, H, W) in [-1, 1]; contiguous."""
        extra = condition(self.network, noise, reference)
        if self.is_staged:
            images = cast(nn.Module, self.network.fold)(images, extra.pop("noise", None))
        planes = [images, *([extra["noise"]] if "noise" in extra else [])]
        others = [extra["reference"]] if "reference" in extra else []
        return [plane.movedim(1, -1).contiguous() for plane in planes] + others

    def added_by(self, made: Tensor, images: Tensor) -> Tensor:
        """What the network adds to images, from what `forward` gives; copied."""
        planes = made.movedim(-1, 1)
        if self.is_staged:
            return cast(Tensor, cast(nn.Module, self.network.unfold)(planes, images))
        return planes - images


def names_of(network: nn.Module) -> list[str]:
    """What the inputs of a graph are called, in order."""
    graph = Graph(network)
    noise = bool(getattr(network, "noise_channels", 0)) and not graph.is_staged
    return ["images", *["noise"] * noise, *["reference"] * takes_reference(network)]
