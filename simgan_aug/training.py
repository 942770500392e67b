"""Algorithm 1 of the paper: finished parts and two iterators of batches in, Steps out.

Nothing here knows of files, configuration or plugins. All randomness of a step derives from the
seed and the step's number, and all else that a step depends on is in `TrainingState`; so a run that
is stopped and resumed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simgan_aug.config import Training
from simgan_aug.devices import resolve_precision
from simgan_aug.errors import ConfigError, TrainingError
from simgan_aug.losses import AdversarialLoss
from simgan_aug.networks.contract import condition, takes_reference, with_tone
from simgan_aug.state import TrainingState

Regularization = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(refined, synthetic, weights) -> the weighted term of eq. 1, a scalar."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of either side with what belongs to them."""

    images: Tensor
    """(B, C, H, W) in [-1, 1]."""
    weights: Tensor | None = None
    """(B, 1, H, W), how much a pixel's change counts; None: 1 everywhere."""
    reference: Tensor | None = None
    """(B, C, Q) in [-1, 1]: of a synthetic image the tone it is to take, of a real one its own."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device, images in channels_last memory."""
        weights, reference = (
            None if t is None else t.to(device) for t in (self.weights, self.reference)
        )
        return Batch(images=_to(self.images, device), weights=weights, reference=reference)


@dataclass(frozen=True)
class Step:
    """What one step of Algorithm 1 (or of a warm-up) did."""

    number: int
    """Counts from 1, warm-ups included."""
    phase: str
    """"refiner warm-up", "discriminator warm-up" or "adversarial"."""
    losses: Mapping[str, float]
    """"adversarial", "regularization", "discriminator": those that the step computed, as it
    ended."""
    state: TrainingState
    """Live, of the loop; save it or look at it, but do not change it."""


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

    Args:
        refiner, discriminator: on the device to train on; see `simgan_aug.hookspecs` for what they
            offer.
        loss: the two adversarial terms.
        regularization: lambda times the self-regularization.
        synthetic, real: endless batches of `config.batch_size` images of one size; weights of real
            ones are not used.
        config: see `Training`.
        state: where to go on; None: from the start.

    Raises:
        TrainingError: a loss is not finite. The weights are those before that update.
    """
    state = state or TrainingState(refiner, discriminator, config)
    players = _Players(state, loss, regularization, synthetic, real, config)
    while state.step < config.refiner_warmup + config.discriminator_warmup + config.steps:
        players.begin(state.step)
        losses: dict[str, float] = {}
        if state.step < config.refiner_warmup:
            phase = "refiner warm-up"
            losses |= players.update_refiner(adversarial=False)
        elif state.step < config.refiner_warmup + config.discriminator_warmup:
            phase = "discriminator warm-up"
            losses |= players.update_discriminator()
        else:
            phase = "adversarial"
            for _ in range(config.refiner_updates):  # K_g
                losses |= players.update_refiner()
            for _ in range(config.discriminator_updates):  # K_d
                losses |= players.update_discriminator()
        if phase != "discriminator warm-up":
            state.average.update_parameters(state.refiner)
        state.step += 1
        yield Step(state.step, phase, losses, state)


class _Players:
    """One update of either network; holds what all updates of a run share."""

    def __init__(
        self,
        state: TrainingState,
        loss: AdversarialLoss,
        regularization: Regularization,
        synthetic: Iterator[Batch],
        real: Iterator[Batch],
        config: Training,
    ) -> None:
        self.state, self.loss, self.regularization = state, loss, regularization
        self.synthetic, self.real, self.config = synthetic, real, config
        self.device = next(state.refiner.parameters()).device
        self.precision = resolve_precision(config.precision, self.device)
        self.draws = torch.Generator()

    def begin(self, step: int) -> None:
        """Derive the step's draws from its number, and set its learning rates."""
        self.draws.manual_seed((self.config.seed * 1_000_003 + step) % 2**63)
        after_warmup = step - self.config.refiner_warmup - self.config.discriminator_warmup
        decayed = self.config.decay_after and after_warmup >= self.config.decay_after
        for name, optimizer in self.state.optimizers.items():
            rate = getattr(self.config, f"{name}_rate")
            optimizer.param_groups[0]["lr"] = rate * self.config.decay_factor if decayed else rate

    def update_refiner(self, adversarial: bool = True) -> dict[str, float]:
        """One step on L_R (eq. 4); in the warm-up on its second term alone."""
        batch = self._next_synthetic()
        losses = {}
        with self._frozen(self.state.discriminator), self._autocast():
            refined = self._refine(batch)
            if adversarial:
                shown = self._shown(refined, batch.reference)
                real = self._next_real() if getattr(self.loss, "pairs_real", False) else shown
                losses["adversarial"] = self.loss.refiner(self.state.discriminator, shown, real)
            losses["regularization"] = self.regularization(refined, batch.images, batch.weights)
        return self._descend("refiner", losses)

    def update_discriminator(self) -> dict[str, float]:
        """One step on L_D (eq. 2), half of the refined images from the history (section 2.3)."""
        batch, real = self._next_synthetic(), self._next_real()
        with torch.no_grad(), self._autocast():
            refined = self._refine(batch)
        refined = self._mixed(refined, batch.reference)
        with self._autocast():
            losses = {
                "discriminator": self.loss.discriminator(self.state.discriminator, refined, real)
            }
        return self._descend("discriminator", losses)

    def _descend(self, player: str, losses: Mapping[str, Tensor]) -> dict[str, float]:
        values = {name: loss.item() for name, loss in losses.items()}
        for name, value in values.items():
            if not abs(value) < float("inf"):
                raise TrainingError(
                    f"the {name} loss is {value} in step {self.state.step + 1}; lower "
                    "training.refiner_rate and training.discriminator_rate, or set "
                    "training.precision = 'fp32'"
                )
        optimizer = self.state.optimizers[player]
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(sum(losses.values(), start=torch.zeros((), device=self.device)))
        optimizer.step()
        return values

    def _refine(self, batch: Batch) -> Tensor:
        channels = getattr(self.state.refiner, "noise_channels", 0)
        shape = (len(batch.images), channels, *batch.images.shape[2:])
        noise = torch.randn(shape, generator=self.draws).to(self.device) if channels else None
        refined: Tensor = self.state.refiner(
            batch.images, **condition(self.state.refiner, noise, batch.reference)
        )
        return refined

    def _next_synthetic(self) -> Batch:
        self.state.synthetic_batches += 1
        return next(self.synthetic).to(self.device)

    def _next_real(self) -> Tensor:
        self.state.real_batches += 1
        batch = next(self.real).to(self.device)
        return self._shown(batch.images, batch.reference)

    def _mixed(self, refined: Tensor, reference: Tensor | None) -> Tensor:
        """Half from the history, as the discriminator sees it; a tone stays with its image."""
        if reference is None or not takes_reference(self.state.discriminator):
            return self.state.history.mix(refined, self.draws)
        packed = torch.cat([refined.flatten(1), reference.flatten(1)], dim=1)
        packed, values = self.state.history.mix(packed, self.draws), refined[0].numel()
        images, tones = packed[:, :values].view_as(refined), packed[:, values:].view_as(reference)
        return self._shown(images, tones)

    def _shown(self, images: Tensor, reference: Tensor | None) -> Tensor:
        """Images as the discriminator sees them: with their tone, if it takes one."""
        if not takes_reference(self.state.discriminator):
            return images
        if reference is None:
            raise ConfigError(
                "this discriminator takes a reference photo's tone: set tone.photos to 1 or more"
            )
        return with_tone(images, reference)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextlib.contextmanager
    def _frozen(self, network: nn.Module) -> Iterator[None]:
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        for weight in trained:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in trained:
                weight.requires_grad_(True)


def _to(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)
