"""What an adversarial loss is held to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from simgan_aug.losses import AdversarialLoss, Critic
from simgan_aug.testing.checks import differs, drawn, generators_kept, lesson, seeded
from simgan_aug.testing.networks import check_untouched

PLAYERS = ("refiner", "discriminator")


@dataclass(frozen=True)
class LossSubject:
    """A factory of losses, and what they are called with."""

    make: Callable[..., Any]
    options: Mapping[str, Any]

    def build(self) -> AdversarialLoss:
        """A loss.

        Raises:
            AssertionError: it lacks a method.
        """
        loss: AdversarialLoss = self.make(**self.options)
        for player in PLAYERS:
            assert callable(getattr(loss, player, None)), lesson(
                "an object with the methods refiner and discriminator",
                f"{type(loss).__name__} without {player}",
                "the factory returns the wrong thing, or a method has another name",
                "see simgan_aug.losses.AdversarialLoss",
            )
        return loss

    def terms(self, critic: Critic, batch: int = 4) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Either term of a fresh loss: whose it is, its value, refined and real."""
        for player in PLAYERS:
            refined, real = drawn(batch, 3, 16, 16), drawn(batch, 3, 16, 16, seed=1)
            if player == "refiner":
                refined.requires_grad_()
            yield player, getattr(self.build(), player)(critic, refined, real), refined, real


def critic(scale: float = 1.0) -> nn.Module:
    """A small discriminator with weights of a seed."""
    with seeded(0):
        layers = nn.Sequential(nn.Conv2d(3, 8, 4, 2), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3))
    with torch.no_grad():
        for weight in layers.parameters():
            weight.mul_(scale)
    return layers


def scalars(subject: LossSubject) -> None:
    """Both terms are finite scalars, for logits of any size: of patches, huge, in bfloat16."""
    for scale, low in itertools.product((1.0, 100.0), (False, True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            for player, value, *_ in subject.terms(critic(scale)):
                assert isinstance(value, Tensor) and value.ndim == 0, lesson(  # noqa: PT018
                    f"a scalar tensor as the {player}'s term",
                    str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value),
                    "the reduction is missing, or .item() at the end",
                    "end with .mean()",
                )
                assert value.isfinite(), lesson(
                    f"a finite {player}'s term",
                    f"{value.item()} for logits some {scale**2:g} times as large as at the start",
                    "log(sigmoid(x)), exp(x)",
                    "F.softplus, F.binary_cross_entropy_with_logits, F.logsigmoid",
                )


def gradients(subject: LossSubject) -> None:
    """The refiner's term has a gradient at each refined image, the other at the critic's weights.

    The critic's weights are fixed in the refiner's update, as they are in training. Those of its
    last layer may be left out: a loss of differences has no gradient at their bias.
    """
    network = critic().requires_grad_(False)
    player, value, refined, _ = next(subject.terms(network))
    _check_gradient(player, value, {"the refined images": refined})
    (gradient,) = torch.autograd.grad(value, refined)
    assert gradient.flatten(1).any(1).all(), lesson(
        "a gradient of the refiner's term at every refined image",
        "0 at some",
        "a maximum or a threshold that leaves images out",
        "end with .mean()",
    )
    player, value, *_ = list(subject.terms(network.requires_grad_(True)))[1]
    _check_gradient(player, value, {"the critic's first layer": next(network.parameters())})


def direction(subject: LossSubject) -> None:
    """Logits are of "refined": the refiner lowers them; the critic raises them, and lowers real's.

    Looked at where both are 0.5, between the two targets.
    """
    for player, side, sign in (
        ("refiner", "refined", 1),
        ("discriminator", "refined", -1),
        ("discriminator", "real", 1),
    ):
        values = []
        for logit in (0.49, 0.51):
            given = {"refined": 0.5, "real": 0.5, side: logit}
            images = [torch.full((2, 1, 3, 3), given[name]) for name in ("refined", "real")]
            values.append(getattr(subject.build(), player)(_as_logits, *images).item())
        rise = values[1] - values[0]
        assert rise * sign > 0, lesson(
            f"a {player}'s term that {'rises' if sign > 0 else 'falls'} as {side} logits rise",
            "it stays" if rise == 0 else "the reverse",
            "the targets of most GANs; here 1 stands for refined and 0 for real (paper, eq. 2)",
            "swap the two targets",
        )


def real_ignored(subject: LossSubject) -> None:
    """A loss that does not declare `pairs_real` ignores real images in the refiner's term."""
    loss, network, refined = subject.build(), critic(), drawn(4, 3, 16, 16)
    if getattr(loss, "pairs_real", False):
        return
    one, other = (loss.refiner(network, refined, drawn(4, 3, 16, 16, seed=n)) for n in (1, 2))
    assert torch.equal(one, other), lesson(
        "the same refiner's term whatever the real images",
        f"{one.item():g} and {other.item():g}",
        "a relativistic term without `pairs_real`: it is then given refined images as real ones",
        "pairs_real = True, as an attribute of the class",
    )


def shares(subject: LossSubject) -> None:
    """A batch's term is the mean over its halves (the sum, where `reduction` is "sum")."""
    network, contrast = critic(5), torch.tensor([0.1, 0.2, 0.8, 1.0])[:, None, None, None]
    refined, real = drawn(4, 3, 16, 16) * contrast, drawn(4, 3, 16, 16, seed=1) * contrast
    for player in PLAYERS:
        term = getattr(subject.build(), player)
        whole = term(network, refined, real)
        halves = term(network, refined[:2], real[:2]) + term(network, refined[2:], real[2:])
        is_sum = getattr(subject.build(), "reduction", "mean") == "sum"
        expected = halves if is_sum else halves / 2
        assert not differs(whole, expected), lesson(
            f"of a batch the {'sum' if is_sum else 'mean'} of the {player}'s terms of its halves, "
            f"{expected.item():g}",
            f"{whole.item():g}",
            "a sum without reduction = 'sum' as an attribute; a statistic of the batch",
            "one value per image or patch, and .mean() at the end; n GPUs compute n shares",
        )


def determinism(subject: LossSubject) -> None:
    """The same images give the same bits; global generators are neither asked nor moved."""
    network, values = critic(), []
    for seed in (1, 2):
        with seeded(seed):
            values.append([value.detach() for _, value, *_ in subject.terms(network)])
    for player, one, other in zip(PLAYERS, *values, strict=True):
        assert torch.equal(one, other), lesson(
            f"the same {player}'s term twice",
            f"{one.item():g} and {other.item():g}",
            "torch.rand inside: a training that is resumed would go on otherwise",
            "leave the draw out, or draw from a generator of a fixed seed",
        )
    with generators_kept("in one of the terms"):
        list(subject.terms(network))


def input_untouched(subject: LossSubject) -> None:
    """Images are not changed in place."""
    refined, real = drawn(4, 3, 16, 16), drawn(4, 3, 16, 16, seed=1)
    for player in PLAYERS:
        given = refined.clone(), real.clone()
        getattr(subject.build(), player)(critic(), *given)
        names = ("refined", "real")
        check_untouched(
            dict(zip(names, (refined, real), strict=True)), dict(zip(names, given, strict=True))
        )


def _as_logits(images: Tensor) -> Tensor:
    """A critic whose input is its answer."""
    return images * 1.0


def _check_gradient(player: str, value: Tensor, wanted: Mapping[str, Tensor]) -> None:
    found: list[Tensor | None] = [None] * len(wanted)
    if value.requires_grad:
        given = list(wanted.values())
        found = list(torch.autograd.grad(value, given, retain_graph=True, allow_unused=True))
    for name, gradient in zip(wanted, found, strict=True):
        is_there = gradient is not None and bool(gradient.any())
        assert is_there and gradient.isfinite().all(), lesson(  # type: ignore[union-attr]  # noqa: PT018
            f"a finite gradient of the {player}'s term at {name}",
            "values that are not" if is_there else "none",
            ".detach() or torch.no_grad() on the wrong side, .item(), rounding",
            "detach refined images in `discriminator` alone, and critic's answers nowhere",
        )


CLAIMS = (
    scalars,
    input_untouched,
    determinism,
    gradients,
    direction,
    real_ignored,
    shares,
)
