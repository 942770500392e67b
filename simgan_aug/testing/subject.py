"""A factory of networks under test, and what its networks are called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from simgan_aug.networks.contract import condition, takes_reference, with_tone
from simgan_aug.testing.checks import drawn, lesson, seeded
from simgan_aug.tone import histogram, quantiles

Size = tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """A batch of images and what a network is called with beside them."""

    images: Tensor
    extra: Mapping[str, Tensor]

    def through(self, network: nn.Module) -> Tensor:
        """What the network makes of it."""
        try:
            return cast(Tensor, network(self.images, **self.extra))
        except Exception as error:
            error.add_note(f"(called with images {tuple(self.images.shape)})")
            raise

    def map(self, change: Callable[[Tensor], Tensor]) -> Sample:
        """The same with each tensor changed."""
        return Sample(change(self.images), {k: change(each) for k, each in self.extra.items()})

    def over(self, other: Sample, window: slice) -> Sample:
        """Another sample, with rows and columns of a window from this one; the same reference."""

        def pasted(mine: Tensor, theirs: Tensor) -> Tensor:
            if mine.ndim != 4:
                return mine
            both = theirs.clone()
            both[:, :, window, window] = mine[:, :, window, window]
            return both

        mine, theirs = self.tensors(), other.tensors()
        joined = {name: pasted(mine[name], theirs[name]) for name in mine}
        return Sample(joined.pop("images"), joined)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the name of their argument."""
        return {"images": self.images, **self.extra}


@dataclass(frozen=True)
class Subject:
    """A factory, and networks of it, made alike each time."""

    make: Callable[..., Any]
    channels: tuple[int, ...]
    """Of images, each of which is tried."""
    options: Mapping[str, Any]
    smallest: int = 1
    """Px of the shortest side that it must take."""
    is_refiner: bool = True

    def build(self, channels: int, train: bool = False, seed: int = 0) -> nn.Module:
        """A network with weights of a seed; those that start at 0 are not, or nothing would show.

        Raises:
            AssertionError: it is no `nn.Module`.
        """
        with seeded(seed):
            network = self.make(channels=channels, **self.options)
            assert isinstance(network, nn.Module), lesson(
                "an nn.Module from the factory",
                type(network).__name__,
                "the factory is called with `channels` and the options, and must return a network",
            )
            for weight in network.parameters():
                if not weight.any():
                    nn.init.normal_(weight, std=0.2)
        return network.train(train)

    def sample(
        self, network: nn.Module, channels: int, size: Size, batch: int = 2, seed: int = 0
    ) -> Sample:
        """Images of a seed, as this network takes them."""
        images = drawn(batch, channels, *size, seed=seed)
        reference = tones(batch, channels, seed + 1) * 2 - 1
        if not self.is_refiner:
            return Sample(with_tone(images, reference) if takes_reference(network) else images, {})
        noise_channels = int(getattr(network, "noise_channels", 0))
        generator = torch.Generator().manual_seed(seed + 2)
        noise = torch.randn(batch, noise_channels, *size, generator=generator)
        return Sample(images, condition(network, noise, reference))

    def cases(
        self, size: Size = (24, 20), train: bool = False, batch: int = 2
    ) -> Iterator[tuple[nn.Module, Sample]]:
        """A network and a sample for each number of channels."""
        size = (max(size[0], self.smallest), max(size[1], self.smallest))
        for channels in self.channels:
            network = self.build(channels, train)
            yield network, self.sample(network, channels, size, batch)

    def with_channels(self, channels: tuple[int, ...]) -> Subject:
        """The same for fewer channels, where a check is slow."""
        return replace(self, channels=channels)


def tones(count: int, channels: int, seed: int = 0) -> Tensor:
    """Tones of photos, as a `Bank` holds them: (count, C, Q) in [0, 1]."""
    photos = drawn(count, channels, 8, 8, seed=seed, low=0)
    toned = (photo ** (number + 1) for number, photo in enumerate(photos))
    return torch.stack([quantiles(histogram(photo)) for photo in toned])
