"""torch, as it is or compiled."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from simgan_aug.networks.contract import condition


class TorchBackend:
    """Runs a network in torch.

    Args:
        network: a refiner; moved to the device.
        device: where.
        precision: "fp32" or "bf16".
        compiled: by `torch.compile`, anew for each shape.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, precision: str, compiled: bool = False
    ) -> None:
        self.device, self.precision = device, precision
        self.identity = f"{'compiled ' if compiled else ''}torch {torch.__version__}"
        self._network = network.to(device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._run = torch.compile(network, dynamic=False) if compiled else network

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """See `Backend`."""
        extra = condition(self._network, noise, reference)
        with torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16"):
            return cast(Tensor, self._run(images, **extra) - images)
