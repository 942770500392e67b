"""The ways to run a refiner that benchmarks compare: backend and precision."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from simgan_aug import checkpoint, export
from simgan_aug.backends import Backend, backend_of
from simgan_aug.backends.openvino import OpenVINOBackend
from simgan_aug.bench.material import decoded_image
from simgan_aug.bench.rounds import Skip
from simgan_aug.checkpoint import Checkpoint
from simgan_aug.config import Config, Tone
from simgan_aug.devices import has_amx
from simgan_aug.errors import DependencyError
from simgan_aug.inference import ImageRefiner


@dataclass(frozen=True)
class Way:
    """A backend at a precision, on the CPU."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"

    def refiner(self, file: Path, graph: Path, tone: bool = True) -> ImageRefiner:
        """A refiner file, opened this way.

        Args:
            file: of the refiner.
            graph: that `quantize` has written of it, for int8.
            tone: whether it has its tone step.

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
            backend=self.backend_of(loaded.network, graph),
        )

    def backend_of(self, network: nn.Module, graph: Path) -> Backend:
        """What runs a network this way."""
        if self.precision == "bf16" and not has_amx():
            raise Skip("this CPU has no AMX")
        if self.precision != "int8":
            return backend_of(self.backend, network, "cpu", self.precision)
        if not graph.exists():
            raise Skip("OpenVINO or NNCF is not installed: pip install 'simgan-aug[openvino]'")
        return OpenVINOBackend(network, "int8", graph)


WAYS = (
    Way("torch", "fp32"),
    Way("torch", "bf16"),
    Way("openvino", "fp32"),
    Way("openvino", "bf16"),
    Way("openvino", "int8"),
)
"""All of them; the first is what others are compared with."""


def quantize(makers: Mapping[Path, Callable[[], Checkpoint]], images: Sequence[Path]) -> None:
    """Write graphs in int8, in a process whose memory ends with it; nothing, where it cannot be.

    Args:
        makers: what makes each network, by the file of its graph.
        images: to quantize by; crops of them, enough where only speed counts.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_quantize, dict(makers), images).result()


def _quantize(makers: Mapping[Path, Callable[[], Checkpoint]], images: Sequence[Path]) -> None:
    samples = [decoded_image(image)[:128, :128] for image in images]
    with contextlib.suppress(DependencyError):
        for graph, make in makers.items():
            graph.parent.mkdir(parents=True)
            export.openvino_graph(make(), graph.parent, "int8", samples)


def plain(make: Callable[[], nn.Module]) -> Checkpoint:
    """A network that is no refiner of a file, as one without a tone step."""
    torch.manual_seed(0)
    return Checkpoint(make().eval(), 3, None, Config(tone=Tone(photos=0)), {})


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
