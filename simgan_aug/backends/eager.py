"""torch, as it is or compiled.

Compiled for a GPU, the arithmetic between convolutions is fused by Triton, and all of it is
replayed as one CUDA graph for each shape. Kernels written by hand would have to be measured on each
kind of GPU and kept in step with torch; what torch makes is.

Shapes are taken as they come, and never padded to fewer ones: a network mirrors its features at the
border of the image, layer by layer, and the features of a mirrored image are others. Padding would
change what lies within half a receptive field of the border.
"""

from __future__ import annotations

import threading
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
            the rest as they are). On a GPU it replays graphs too, but only in the main thread: a
            graph belongs to the thread that has recorded it, which in a loader ends with the epoch.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, precision: str, compiled: bool = False
    ) -> None:
        self.device, self.precision = device, precision
        self.identity = f"{'compiled ' if compiled else ''}torch {torch.__version__}"
        self._network = network.to(device)
        to_channels_last(self._network)
        self._run: Callable[..., Any] = network
        self._replay: Callable[..., Any] = network
        if compiled:
            self._run = self._replay = torch.compile(network, dynamic=False)
            if device.type == "cuda":
                self._replay = torch.compile(network, dynamic=False, mode="reduce-overhead")

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """See `Backend`."""
        extra = condition(self._network, noise, reference)
        in_main = threading.current_thread() is threading.main_thread()
        run = self._replay if in_main else self._run
        with torch.autocast(self.device.type, torch.bfloat16, self.precision == "bf16"):
            # The next replay overwrites what a graph has made; a difference is a tensor of its own.
            return cast(Tensor, run(images, **extra) - images)
