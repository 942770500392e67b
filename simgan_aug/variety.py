"""How the refined forms of one image vary: what is drawn for it, and from what.

Variety is worth as much as realism: a method that draws another reference and other noise for every
image covers the spread of the real photos, one fixed refined form is their mean
(examples/study/RESULTS.md).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from simgan_aug import draws
from simgan_aug.draws import Bits
from simgan_aug.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Form(NamedTuple):
    """One refined form of an image: what `ImageRefiner` is called with."""

    strength: float
    """Share of the change, in [0, 1]."""
    seed: int
    """Draws noise and reference; below 2^63."""


@dataclass(frozen=True)
class Variety:
    """Draws the forms of an image.

    Args:
        strength: one number in [0, 1], or the two ends of a range that is drawn from evenly.
        variants: forms that one image has; 0: a new one at every draw. A cache needs 1 or more, for
            it is worth what comes again.

    Raises:
        ConfigError: impossible values.
    """

    strength: float | tuple[float, float] = 1.0
    variants: int = 0

    def __post_init__(self) -> None:
        """Reject impossible values."""
        try:
            low, high = self.range
            possible = 0 <= low <= high <= 1
        except (TypeError, ValueError):  # neither a number nor two
            possible = False
        if not possible:
            raise ConfigError(
                f"strength must be a number in [0, 1] or two ascending ones, got {self.strength!r}"
            )
        if not isinstance(self.variants, (int, np.integer)) or self.variants < 0:
            raise ConfigError(f"variants must be 0 or more, and whole, got {self.variants!r}")

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest strength."""
        if isinstance(self.strength, (int, float, np.number)):
            return float(self.strength), float(self.strength)
        low, high = self.strength
        return low, high

    def draw(self, rng: np.random.Generator, identity: int = 0) -> Form:
        """A form of an image.

        Args:
            rng: where the draws come from.
            identity: tells images apart (its id, or a hash of its content); it and the number of
                the form are all that a form depends on if there are `variants`.
        """
        (form,) = self.forms(rng.integers(2**64, size=1, dtype=np.uint64), [identity])
        return form

    def forms(self, words: Bits, identities: Sequence[int]) -> list[Form]:
        """A form of each image.

        Args:
            words: (N,) random bits, which decide as `rng` does in `draw`.
            identities: of the N images.
        """
        # What has one outcome is not drawn: a fifth of what a cached image would cost.
        if self.variants:
            numbers = np.zeros(len(words), np.uint64)
            if self.variants > 1:
                numbers = (draws.uniforms(words, draws.VARIANT) * self.variants).astype(np.uint64)
            words = draws.keyed(numbers, identities)
        low, high = self.range
        strengths = np.full(len(words), low, np.float64)
        if low < high:
            strengths += (high - low) * draws.uniforms(words, draws.STRENGTH)
        seeds = draws.bits(words, draws.SEED) >> np.uint64(1)
        drawn = zip(np.minimum(strengths, high).tolist(), seeds.tolist(), strict=True)
        return [Form(*each) for each in drawn]


def check_probability(p: float, name: str = "p") -> None:
    """Reject what is no probability.

    Raises:
        ConfigError: says what came.
    """
    try:
        possible = 0 <= p <= 1
    except TypeError:  # no number
        possible = False
    if not possible:
        raise ConfigError(f"{name} must lie in [0, 1], got {p!r}")


def check_seed(seed: Any) -> int:
    """A seed as an int.

    Raises:
        ConfigError: it is no whole number.
    """
    try:
        return operator.index(seed)
    except TypeError:
        raise ConfigError(f"seed must be a whole number, got {seed!r}") from None


def identity_of(contents: Iterable[Buffer]) -> int:
    """A number that tells images, or names, apart by their bytes, one after the other; the same on
    every machine."""
    hashed = xxhash.xxh3_64()
    for content in contents:
        hashed.update(content)
    return hashed.intdigest()
