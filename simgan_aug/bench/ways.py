"""The ways to run a refiner that benchmarks compare: backend and precision."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simgan_aug import checkpoint, export
from simgan_aug.backends import Backend, backend_of
from simgan_aug.backends.openvino import OpenVINOBackend
from simgan_aug.bench.material import Array
from simgan_aug.bench.rounds import Skip
from simgan_aug.checkpoint import Checkpoint
from simgan_aug.devices import has_amx
from simgan_aug.inference import ImageRefiner


@dataclass(frozen=True)
class Way:
    """A backend at a precision, on the CPU."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"

    def refiner(
        self, file: Path, scratch: Path, images: list[Array], tone: bool = True
    ) -> ImageRefiner:
        """A refiner file, opened this way; quantized by the images, if in int8.

        Raises:
            Skip, DependencyError: not here.
        """
        loaded = checkpoint.load(file)
        return ImageRefiner(
            loaded.network,
            loaded.channels,
            loaded.bank,
            loaded.config.tone.match if tone else "never",
            loaded.config.tone.share,
            backend=self.backend_of(loaded, scratch, images),
        )

    def backend_of(self, loaded: Checkpoint, scratch: Path, images: list[Array]) -> Backend:
        """What runs a network this way."""
        if self.precision == "bf16" and not has_amx():
            raise Skip("this CPU has no AMX")
        if self.precision != "int8":
            return backend_of(self.backend, loaded.network, "cpu", self.precision)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        graph = export.openvino_graph(loaded, folder, "int8", images)
        return OpenVINOBackend(loaded.network, "int8", graph)


WAYS = (
    Way("torch", "fp32"),
    Way("torch", "bf16"),
    Way("openvino", "fp32"),
    Way("openvino", "bf16"),
    Way("openvino", "int8"),
)
"""All of them; the first is what others are compared with."""


def plain(network: nn.Module) -> Checkpoint:
    """A network that is no refiner of a file, as one without a tone step."""
    from simgan_aug.config import Config, Tone

    return Checkpoint(network.eval(), 3, None, Config(tone=Tone(photos=0)), {})


def inputs_of(network: nn.Module, size: tuple[int, int]) -> tuple[torch.Tensor, Any, Any]:
    """What a backend is called with for an image of this width and height."""
    from simgan_aug.networks.contract import takes_reference
    from simgan_aug.tone import QUANTILES

    width, height = size
    images = torch.rand(1, 3, height, width) * 2 - 1
    count = int(getattr(network, "noise_channels", 0))
    noise = torch.randn(1, count, height, width) if count else None
    reference = torch.rand(1, 3, QUANTILES) if takes_reference(network) else None
    return images.contiguous(memory_format=torch.channels_last), noise, reference
