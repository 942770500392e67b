"""The processes that train one refiner together: one alone, or those that torchrun has started.

Each rank takes its rows of every batch and adds up gradients with the others after its backward
pass. There is no wrapper around a network: a gradient penalty differentiates twice, and in the
refiner's step the discriminator is frozen, neither of which wrappers like. Lightning Fabric starts
the process group and picks the device; one process alone needs nothing of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from simgan_aug.errors import ConfigError, DependencyError, TrainingError

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for another before it gives up; the first may be saving or drawing."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, and what they do together; alone, nothing is to do."""

    number: int = 0
    world: int = 1
    device: torch.device | None = None
    """Of this rank; None: alone, and the caller chooses."""

    @property
    def leads(self) -> bool:
        """Whether this rank writes files and speaks to the user."""
        return self.number == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, the same bits on each.

        Raises:
            TrainingError: a rank is lost.
        """
        if self.world == 1:
            return
        flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
        with _together():
            distributed.all_reduce(flat)
        begin = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[begin : begin + tensor.numel()].view_as(tensor))
            begin += tensor.numel()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, by rank; they have one shape.

        Raises:
            TrainingError: a rank is lost.
        """
        if self.world == 1:
            return [tensor]
        gathered = [torch.empty_like(tensor) for _ in range(self.world)]
        with _together():
            distributed.all_gather(gathered, tensor.contiguous())
        return gathered

    def any(self, wish: bool) -> bool:
        """Whether it holds for any rank.

        Raises:
            TrainingError: a rank is lost.
        """
        if self.world == 1:
            return wish
        asked = torch.tensor([float(wish)], device=self.device)
        self.add([asked])
        return bool(asked.item())

    def agree(self, what: str, value: str) -> None:
        """Make sure that a value is the same for all ranks, and wait until all have come here.

        Raises:
            ConfigError: it is not; `what` says of what.
            TrainingError: a rank is lost.
        """
        digest = hashlib.sha256(value.encode()).digest()[:8]
        number = torch.tensor([int.from_bytes(digest, "big", signed=True)], device=self.device)
        first, *others = self.gather(number)
        for rank, other in enumerate(others, start=1):
            if other != first:
                raise ConfigError(f"rank {rank} has other {what} than rank 0: give all the same")


def join(device: str) -> Ranks:
    """The ranks that torchrun says in the environment there are.

    Args:
        device: "auto", "cpu" or "cuda"; each rank takes the one of its number on its machine.

    Raises:
        ConfigError: there are fewer such devices than ranks on this machine.
        DependencyError: Lightning Fabric is not installed.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"of {world} ranks each takes a device of its own: leave out {device!r}")
    try:
        # Of Lightning nothing but Fabric: `lightning.fabric` would import all of it.
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise DependencyError(
            f"training on {world} ranks needs Lightning Fabric ({error}): "
            "pip install 'simgan-aug[distributed]'"
        ) from None
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.device_count() < here:
        raise ConfigError(
            f"{here} ranks on this machine, but {torch.cuda.device_count()} GPUs: start as many "
            "ranks as it has GPUs, or take --device cpu"
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets for each rank
    strategy = DDPStrategy(timeout=PATIENCE)
    fabric = Fabric(accelerator=device, strategy=strategy, devices=here, num_nodes=world // here)
    fabric.launch()
    return Ranks(fabric.global_rank, fabric.world_size, fabric.device)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo and NCCL raise, whatever has become of the other
        raise TrainingError(
            "another rank is lost; the last save is whole: start all ranks again with --resume "
            f"({str(error).splitlines()[0]})"
        ) from error
