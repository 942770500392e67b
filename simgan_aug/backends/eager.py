"""torch, as it is or compiled.

Compiled for a GPU, the arithmetic between convolutions is fused by torch: networks are of many
kinds. What lies around every network is fused by hand (`simgan_aug.kernels`).

Shapes are taken as they come, and never padded to fewer ones: a network mirrors its features at the
border of the image, layer by layer, and the features of a mirrored image are others. Padding would
change what lies within half a receptive field of the border.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from simgan_aug.networks.contract import condition, to_channels_last


class TorchBackend:
    """Runs a network in torch.

    Args:
        network: a refiner; moved to the device.
        device: where.
        precision: "fp32" or "bf16".
        compiled: by `torch.compile`, anew for each shape (torch gives up after some eight, and runs
            the rest as they are).
    """

    recordable = True

    def __init__(
        self, network: nn.Module, device: torch.device, precision: str, compiled: bool = False
    ) -> None:
        self.device, self.precision = device, precision
        self.identity = f"{'compiled ' if compiled else ''}torch {torch.__version__}"
        self._network = network.to(device)
        to_channels_last(self._network)
        self._run: Callable[..., Any] = network
        if compiled:
            self._run = torch.compile(network, dynamic=False)

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """See `Backend`."""
        extra = condition(self._network, noise, reference)
        with torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16"):
            return cast(Tensor, self._run(images, **extra) - images)
