"""What a training step depends on, and its form as flat tensors that safetensors can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from simgan_aug.config import Training
from simgan_aug.history import HistoryBuffer


class TrainingState:
    """All that a step depends on: networks, optimisers, the average, the history, the count."""

    def __init__(self, refiner: nn.Module, discriminator: nn.Module, config: Training) -> None:
        for network in (refiner, discriminator):
            network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.refiner = refiner
        self.discriminator = discriminator
        self.average = AveragedModel(refiner, multi_avg_fn=get_ema_multi_avg_fn(config.average))  # type: ignore[no-untyped-call]
        self.optimizers = {
            "refiner": _optimizer(refiner, config, config.refiner_rate),
            "discriminator": _optimizer(discriminator, config, config.discriminator_rate),
        }
        self.history = HistoryBuffer(config.history)
        self.step = 0
        self.synthetic_batches = 0
        """Batches taken from the synthetic iterator; a resumed iterator starts there."""
        self.real_batches = 0
        """The same for the real iterator."""

    @property
    def averaged(self) -> nn.Module:
        """The refiner to keep: the moving average of the weights."""
        return self.average.module

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors by name, ready for safetensors."""
        flat = {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        flat |= {f"refiner.{k}": v for k, v in self.refiner.state_dict().items()}
        flat |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for player, optimizer in self.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                flat |= {
                    f"optimizer.{player}.{index}.{slot}": v
                    for slot, v in slots.items()
                    if v is not None
                }
        if self.history.images is not None:
            flat["history"] = self.history.images
        flat["counts"] = torch.tensor(
            [self.step, self.synthetic_batches, self.real_batches, self.history.size]
        )
        return flat

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, for networks and a config of the same shapes.

        Raises:
            KeyError, RuntimeError: the tensors belong to other networks.
        """
        for name, module in (
            ("discriminator", self.discriminator),
            ("refiner", self.refiner),
            ("average", self.average),
        ):
            module.load_state_dict(_under(flat, name))
        for player, optimizer in self.optimizers.items():
            slots: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(flat, f"optimizer.{player}").items():
                index, slot = name.split(".")
                slots.setdefault(int(index), {})[slot] = value.clone()
            optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
            _lay_out(optimizer)
        self.step, self.synthetic_batches, self.real_batches, self.history.size = flat[
            "counts"
        ].tolist()
        if "history" in flat:
            device = next(self.refiner.parameters()).device
            self.history.images = flat["history"].to(device, copy=True)


def _optimizer(network: nn.Module, config: Training, rate: float) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=rate)
    return torch.optim.Adam(network.parameters(), lr=rate, betas=config.betas, fused=True)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory layout of their weights: fused updates read both alike."""
    for weight, slots in optimizer.state.items():
        for name, value in slots.items():
            if value.shape == weight.shape:
                slots[name] = torch.empty_like(weight).copy_(value)


def _under(flat: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name[len(prefix) + 1 :]: value
        for name, value in flat.items()
        if name.startswith(prefix + ".")
    }
