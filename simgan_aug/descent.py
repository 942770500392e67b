"""Updates of weights, and what they tell, which is read once a step.

To read a number waits for a GPU. So whether an update is finite is decided where it is computed:
from the first of a step that is not, none changes a weight any more; then the step is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from simgan_aug.errors import DivergenceError
from simgan_aug.state import TrainingState
from simgan_aug.terms import in_total


class Descent:
    """The updates of a step.

    Args:
        state: whose optimisers and ranks are used.
        part: of a share's loss in that of the batch.
    """

    def __init__(self, state: TrainingState, part: float) -> None:
        self.state, self.part = state, part
        self._zero = torch.zeros((), device=next(state.refiner.parameters()).device)
        self._failed = self._zero
        self._told: list[tuple[str, str, Tensor]] = []
        """A loss's name, or "" of a gradient; what it is; its value."""

    def update(self, player: str, losses: Iterator[Mapping[str, Tensor]]) -> None:
        """One step down the gradient of the losses, summed over the shares of all ranks.

        Args:
            player: "refiner" or "discriminator".
            losses: by name, of each share of this rank.
        """
        optimizer, totals = self.state.optimizers[player], dict[str, Tensor]()
        weights = [weight for weight in optimizer.param_groups[0]["params"] if weight.requires_grad]
        for of_share in losses:
            if not totals:
                optimizer.zero_grad(set_to_none=True)
            weighted = {name: self.part * loss for name, loss in of_share.items()}
            # By the weights alone: a penalty has left images in the graph that ask for theirs.
            torch.autograd.backward(sum(weighted.values(), start=self._zero), inputs=weights)
            for name, loss in weighted.items():
                totals[name] = totals.get(name, self._zero) + loss.detach()
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        self.state.ranks.add([*gradients, *totals.values()])
        self._look_at(player, totals, gradients)
        optimizer.found_inf = self._failed  # type: ignore[attr-defined]  # a fused one heeds it
        optimizer.step()

    def end(self) -> dict[str, float]:
        """The losses of the step by name.

        Raises:
            DivergenceError: one, or a gradient, was not finite. The weights are those before that
                update.
        """
        told, self._told, self._failed = self._told, [], self._zero
        values = torch.stack([value.float() for _, _, value in told]).tolist()
        losses = {}
        for (name, what, _), value in zip(told, values, strict=True):
            if not math.isfinite(value):
                raise DivergenceError(f"{what} is {value} in step {self.state.step + 1}")
            if name:
                losses[name] = value
        return in_total(losses)

    def _look_at(self, player: str, losses: Mapping[str, Tensor], gradients: list[Tensor]) -> None:
        told = [(name, f"the {name} loss", value) for name, value in losses.items()]
        if gradients:
            norm = torch.stack(torch._foreach_norm(gradients)).sum()
            told.append(("", f"the gradient of the {player}", norm))
        finite = torch.stack([value.float() for _, _, value in told]).isfinite().all()
        self._failed = torch.maximum(self._failed, finite.logical_not().float())
        self._told += told
