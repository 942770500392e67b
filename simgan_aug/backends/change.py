"""The whole of what a network adds, as one graph of one size: for programs other than ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from simgan_aug.backends.openvino import openvino, request_of
from simgan_aug.errors import DependencyError
from simgan_aug.networks.contract import condition, takes_reference
from simgan_aug.tone import QUANTILES

Call = Callable[[Sequence[Tensor]], Tensor]
"""Runs a graph that has been written."""


class Change(nn.Module):
    """A network that answers with what it adds; its inputs are called `names`, in order.

    Args:
        network: a refiner.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._has_noise = bool(getattr(network, "noise_channels", 0))
        self._has_reference = takes_reference(network)
        self.names = ["images", *["noise"] * self._has_noise, *["reference"] * self._has_reference]

    def forward(self, images: Tensor, *others: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1], and what else the network takes -> what it adds."""
        noise = others[0] if self._has_noise else None
        reference = others[-1] if self._has_reference else None
        if not hasattr(self.network, "core"):
            extra = condition(self.network, noise, reference)
            return cast(Tensor, self.network(images, **extra) - images)
        network = cast(Any, self.network)
        return cast(
            Tensor, network.unfold(network.core(network.fold(images, noise), reference), images)
        )

    def example(self, channels: int, size: tuple[int, int]) -> list[Tensor]:
        """Inputs for an image of this width and height."""
        width, height = size
        generator = torch.Generator().manual_seed(0)
        planes = (1, int(getattr(self.network, "noise_channels", 0)), height, width)
        made = {
            "images": torch.rand((1, channels, height, width), generator=generator) * 2 - 1,
            "noise": torch.randn(planes, generator=generator),
            "reference": torch.linspace(-1, 1, QUANTILES).expand(1, channels, -1).contiguous(),
        }
        return [made[name] for name in self.names]


class ChangeBackend:
    """Runs a graph that has been written as a refiner's backend, to hold it against torch."""

    device, precision, identity = torch.device("cpu"), "fp32", "written"

    def __init__(self, change: Change, call: Call) -> None:
        self._change, self._call = change, call

    def added(self, images: Tensor, noise: Tensor | None, reference: Tensor | None) -> Tensor:
        """See `Backend`."""
        given = {"images": images, "noise": noise, "reference": reference}
        inputs = [given[name] for name in self._change.names]
        rows = [
            self._call([cast(Tensor, each)[row : row + 1].contiguous() for each in inputs])
            for row in range(len(images))
        ]
        return torch.cat(rows)


def export_onnx(
    change: Change, channels: int, size: tuple[int, int], folder: Path
) -> tuple[Path, Call]:
    """Write an ONNX file; run by OpenVINO."""
    path = folder / "refiner.onnx"
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"ONNX needs onnxscript: pip install 'simgan-aug[openvino]' ({error})"
        ) from None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own converter
        torch.onnx.export(
            change.eval(),
            tuple(change.example(channels, size)),
            path,
            input_names=change.names,
            output_names=["change"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    core = openvino().Core()
    request = request_of(core, core.read_model(path), {"INFERENCE_PRECISION_HINT": "f32"})
    return path, lambda inputs: torch.from_numpy(
        request.infer([each.numpy() for each in inputs])[0]
    )


def export_torch(
    change: Change, channels: int, size: tuple[int, int], folder: Path
) -> tuple[Path, Call]:
    """Write what `torch.export.load` reads; run by torch."""
    path = folder / "refiner.pt2"
    with torch.no_grad():
        program = torch.export.export(change.eval(), tuple(change.example(channels, size)))
        torch.export.save(program, path)
        module = program.module()

    def call(inputs: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, module(*inputs))

    return path, call
