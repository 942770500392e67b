"""What looks at a run's networks while it trains: alarms, and the leash that holds labels."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from simgan_aug.alarms import Alarm, Watch, check_growth, check_likeness, watch
from simgan_aug.alarms.watch import at_rest
from simgan_aug.bank import Bank
from simgan_aug.config import Config
from simgan_aug.data import Source
from simgan_aug.data.handful import SIDE, take_handful, take_labelled, take_photos
from simgan_aug.inference import ImageRefiner
from simgan_aug.leash import Leash, between_looks, looks_left
from simgan_aug.networks.contract import takes_reference
from simgan_aug.parts import CONTOURS
from simgan_aug.state import TrainingState
from simgan_aug.training import Step

HELD = 64
"""Images by whose labels it is told how far labels drift, and photos that they are to be like."""

EVERY = 10_000
"""Labels of an image, at most, of which it is told whether they look larger than their boxes."""


class Oversight:
    """Looks at the same images throughout a run, whether it is resumed or not.

    Args:
        config: of the run.
        synthetic, real: what it trains on.
        bank: tones of real photos; None: no tone step.
        state: of the run.
    """

    def __init__(
        self,
        config: Config,
        synthetic: Source,
        real: Source,
        bank: Bank | None,
        state: TrainingState,
    ) -> None:
        self._channels, self._bank, self._state = synthetic.channels, bank, state
        self._tone = config.tone
        paired = takes_reference(state.discriminator)
        self._watch = Watch(take_handful(synthetic, real, config, bank, paired), self._refined)
        self._warmup, self._steps = config.training.warmup, config.training.steps
        # Windows lie in the middle on both sides: around labels there would be more to see.
        self._images, _ = take_labelled(synthetic, config, bank, HELD, 0)
        self._photos = take_photos(real, config, HELD)
        self._labelled, self._boxes = take_labelled(synthetic, config, bank, HELD, EVERY)
        self._leash, self._every = None, between_looks(self._steps)
        target = config.regularization.drift
        if target and config.regularization.contours:
            images, boxes = take_labelled(synthetic, config, bank, HELD, 2)
            # What tone an image would take cannot be told from a window of it.
            whole = all(max(image.shape) < SIDE for image in images)
            refine = functools.partial(self._refined, toned=whole)
            self._leash = Leash(images=images, boxes=boxes, refine=refine, target=target)

    def look(self, steps: int) -> list[Alarm]:
        """What is wrong after so many adversarial steps."""
        found = self._watch.look(self._state, steps)
        if steps >= max(self._steps, watch.SETTLED):
            kept = self._state.kept
            with at_rest(kept):
                found += check_likeness(self._refined(kept, self._images), self._photos)
                made = self._refined(kept, self._labelled)
                found += check_growth(self._labelled, made, self._boxes)
        return found

    def hold_labels(self, step: Step) -> None:
        """Turn the weight that holds contours; all ranks alike."""
        if self._leash is None or step.phase != "adversarial" or step.number % self._every:
            return
        scalars, refiner, ranks = self._state.scalars, self._state.refiner, self._state.ranks
        # Images matched before the network have the tones that these seeds draw.
        seed = 0 if self._tone.match == "before" else step.number * HELD
        with at_rest(refiner):
            left = looks_left(step.number - self._warmup, self._steps)
            weight, _ = self._leash.turn(scalars[CONTOURS], refiner, seed, left)
        if ranks.world > 1:
            own = torch.tensor([weight], dtype=torch.float64, device=self._device())
            weight = torch.stack(ranks.gather(own)).mean().item()
        scalars[CONTOURS] = weight

    def _refined(
        self, network: nn.Module, images: list[Any], seed: int = 0, toned: bool = False
    ) -> list[Any]:
        """Images that have their tone, if it comes first, through a network; at rest.

        Args:
            toned: and through the tone that comes after it.
        """
        match = "after" if toned and self._tone.match == "after" else "never"
        refiner = ImageRefiner(
            network, self._channels, self._bank, match, self._tone.share, device=self._device()
        )
        refined: list[Any] = refiner(images, seed=seed)
        return refined

    def _device(self) -> torch.device:
        return next(self._state.refiner.parameters()).device
