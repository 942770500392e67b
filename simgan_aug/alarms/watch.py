"""A run's handful of images, and a look at the run's networks that leaves no trace in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from simgan_aug.alarms.checks import SATURATED, Alarm, check
from simgan_aug.alarms.measures import Array, Box
from simgan_aug.networks.contract import condition, takes_reference, with_tone
from simgan_aug.state import TrainingState

SETTLED = 200
"""Adversarial steps before which it is no wonder that nothing has changed or one player leads."""

LOOKS = 3
"""Looks in a row at which the discriminator must lead before it is called saturated."""

Refine = Callable[[nn.Module, list[Array]], list[Array]]
"""A network and images (H, W, C) in [0, 1] -> the images it makes of them."""


@dataclass(frozen=True, kw_only=True)
class Handful:
    """The same images throughout a run."""

    images: list[Array]
    """Synthetic ones as the refiner gets them, (H, W, C) float32 in [0, 1], of any sizes."""
    boxes: list[list[Box]]
    """Of the labels in each, x, y, width, height in px."""
    real: list[Array]
    """Photos, likewise."""
    crops: Tensor
    """(B, C, H, W) in [-1, 1]: synthetic ones, cut as those that the discriminator learns from."""
    reference: Tensor | None
    """(B, C, Q) in [-1, 1]: the tones that these are to take."""
    real_crops: Tensor
    """As `crops`, of photos."""
    real_reference: Tensor | None
    """(B, C, Q) in [-1, 1]: their own tones."""


class Watch:
    """Looks at a training run.

    Args:
        handful: what it looks at.
        refine: how a network refines images.
    """

    def __init__(self, handful: Handful, refine: Refine) -> None:
        self.handful, self.refine = handful, refine
        self._leads = 0  # looks in a row; a resumed run counts anew

    def look(self, state: TrainingState, steps: int) -> list[Alarm]:
        """What is wrong now; neither weights, modes nor random draws of the run are changed.

        Args:
            state: of the run.
            steps: adversarial steps that it has done.
        """
        handful = self.handful
        with at_rest(state.kept, state.averaged, state.refiner, state.discriminator):
            after = self.refine(state.kept, handful.images)
            if state.kept is state.averaged:
                logits, taught = self._logits(state), None
            else:  # it has had no opponent
                logits, taught = None, self.refine(state.averaged, handful.images)
        settled = steps >= SETTLED
        found = check(handful.images, after, handful.boxes, handful.real, logits, settled, taught)
        leads = any(alarm.name == SATURATED for alarm in found)
        self._leads = self._leads + 1 if leads else 0
        return [each for each in found if each.name != SATURATED or self._leads >= LOOKS]

    @torch.no_grad()
    def _logits(self, state: TrainingState) -> tuple[Array, Array]:
        """Of the discriminator, for images of the refiner that it plays against and for photos."""
        handful, device = self.handful, next(state.refiner.parameters()).device
        draws, refiner = torch.Generator().manual_seed(0), state.refiner
        channels, refined = getattr(refiner, "noise_channels", 0), []
        for crop, tone in _one_by_one(handful.crops, handful.reference, device):
            noise = torch.randn((1, channels, *crop.shape[2:]), generator=draws).to(device)
            made = refiner(crop, **condition(refiner, noise, tone))
            refined.append(_judged(state.discriminator, made, tone))
        real = [
            _judged(state.discriminator, crop, tone)
            for crop, tone in _one_by_one(handful.real_crops, handful.real_reference, device)
        ]
        return np.concatenate(refined), np.concatenate(real)


def _one_by_one(
    crops: Tensor, references: Tensor | None, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches of one: all of them may not fit into the memory that training leaves."""
    for row in range(len(crops)):
        tone = None if references is None else references[row : row + 1].to(device)
        yield crops[row : row + 1].to(device), tone


def _judged(discriminator: nn.Module, images: Tensor, reference: Tensor | None) -> Array:
    """Logits, flat."""
    if takes_reference(discriminator) and reference is not None:
        images = with_tone(images, reference)
    logits: Array = discriminator(images).float().flatten().cpu().numpy()
    return logits


@contextlib.contextmanager
def at_rest(*networks: nn.Module) -> Iterator[None]:
    """A normalisation learns nothing from what its network sees; all is as before after it.

    A plugin's network may draw from the global generators, so that these are set back too.
    """
    modes = [(part, part.training) for network in networks for part in network.modules()]
    weights = [weight for network in networks for weight in network.parameters()]
    trained = [weight for weight in weights if weight.requires_grad]
    device = weights[0].device if weights else torch.device("cpu")
    for network in networks:
        network.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
        for weight in trained:
            weight.requires_grad_(True)
