"""The two players of Algorithm 1: one update of either network, share by share of a batch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from simgan_aug import noise
from simgan_aug.alike import most_alike
from simgan_aug.batch import Batch
from simgan_aug.config import Training
from simgan_aug.descent import Descent
from simgan_aug.devices import resolve_precision, uploaded
from simgan_aug.errors import ConfigError, PluginError
from simgan_aug.graphs import is_recordable
from simgan_aug.history import HistoryBuffer
from simgan_aug.losses import AdversarialLoss, imitation
from simgan_aug.networks.contract import condition, takes_reference, with_tone
from simgan_aug.state import TrainingState
from simgan_aug.terms import TOTAL

WARM = 0.05
"""Share of a student's steps in which its rate rises."""

Regularization = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(refined, synthetic, weights) -> the weighted term of eq. 1, a scalar."""


@dataclass(frozen=True, kw_only=True)
class _Share:
    """The rows of a batch that are gone through at once, and what goes with them."""

    synthetic: Batch
    keys: Tensor | None
    """Of the noise that goes with each image (`simgan_aug.noise`); None: the refiner sees none."""
    real: Batch | None
    refined: Tensor | None = None
    """What the discriminator is shown, beside real ones."""
    history: HistoryBuffer
    draws: torch.Generator
    """Of the history, and of the seeds of further terms."""

    @property
    def tensors(self) -> list[Tensor | None]:
        """All that is computed with."""
        batches = [self.synthetic, *([] if self.real is None else [self.real])]
        parts = [part for each in batches for part in (each.images, each.weights, each.reference)]
        return [*parts, self.keys, self.refined]

    def of(self, *tensors: Tensor | None) -> _Share:
        """The same of other values; the inverse of `tensors`."""
        *parts, keys, refined = tensors
        batches = [_batch(*parts[start : start + 3]) for start in range(0, len(parts), 3)]
        synthetic, real = (*batches, None)[:2]
        assert synthetic is not None
        return replace(self, synthetic=synthetic, real=real, keys=keys, refined=refined)


def _batch(images: Tensor | None, weights: Tensor | None, reference: Tensor | None) -> Batch:
    assert images is not None
    return Batch(images=images, weights=weights, reference=reference)


class Players:
    """One update of either player, or of the student; holds what all updates of a run share."""

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
        self.share_draws = [torch.Generator() for _ in state.own_shares]
        sums = getattr(loss, "reduction", "mean") == "sum"
        self.descent = Descent(state, 1.0 if sums else 1 / state.shares, self._recorded())

    def begin(self) -> None:
        """Derive the step's draws from its number, and set its learning rates."""
        step, config = self.state.step, self.config
        seed = config.seed * 1_000_003 + self.state.number
        self.draws.manual_seed(seed % 2**63)
        for share, draws in zip(self.state.own_shares, self.share_draws, strict=True):
            draws.manual_seed((seed * 1_000_003 + share + 1) % 2**63)
        decayed = config.decay_after and step - config.warmup >= config.decay_after
        for name in self.state.optimizers:
            rate = getattr(config, f"{name}_rate") * self.state.scalars["rate"]
            if name == "student":
                rate *= one_cycle(self.state.student_step, config.student_steps)
            elif decayed:
                rate *= config.decay_factor
            self.state.set_rate(name, rate)

    def update_refiner(self, adversarial: bool = True) -> None:
        """One step on L_R (eq. 4); in the warm-up on its second term alone."""
        pairs = adversarial and getattr(self.loss, "pairs_real", False)
        losses = self._refiner_losses if adversarial else self._warmup_losses
        with self._frozen(self.state.discriminator):
            self.descent.update("refiner", losses, self._shares(with_real=pairs))

    def update_discriminator(self) -> None:
        """One step on L_D (eq. 2), half of the refined images from the history (section 2.3)."""
        shares = map(self._with_refined, self._shares(with_real=True))
        self.descent.update("discriminator", self._discriminator_losses, shares)

    def update_student(self) -> None:
        """One step of the student towards what the refiner's average makes of a batch."""
        self.descent.update("student", self._student_losses, self._shares(with_real=False))

    def end(self) -> dict[str, float]:
        """The losses of all updates since `begin`; raises as `Descent.end`."""
        return self.descent.end()

    def _refiner_losses(self, share: _Share) -> dict[str, Tensor]:
        """Both terms of eq. 4, and all further ones."""
        batch = share.synthetic
        with self._autocast():
            refined = self._refine(share)
            shown = self._shown(refined, batch.reference)
            real = shown if share.real is None else self._photos(share.real)
            losses = {"adversarial": self.loss.refiner(self.state.discriminator, shown, real)}
            return losses | self._held(refined, share)

    def _warmup_losses(self, share: _Share) -> dict[str, Tensor]:
        with self._autocast():
            return self._held(self._refine(share), share)

    def _held(self, refined: Tensor, share: _Share) -> dict[str, Tensor]:
        """What holds refined images to the synthetic ones."""
        batch = share.synthetic
        total = self.regularization(refined, batch.images, batch.weights)
        return {TOTAL: total, **self._terms(refined, share)}

    def _terms(self, refined: Tensor, share: _Share) -> dict[str, Tensor]:
        """Each further term; it may draw from torch's generator, seeded here for it alone."""
        terms, batch = self.state.terms, share.synthetic
        if not terms.terms:
            return {}
        seed = int(torch.randint(2**62, (), generator=share.draws))
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            values: dict[str, Tensor] = terms(
                self.state.refiner, refined, batch.images, batch.weights
            )
        return values

    def _discriminator_losses(self, share: _Share) -> dict[str, Tensor]:
        assert share.real is not None
        assert share.refined is not None
        with self._autocast():
            real = self._photos(share.real)
            loss = self.loss.discriminator(self.state.discriminator, share.refined, real)
        return {"discriminator": loss}

    def _student_losses(self, share: _Share) -> dict[str, Tensor]:
        assert self.state.student is not None
        with self._autocast():
            grain = self._grain(share)
            with torch.no_grad():
                taught = _refined(self.state.averaged, share, grain)
            learned = _refined(self.state.student, share, grain)
        # A mean, whatever the loss of the game is: the shares' mean is the batch's.
        part = 1 / (self.state.shares * self.descent.part)
        return {"student": part * imitation(learned.float(), taught.float())}

    def _with_refined(self, share: _Share) -> _Share:
        """With its images refined, half of them exchanged for those of the history."""
        alone = replace(share, real=None)

        def refine(*tensors: Tensor | None) -> list[Tensor]:
            with torch.no_grad(), self._autocast():
                return [self._refine(alone.of(*tensors))]

        (refined,) = self.descent.run(refine, "refine", *alone.tensors)
        refined = self._mixed(refined, share)
        nothing = _batch(refined.new_empty(0), None, None)
        return replace(share, synthetic=nothing, keys=None, refined=refined)

    def _shares(self, with_real: bool) -> Iterator[_Share]:
        """This rank's shares of the next batch, for which as much is drawn as for the whole."""
        self.state.synthetic_batches += 1
        self.state.real_batches += with_real
        synthetic = next(self.synthetic)
        real = most_alike(synthetic, next(self.real)) if with_real else None
        keys = None
        if self._noise_channels:
            seeds = torch.randint(2**62, (len(synthetic.images),), generator=self.draws)
            keys = noise.keys(seeds.tolist())
        size = len(synthetic.images) // self.state.shares
        buffers = self._buffers()
        for place, share in enumerate(self.state.own_shares):
            rows = share * size, (share + 1) * size
            for buffer, before in buffers:  # a layer that counts its calls sees one, as on a rank
                buffer.copy_(before)
            yield _Share(
                synthetic=synthetic.rows(*rows).to(self.device),
                keys=None if keys is None else uploaded(keys[slice(*rows)], self.device),
                real=None if real is None else real.rows(*rows).to(self.device),
                history=self.state.histories[place],
                draws=self.share_draws[place],
            )

    @property
    def _noise_channels(self) -> int:
        return int(getattr(self.state.refiner, "noise_channels", 0))

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Of all that learns, with what they hold now, if there is more than one share."""
        if len(self.state.own_shares) == 1:
            return []
        learning = (*self.state.networks, self.state.terms)
        return [(buffer, buffer.clone()) for each in learning for buffer in each.buffers()]

    def _refine(self, share: _Share) -> Tensor:
        return _refined(self.state.refiner, share, self._grain(share))

    def _grain(self, share: _Share) -> Tensor | None:
        """The noise that goes with its images, (B, noise_channels, H, W)."""
        shape = self._noise_channels, *share.synthetic.images.shape[2:]
        return None if share.keys is None else noise.of_keys(share.keys, shape)

    def _photos(self, batch: Batch) -> Tensor:
        return self._shown(batch.images, batch.reference)

    def _mixed(self, refined: Tensor, share: _Share) -> Tensor:
        """Half from the history, as the discriminator sees it; a tone stays with its image."""
        reference = share.synthetic.reference
        if reference is None or not takes_reference(self.state.discriminator):
            return share.history.mix(refined, share.draws)
        packed = torch.cat([refined.flatten(1), reference.flatten(1)], dim=1)
        packed, values = share.history.mix(packed, share.draws), refined[0].numel()
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

    def _recorded(self) -> bool:
        """Whether a GPU's work of a step may be recorded: no part does other work another time."""
        parts = (*self.state.networks, self.loss, self.regularization)
        alone = self.state.shares == 1 and not self.state.terms.terms
        return alone and self.config.optimizer == "adam" and all(map(is_recordable, parts))

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


def _refined(refiner: nn.Module, share: _Share, grain: Tensor | None) -> Tensor:
    batch = share.synthetic
    version = batch.images._version
    refined: Tensor = refiner(batch.images, **condition(refiner, grain, batch.reference))
    if batch.images._version != version:
        raise PluginError(
            "the refiner changes the images that it is given, which its result is held against: "
            "leave them as they are (no +=, no method that ends in _)"
        )
    shape = getattr(refined, "shape", type(refined).__name__)
    if shape != batch.images.shape:
        raise PluginError(
            f"the refiner makes {shape} of {batch.images.shape}; it must keep the shape"
        )
    return refined


def one_cycle(step: int, steps: int) -> float:
    """What of a rate is left at a step: up in a line, down by a cosine (arXiv:1708.07120)."""
    rise = max(1, round(WARM * steps))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2
