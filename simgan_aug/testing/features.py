"""What a feature transform psi is held to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from simgan_aug.losses import FeatureTransform
from simgan_aug.testing.checks import differs, drawn, generators_kept, lesson, seeded
from simgan_aug.testing.networks import check_untouched

SIZES = ((16, 16), (8, 8), (9, 13), (37, 53))
"""Heights and widths; training crops have 8 px at least."""


@dataclass(frozen=True)
class FeatureSubject:
    """A feature transform, and the channels of the images that it is tried with."""

    psi: FeatureTransform
    channels: tuple[int, ...]

    def images(self, batch: int = 2) -> Iterator[Tensor]:
        """A batch for each number of channels."""
        yield from (drawn(batch, channels, 16, 20) for channels in self.channels)


def feature_maps(subject: FeatureSubject) -> None:
    """(B, C, H, W) becomes floats (B, F, h, w) at every size from 8 px."""
    for channels in subject.channels:
        for size in SIZES:
            out = subject.psi(drawn(2, channels, *size))
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            is_map = len(shape) == 4 and shape[0] == 2 and min(out.shape) >= 1
            assert is_map and out.is_floating_point(), lesson(  # noqa: PT018 (one claim)
                f"features (2, F, h, w) of images (2, {channels}, {size[0]}, {size[1]})",
                f"{shape} {getattr(out, 'dtype', '')}",
                "flattened features, or a factory: psi is registered itself, not what makes it",
                "keep rows and columns, by which weights per label are laid over the features",
            )


def finite(subject: FeatureSubject) -> None:
    """Features and their gradient are finite, of flat images and in bfloat16 too."""
    for images in subject.images():
        for value in (-1.0, 0.0, 1.0, None):
            given = images.clone() if value is None else torch.full_like(images, value)
            given.requires_grad_()
            for low in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=low):
                    out = subject.psi(given)
                (gradient,) = torch.autograd.grad(out.float().sum(), given)
                what = "a random image" if value is None else f"an image of {value:g} everywhere"
                held = (("features", out), ("gradients", gradient))
                bad = [name for name, each in held if not each.isfinite().all()]
                assert not bad, lesson(
                    f"finite features and gradients of {what}",
                    f"{' and '.join(bad)} that are not",
                    "the root of 0, whose slope is infinite; a division by a norm",
                    "add a small constant inside of the root or below the fraction",
                )


def gradients(subject: FeatureSubject) -> None:
    """A gradient reaches every image."""
    for images in subject.images():
        out = subject.psi(images.requires_grad_())
        reached = False
        if out.requires_grad:
            (gradient,) = torch.autograd.grad((out * drawn(*out.shape)).sum(), images)
            reached = bool(gradient.flatten(1).any(1).all())
        assert reached, lesson(
            "a gradient at every image, by which the refiner is held",
            "none",
            "torch.no_grad() around a pretrained network; rounding, argmax",
            "requires_grad_(False) on the network's weights instead",
        )


def input_untouched(subject: FeatureSubject) -> None:
    """Images are not changed in place."""
    for images in subject.images():
        given = images.clone()
        subject.psi(given)
        check_untouched({"images": images}, {"images": given})


def determinism(subject: FeatureSubject) -> None:
    """The same images give the same bits; global generators are neither asked nor moved."""
    for images in subject.images():
        values = []
        for seed in (1, 2):
            with seeded(seed):
                values.append(subject.psi(images))
        assert torch.equal(*values), lesson(
            "the same features twice",
            "others",
            "dropout in a network that was left in training mode; random projections drawn anew",
            ".eval(); draw once, from a generator of a fixed seed",
        )
        with generators_kept("in psi"):
            subject.psi(images)


def batch_independence(subject: FeatureSubject) -> None:
    """An image alone gives what it gives in a batch."""
    for images in subject.images(batch=3):
        apart = differs(subject.psi(images)[1:2], subject.psi(images[1:2]))
        assert not apart, lesson(
            "of an image alone what it gives in a batch of 3",
            f"values {apart:.2g} apart",
            "BatchNorm of a network that was left in training mode; a mean over the batch",
            ".eval()",
        )


def device(subject: FeatureSubject) -> None:
    """On a GPU, where there is one, it gives what it gives on the CPU."""
    if not torch.cuda.is_available():
        return
    for images in subject.images():
        here, there = subject.psi(images), subject.psi(images.cuda())
        apart = differs(here, there.cpu(), 1e-2)
        assert there.device.type == "cuda" and not apart, lesson(  # noqa: PT018 (one claim)
            "the same features, on the input's device",
            f"{apart:.2g} apart, on {there.device}",
            "a network or a kernel that stays where it was made",
            "move it to images.device",
        )


CLAIMS = (
    feature_maps,
    input_untouched,
    gradients,
    finite,
    determinism,
    batch_independence,
    device,
)
