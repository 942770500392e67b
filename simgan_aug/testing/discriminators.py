"""What a discriminator is held to beside what every network is."""

from __future__ import annotations

import torch
from torch import Tensor

from simgan_aug.testing import networks
from simgan_aug.testing.checks import lesson
from simgan_aug.testing.fields import receptive_field
from simgan_aug.testing.subject import Sample, Subject

SMALLEST = 8
"""Px of the shortest side of a training crop."""

SIZES = ((16, 16), (8, 8), (9, 13), (33, 35), (37, 53))
"""Heights and widths, odd and small ones among them."""


def logit_map(subject: Subject) -> None:
    """Images of any height and width from 8 px give one map of logits each."""
    for size in SIZES:
        for network, sample in subject.cases(size):
            with torch.no_grad():
                out = sample.through(network)
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            is_map = isinstance(shape, tuple) and len(shape) == 4 and shape[:2] == (2, 1)
            assert is_map and min(shape[2:]) >= 1, lesson(  # noqa: PT018
                "logits (2, 1, h, w) of 2 images " + "x".join(map(str, size)),
                str(shape),
                "flattened at the end, two maps as for a softmax, or a fixed input size",
                "end with a convolution to one channel; of two maps return the difference",
            )
            assert out.is_floating_point(), lesson("floats", str(out.dtype), "a comparison")


def unbounded(subject: Subject) -> None:
    """Logits have no limit: a loss takes the sigmoid itself."""
    for network, sample in subject.cases((64, 64), batch=8):
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(3)
            logits = Sample(sample.images * 100, {}).through(network).double().flatten()
        logits = logits[logits.isfinite()]
        low, high = logits.min(), logits.max()
        rim = 1e-3 * (high - low)
        crowded = max((logits <= low + rim).double().mean(), (logits >= high - rim).double().mean())
        assert crowded < 1 / 3, lesson(
            "logits that spread out, where weights and images are large",
            f"{crowded:.0%} of them at one limit (all lie in [{low:.3g}, {high:.3g}])",
            "a sigmoid, tanh, ReLU or clamp at the end, which leaves no gradient to the refiner",
            "return what goes into it",
        )


def batch_independence(subject: Subject) -> None:
    """If it declares itself `independent`: an image alone gives what it gives in a batch."""
    if all(getattr(network, "independent", False) for network, _ in subject.cases(train=False)):
        networks.batch_independence(subject)


CLAIMS = (
    networks.weights,
    logit_map,
    networks.finite,
    networks.autocast,
    networks.input_untouched,
    networks.determinism,
    networks.global_random_state,
    batch_independence,
    networks.gradients,
    unbounded,
    networks.state_round_trip,
    networks.device,
    networks.recordable,
    receptive_field,
)
