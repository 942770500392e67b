"""The default training's steps as one would write them down: what `bench train` is held against."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_aug import noise
from simgan_aug.batch import Batch
from simgan_aug.config import Training
from simgan_aug.history import HistoryBuffer
from simgan_aug.losses import Critic, imitation
from simgan_aug.players import Regularization, one_cycle
from simgan_aug.state import STUDENT_BETAS

PENALTY = 0.1
"""r1 and r2 of the default loss."""


def plain_steps(
    refiner: nn.Module,
    discriminator: nn.Module,
    regularization: Regularization,
    synthetic: Iterator[Batch],
    real: Iterator[Batch],
    training: Training,
) -> Iterator[dict[str, float]]:
    """The same algorithm and the same draws as `simgan_aug.training.train`; yields the losses.

    Float32, images channel by channel, the discriminator shown one side after the other, every loss
    read when it is there, and torch's own convolutions. Networks are on the device to train on.
    """
    device = next(refiner.parameters()).device
    rates = training.refiner_rate, training.discriminator_rate
    optimizers = [
        torch.optim.Adam(network.parameters(), rate, training.betas)
        for network, rate in zip((refiner, discriminator), rates, strict=True)
    ]
    average, history = copy.deepcopy(refiner), HistoryBuffer(training.history)
    draws, chosen = torch.Generator(), torch.Generator()

    def refined(images: Tensor) -> Tensor:
        out: Tensor = refiner(images, noise=_noise(images, refiner, draws))
        return out

    for number in itertools.count():
        seed = training.seed * 1_000_003 + number
        draws.manual_seed(seed)
        chosen.manual_seed((seed * 1_000_003 + 1) % 2**63)
        x, y = (next(side).images.contiguous().to(device) for side in (synthetic, real))
        shown = refined(x)
        adversarial = F.softplus(discriminator(shown) - discriminator(y)).mean()
        held = regularization(shown, x, None)
        _descend(optimizers[0], adversarial + held)
        losses = {"adversarial": adversarial.item(), "regularization": held.item()}
        x, y = (next(side).images.contiguous().to(device) for side in (synthetic, real))
        with torch.no_grad():
            shown = refined(x)
        loss = _discriminator_loss(discriminator, history.mix(shown, chosen).contiguous(), y)
        _descend(optimizers[1], loss)
        with torch.no_grad():
            for kept, weight in zip(average.parameters(), refiner.parameters(), strict=True):
                kept.lerp_(weight, 1 - training.average)
        yield losses | {"discriminator": loss.item()}


def plain_student_steps(
    teacher: nn.Module, student: nn.Module, synthetic: Iterator[Batch], training: Training
) -> Iterator[dict[str, float]]:
    """The same for the steps of a student; yields the losses."""
    device = next(student.parameters()).device
    optimizer = torch.optim.Adam(student.parameters(), training.student_rate, STUDENT_BETAS)
    draws = torch.Generator()
    for number in range(training.student_steps):
        rate = training.student_rate * one_cycle(number, training.student_steps)
        optimizer.param_groups[0]["lr"] = rate
        x = next(synthetic).images.contiguous().to(device)
        draws.manual_seed(training.seed * 1_000_003 + number)
        grain = _noise(x, teacher, draws)  # both see the same
        with torch.no_grad():
            taught = teacher(x, noise=grain)
        loss = imitation(student(x, noise=grain), taught)
        _descend(optimizer, loss)
        yield {"student": loss.item()}


def _noise(images: Tensor, refiner: Any, draws: torch.Generator) -> Tensor:
    seeds = torch.randint(2**62, (len(images),), generator=draws).tolist()
    shape = (refiner.noise_channels, *images.shape[2:])
    return noise.of_keys(noise.keys(seeds).to(images.device), shape)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _discriminator_loss(critic: Critic, refined: Tensor, real: Tensor) -> Tensor:
    sides = [images.detach().requires_grad_() for images in (refined, real)]
    logits = [critic(images) for images in sides]
    loss = F.softplus(logits[1] - logits[0]).mean()
    for images, scores in zip(sides, logits, strict=True):
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        loss = loss + PENALTY / 2 * gradient.square().sum() / scores.numel()
    return loss
