"""What a further term of regularization is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from simgan_aug.factories import takes
from simgan_aug.terms import check_own
from simgan_aug.testing.checks import drawn, generators_kept, lesson, seeded
from simgan_aug.testing.networks import check_untouched
from simgan_aug.testing.subject import Subject

SIZES = ((16, 16), (8, 8), (33, 37))
"""Heights and widths of training crops."""


@dataclass(frozen=True)
class Term:
    """A term, the refiner that it was made for, and how many channels its images have."""

    call: Callable[..., Any]
    refiner: nn.Module
    made: Subject
    """What the refiner comes from."""
    channels: int

    def value(self, refined: Tensor, synthetic: Tensor, weights: Tensor | None = None) -> Tensor:
        """What is minimised; a draw is that of torch's generator, seeded."""
        with seeded(0):
            return cast(Tensor, self.call(self.refiner, refined, synthetic, weights))

    def pair(self, size: tuple[int, int] = (16, 20)) -> tuple[Tensor, Tensor]:
        """Refined, with a gradient to the refiner's weights, and synthetic images."""
        sample = self.made.sample(self.refiner, self.channels, size)
        return sample.through(self.refiner), sample.images


@dataclass(frozen=True)
class TermSubject:
    """A factory of terms."""

    make: Callable[..., Any]
    channels: tuple[int, ...]
    options: Mapping[str, Any]
    make_refiner: Callable[..., Any]

    def terms(self) -> Iterator[Term]:
        """A term, and its refiner, for each number of channels."""
        made = Subject(self.make_refiner, self.channels, {})
        for channels in self.channels:
            refiner = made.build(channels, train=True)
            given = {"channels": channels, "refiner": refiner}
            wanted = {name: each for name, each in given.items() if takes(self.make, name)}
            with seeded(0):
                call = self.make(**wanted, **self.options)
            assert callable(call), lesson(
                "from the factory a callable (refiner, refined, synthetic, weights) -> scalar",
                type(call).__name__,
                "the term itself was registered, or its factory has no `return`",
            )
            yield Term(call, refiner, made, channels)


def scalar(subject: TermSubject) -> None:
    """A finite scalar, with and without weights by pixel, at every size, of flat images too."""
    for term in subject.terms():
        for size in SIZES:
            refined, synthetic = term.pair(size)
            for weights in (None, drawn(2, 1, *size, low=0)):
                _check_scalar(term.value(refined, synthetic, weights), f"images of {size}")
        for level in (-1.0, 0.0, 1.0):
            flat = torch.full((2, term.channels, 16, 16), level)
            _check_scalar(term.value(flat.clone(), flat), f"images that are {level:g} everywhere")


def gradients(subject: TermSubject) -> None:
    """A finite gradient reaches every refined image, and every weight that the term has."""
    for term in subject.terms():
        refined, synthetic = term.pair()
        refined = refined.detach().requires_grad_()
        own = term.call.named_parameters() if isinstance(term.call, nn.Module) else ()
        wanted = {"the refined images": refined}
        wanted |= {f"its weight {name}": each for name, each in own if each.requires_grad}
        value = term.value(refined, synthetic)
        found: list[Tensor | None] = [None] * len(wanted)
        if value.requires_grad:
            found = list(torch.autograd.grad(value, list(wanted.values()), allow_unused=True))
        for name, gradient in zip(wanted, found, strict=True):
            is_own = name != "the refined images"  # of which one, a bias, may cancel out
            reached = gradient is not None and (is_own or bool(gradient.any()))
            assert reached and gradient.isfinite().all(), lesson(  # type: ignore[union-attr]  # noqa: PT018
                f"a finite gradient at {name}",
                "values that are not" if reached else "none",
                ".detach(), torch.no_grad() or .item() on the way from refined to the value",
                "detach what comes of `synthetic`, if anything",
            )
        _check_finite_at_rest(term, synthetic)


def input_untouched(subject: TermSubject) -> None:
    """Neither images nor the refiner are changed."""
    for term in subject.terms():
        refined, synthetic = (each.detach() for each in term.pair())
        weights = drawn(2, 1, 16, 20, low=0)
        before = {"refined": refined, "synthetic": synthetic, "weights": weights}
        before |= term.refiner.state_dict()
        before = {name: each.clone() for name, each in before.items()}
        term.value(refined, synthetic, weights)
        after = {"refined": refined, "synthetic": synthetic, "weights": weights}
        check_untouched(before, after | term.refiner.state_dict())


def determinism(subject: TermSubject) -> None:
    """With torch's generator at the same seed it gives the same bits; it moves no other."""
    for term in subject.terms():
        refined, synthetic = (each.detach() for each in term.pair())
        values = []
        for seed in (1, 2):
            with seeded(seed, torch_seed=0):
                values.append(term.call(term.refiner, refined, synthetic, None))
        assert torch.equal(*values), lesson(
            "the same value twice, with torch's generator at the same seed",
            " and ".join(f"{value.item():g}" for value in values),
            "a draw from numpy or random, or a counter",
            "draw with torch, whose generator is seeded for each call",
        )
        with generators_kept("in the term", allowed=("torch",)):
            term.call(term.refiner, refined, synthetic, None)


def owns_no_refiner(subject: TermSubject) -> None:
    """It has no weights of the refiner among its own: they would be trained and saved twice."""
    for term in subject.terms():
        check_own({"of this plugin": term.call}, term.refiner)


def _check_scalar(value: Any, of: str) -> None:
    assert isinstance(value, Tensor) and value.ndim == 0, lesson(  # noqa: PT018 (one claim)
        f"a scalar tensor of {of}",
        str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value),
        "the reduction is missing, or .item() at the end",
        "end with .mean()",
    )
    assert value.isfinite(), lesson(
        f"a finite value of {of}",
        f"{value.item()}",
        "a division by a norm or a deviation that is 0",
        "add a small constant below the fraction",
    )


def _check_finite_at_rest(term: Term, synthetic: Tensor) -> None:
    """Hold the gradient where nothing has changed yet, as before the first step."""
    refined = synthetic.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(term.value(refined, synthetic), refined)
    assert gradient.isfinite().all(), lesson(
        "a finite gradient where refined equals synthetic, as at the start of a training",
        "values that are not",
        "the root of 0, whose slope is infinite",
        "add a small constant inside of the root",
    )


CLAIMS = (scalar, input_untouched, owns_no_refiner, gradients, determinism)
