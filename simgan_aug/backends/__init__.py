"""What runs a refiner's network on one tile; all else of refining is the same for all of them.

    torch           as it is; for a GPU it or the next
    torch-compile   compiled by torch when it first meets a shape, which takes a while; for images
                    of few sizes
    openvino        on a CPU; `pip install 'simgan-aug[openvino]'`
    a folder        what `simgan-aug export --to openvino` has made of this refiner, maybe in int8

They differ from each other by rounding errors, at most one grey level (bf16: two where a refiner
turns colours into others; int8: three). Which one is used is never chosen by what happens to be
installed: the same call gives the same pixels. (On a GPU, torch's builds without Triton, as for
Windows, may be one grey level from those with it, whatever the backend.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from simgan_aug.devices import resolve_device, resolve_precision
from simgan_aug.errors import ConfigError, did_you_mean

NAMES = ("torch", "torch-compile", "openvino")


def is_torch(wanted: str | os.PathLike[str]) -> bool:
    """Whether this backend is torch, which alone may run on a GPU."""
    return wanted in ("torch", "torch-compile")


class Backend(Protocol):
    """Runs one network."""

    device: torch.device
    precision: str
    """ "fp32", "bf16" or "int8"."""
    identity: str
    """All that its rounding depends on, beside weights, device and precision."""

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """What the network adds to images, (N, C, H, W) float32.

        Args:
            images: (N, C, H, W) float32 in [-1, 1], in channels_last memory, on the device.
            noise, reference: what `simgan_aug.networks.contract` says, for a network that takes it.
        """


def check_backend(wanted: str | os.PathLike[str]) -> None:
    """Reject what is neither a name nor a folder.

    Raises:
        ConfigError: lists the names.
    """
    if wanted not in NAMES and not (str(wanted) and Path(wanted).is_dir()):
        raise ConfigError(
            f"no backend {str(wanted)!r}{did_you_mean(str(wanted), NAMES)}; or the folder that "
            "simgan-aug export --to openvino has written"
        )


def backend_of(
    wanted: str | os.PathLike[str],
    network: nn.Module,
    device: str | torch.device = "auto",
    precision: str = "auto",
    refiner: str | os.PathLike[str] | None = None,
) -> Backend:
    """The backend of a name or a folder.

    Args:
        wanted: a name, or a folder.
        network: a refiner; it is moved to the device.
        device: "auto" is what `resolve_device` says, and the CPU for all but torch.
        precision: "auto", "fp32" or "bf16"; of a folder it is the folder's.
        refiner: file of the network; a folder must have been made of it.

    Raises:
        ConfigError: no such backend, or it cannot do this.
        CheckpointError: a folder that is damaged, or of another refiner.
        DependencyError: OpenVINO is not installed.
    """
    check_backend(wanted)
    if is_torch(wanted):
        from simgan_aug.backends.eager import TorchBackend

        place = resolve_device(device)
        how = resolve_precision(precision, place)
        return TorchBackend(network, place, how, compiled=wanted == "torch-compile")
    from simgan_aug.backends.openvino import OpenVINOBackend

    if device != "auto" and torch.device(device).type != "cpu":
        raise ConfigError(f"{wanted} refines on the CPU, not on {device}: take the backend 'torch'")
    if wanted == "openvino":
        return OpenVINOBackend(network, resolve_precision(precision, torch.device("cpu")))
    return OpenVINOBackend.of_folder(Path(wanted), network, precision, refiner)
