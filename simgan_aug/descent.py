"""Updates of weights, and what they tell, which is read once a step.

To read a number waits for a GPU. So whether an update is finite is decided where it is computed:
from the first of a step that is not, none changes a weight any more; then the step is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from simgan_aug.devices import uploaded
from simgan_aug.errors import DivergenceError
from simgan_aug.graphs import Replayed, Work
from simgan_aug.state import TrainingState, capturable
from simgan_aug.terms import in_total


class Share(Protocol):
    """Rows of a batch."""

    @property
    def tensors(self) -> list[Tensor | None]:
        """All that is computed with."""

    def of(self, *tensors: Tensor | None) -> Any:
        """The same of other values."""


class Descent:
    """The updates of a step.

    Args:
        state: whose optimisers and ranks are used.
        part: of a share's loss in that of the batch.
        recorded: whether a GPU may record what is done for a share and replay it; it must then be
            the only one.
    """

    def __init__(self, state: TrainingState, part: float, recorded: bool = False) -> None:
        self.state, self.part = state, part
        device = next(state.refiner.parameters()).device
        self._zero = torch.zeros((), device=device)
        self._failed = self._zero
        self._replayed = Replayed(device) if recorded and device.type == "cuda" else None
        self._names: dict[Hashable, list[tuple[str, str]]] = {}
        """Of values by the work that gives them: a loss's name, or "" of a gradient; what it is."""
        self._told: list[tuple[Hashable, Tensor]] = []
        """Works, and the values they have given."""

    def update(
        self, player: str, losses: Callable[[Any], Mapping[str, Tensor]], shares: Iterator[Share]
    ) -> None:
        """One step down the gradient of the losses, summed over the shares of all ranks.

        Args:
            player: "refiner", "discriminator" or "student".
            losses: of a share, by name.
            shares: of this rank, each made when the one before it is done with.
        """
        key = player, losses.__name__
        if self._replayed is None:
            values, self._failed = self._descend(player, losses, shares, self._failed, key)
        else:
            (share,) = shares

            def work(
                failed: Tensor, scalars: Tensor, *tensors: Tensor | None
            ) -> tuple[Tensor, ...]:
                with self.state.scalars_in(scalars), capturable(self.state.optimizers[player]):
                    return self._descend(player, losses, iter([share.of(*tensors)]), failed, key)

            scalars = uploaded(torch.tensor([*self.state.scalars.values()]), self._zero.device)
            values, self._failed = self._replayed(work, key, self._failed, scalars, *share.tensors)
        self._told.append((key, values))

    def run(self, work: Work, key: Hashable, *tensors: Tensor | None) -> Sequence[Tensor]:
        """Work for the only share, replayed if that may be; see `Replayed`."""
        return work(*tensors) if self._replayed is None else self._replayed(work, key, *tensors)

    def _descend(
        self,
        player: str,
        losses: Callable[[Any], Mapping[str, Tensor]],
        shares: Iterator[Share],
        failed: Tensor,
        key: Hashable,
    ) -> tuple[Tensor, Tensor]:
        """One update: all that it tells, and whether one of this step has failed."""
        optimizer, totals = self.state.optimizers[player], dict[str, Tensor]()
        weights = [weight for weight in optimizer.param_groups[0]["params"] if weight.requires_grad]
        for share in shares:
            if not totals:
                optimizer.zero_grad(set_to_none=True)
            weighted = {name: self.part * loss for name, loss in losses(share).items()}
            # By the weights alone: a penalty has left images in the graph that ask for theirs.
            torch.autograd.backward(sum(weighted.values(), start=self._zero), inputs=weights)
            for name, loss in weighted.items():
                totals[name] = totals.get(name, self._zero) + loss.detach()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        self.state.ranks.add([*gradients, *totals.values()])
        told = [(name, f"the {name} loss", value) for name, value in totals.items()]
        if gradients:
            norm = torch.stack(torch._foreach_norm(gradients)).sum()
            told.append(("", f"the gradient of the {player}", norm))
        self._names[key] = [(name, what) for name, what, _ in told]
        values = torch.stack([value.float() for _, _, value in told])
        failed = torch.maximum(failed, values.isfinite().all().logical_not().float())
        optimizer.found_inf = failed  # type: ignore[attr-defined]  # a fused one heeds it
        optimizer.step()
        return values, failed

    def end(self) -> dict[str, float]:
        """The losses of the step by name.

        Raises:
            DivergenceError: one, or a gradient, was not finite. The weights are those before that
                update.
        """
        told, self._told, self._failed = self._told, [], self._zero
        numbers = torch.cat([values for _, values in told]).tolist()
        names = [each for key, _ in told for each in self._names[key]]
        losses = {}
        for (name, what), value in zip(names, numbers, strict=True):
            if not math.isfinite(value):
                raise DivergenceError(f"{what} is {value} in step {self.state.number + 1}")
            if name:
                losses[name] = value
        return in_total(losses)
