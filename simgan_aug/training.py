"""Algorithm 1 of the paper: finished parts and two iterators of batches in, Steps out.

Nothing here knows of files, configuration or plugins. All randomness of a step derives from the
seed, the step's number and that of the share (`TrainingState`), and all else that a step depends on
is in `TrainingState`; so a run that is stopped and resumed goes on as if it had not been, and ranks
do together what one process would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from simgan_aug.batch import Batch
from simgan_aug.config import Training
from simgan_aug.losses import AdversarialLoss
from simgan_aug.players import Players, Regularization
from simgan_aug.state import TrainingState

__all__ = ["Batch", "Regularization", "Step", "TrainingState", "train"]


@dataclass(frozen=True)
class Step:
    """What one step of Algorithm 1 (or of a warm-up) did."""

    number: int
    """Counts from 1, warm-ups included."""
    phase: str
    """"refiner warm-up", "discriminator warm-up", "adversarial" or "student"."""
    losses: Mapping[str, float]
    """"adversarial", "regularization", "discriminator", "student": those that the step computed, as
    it ended; and of the regularization, each further term, weighted, as "regularization/NAME"."""
    state: TrainingState
    """Live, of the loop; save it or look at it, but do not change it."""

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates by player, "refiner", "discriminator" and "student", in this step."""
        return dict(self.state.rates)


def train(
    refiner: nn.Module,
    discriminator: nn.Module,
    loss: AdversarialLoss,
    regularization: Regularization,
    synthetic: Iterator[Batch],
    real: Iterator[Batch],
    config: Training,
    state: TrainingState | None = None,
) -> Iterator[Step]:
    """Algorithm 1: alternate K_g updates of the refiner and K_d of the discriminator, T times.

    A student, if the state has one, then learns to do what the refiner's average does.

    Args:
        refiner, discriminator: on the device to train on; see `simgan_aug.hookspecs` for what they
            offer.
        loss: the two adversarial terms.
        regularization: lambda times the self-regularization; further terms are in `state`.
        synthetic, real: endless batches of `config.batch_size` images of one size; weights of real
            ones are not used. Of real ones there may be a multiple: candidates for each synthetic
            image, one after the other, of which the most alike is taken.
        config: see `Training`.
        state: where to go on, with which ranks, which further terms of regularization and which
            student; None: from the start, alone, with none.

    Raises:
        DivergenceError: a loss or a gradient is not finite. The weights are those before that
            update.
    """
    state = state or TrainingState(refiner, discriminator, config)
    players = Players(state, loss, regularization, synthetic, real, config)
    while state.step < config.game:
        players.begin()
        if state.step < config.refiner_warmup:
            phase = "refiner warm-up"
            players.update_refiner(adversarial=False)
        elif state.step < config.warmup:
            phase = "discriminator warm-up"
            players.update_discriminator()
        else:
            phase = "adversarial"
            for _ in range(config.refiner_updates):  # K_g
                players.update_refiner()
            for _ in range(config.discriminator_updates):  # K_d
                players.update_discriminator()
        is_last = state.step + 1 == config.game and state.student is None
        if not is_last:
            count = config.refiner_updates + config.discriminator_updates
            _prepare(players, count, synthetic, real)
        losses = players.end()
        if phase != "discriminator warm-up":
            state.average.update_parameters(state.refiner)
        state.step += 1
        yield Step(state.number, phase, losses, state)
    while state.student is not None and state.student_step < config.student_steps:
        players.begin()
        players.update_student()
        _prepare(players, 1, synthetic)
        losses = players.end()
        state.student_step += 1
        yield Step(state.number, "student", losses, state)


def _prepare(players: Players, count: int, *sides: Iterator[Batch]) -> None:
    """Make the next batches of each side while a GPU is at work, until the losses are read."""
    if players.device.type == "cuda":
        for side in sides:
            if hasattr(side, "prepare"):
                side.prepare(count)
