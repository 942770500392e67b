"""Features of a network whose weights the user points at: torchvision's architectures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug.errors import CheckpointError, DependencyError
from simgan_aug.pixels import Pixels

Array = np.ndarray[Any, Any]

HEADS = {
    "resnet18": "fc",
    "resnet34": "fc",
    "resnet50": "fc",
    "resnet101": "fc",
    "vgg16": "classifier.6",
    "vgg19": "classifier.6",
    "mobilenet_v3_small": "classifier.3",
    "mobilenet_v3_large": "classifier.3",
    "efficientnet_b0": "classifier.1",
    "convnext_tiny": "classifier.2",
}
"""Architectures, and the last layer of each, which is left out: features are what it gets."""

SIZE = 224
"""Px that an image is scaled to, whatever its shape, as such networks were trained."""

_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision has it


def backbone(architecture: str, file: Path) -> Callable[[Array], Tensor]:
    """The function from one image to what the last layer of a network gets, (F,) float64.

    Args:
        architecture: one of `HEADS`.
        file: safetensors file of the state dict of torchvision's network; the last layer may be
            missing or of any size.

    Raises:
        CheckpointError: the file is missing, damaged, or of another architecture.
        DependencyError: torchvision cannot be imported.
    """
    network = _network(architecture)
    network.load_state_dict(_weights(network, architecture, file))
    network.eval()
    mean, spread = (torch.tensor(part)[:, None, None] for part in (_MEAN, _SPREAD))

    @torch.no_grad()
    def extract(image: Array) -> Tensor:
        colour = Pixels(image, 3).colour()
        scaled = F.interpolate(colour, (SIZE, SIZE), mode="bilinear", antialias=True)
        found: Tensor = network((scaled - mean) / spread)
        return found[0].double()

    return extract


def _network(architecture: str) -> nn.Module:
    """A network without its last layer, its weights drawn."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise DependencyError(
            f"features of {architecture} need torchvision, which cannot be imported "
            f"({type(error).__name__}: {error}); install the one made for torch "
            f"{torch.__version__}: pip install 'simgan-aug[torchvision]', or take other features"
        ) from error
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, and then overwritten
        network: nn.Module = getattr(models, architecture)(weights=None)
    network.set_submodule(HEADS[architecture], nn.Identity())
    return network


def _weights(network: nn.Module, architecture: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a file, held against those that the network has."""
    if not file.is_file():
        raise CheckpointError(
            f"{file}: no such file; expected the state dict of torchvision's {architecture} in a "
            ".safetensors file (safetensors.torch.save_file(network.state_dict(), ...))"
        )
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: not a readable .safetensors file: {error}") from None
    head = HEADS[architecture] + "."
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
    expected = network.state_dict()
    for name in sorted({*expected, *tensors}):
        want, have = _form(expected.get(name)), _form(tensors.get(name))
        if want != have:
            raise CheckpointError(
                f"{file}: not the weights of {architecture}: {name}: expected {want}, got {have}"
            )
        if not bool(torch.isfinite(tensors[name].double()).all()):
            raise CheckpointError(f"{file}: {name} has values that are not finite")
    return tensors


def _form(tensor: Tensor | None) -> str:
    """Kind and shape; how many bits a float has does not matter."""
    if tensor is None:
        return "nothing"
    kind = "floats" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return f"{kind} {tuple(tensor.shape)}"
