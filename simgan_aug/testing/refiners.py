"""What a refiner is held to beside what every network is."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from simgan_aug.networks.contract import to_channels_last
from simgan_aug.testing import networks
from simgan_aug.testing.checks import differs, lesson
from simgan_aug.testing.fields import receptive_field
from simgan_aug.testing.subject import Sample, Subject
from simgan_aug.testing.tiles import multiple, tiles

SIZES = ((16, 16), (1, 1), (1, 2), (2, 1), (1, 9), (3, 3), (5, 7), (17, 4), (37, 53))
"""Heights and widths, odd and small ones among them."""

GREY_LEVELS = 255 / 2
"""A unit of [-1, 1], in grey levels."""


def sizes(subject: Subject) -> None:
    """An image of any height and width comes out as large as it was, with as many channels."""
    for size in SIZES:
        for network, sample in subject.cases(size):
            out, shape = _called(network, sample), tuple(sample.images.shape)
            assert isinstance(out, Tensor), lesson("a tensor", type(out).__name__, "no `return`")
            assert out.shape == shape, lesson(
                f"the shape that came in, {shape}",
                str(tuple(out.shape)),
                "strides or pooling, which round odd sizes down; a fixed number of channels",
                "pad to a multiple before and crop after, padding='same', `channels` at both ends",
            )


def dtype(subject: Subject) -> None:
    """An image of float32 comes out as float32."""
    for network, sample in subject.cases():
        out = _called(network, sample)
        assert out.dtype == torch.float32, lesson(
            "torch.float32, as the input", str(out.dtype), "a constant of numpy's, in float64"
        )


def memory_format(subject: Subject) -> None:
    """Images and weights in channels_last memory, as inference holds them, give the same."""
    for network, sample in subject.cases():
        plain = _called(network, sample)
        inner = copy.deepcopy(network)
        to_channels_last(inner)
        images = sample.images.contiguous(memory_format=torch.channels_last)
        moved = _called(inner, Sample(images, sample.extra))
        apart = differs(plain, moved)
        assert not apart, lesson(
            "the same values in channels_last memory",
            f"values {apart:.2g} apart",
            ".view() or .as_strided(), which follow memory",
            "use .reshape() or .flatten()",
        )


def export(subject: Subject) -> None:
    """`torch.export` takes it at a fixed size, and what it gives computes the same."""
    for network, sample in subject.with_channels(subject.channels[-1:]).cases((16, 24)):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own, of its insides
            program = torch.export.export(network, (sample.images,), dict(sample.extra))
            exported = program.module()(sample.images, **sample.extra)
            apart = differs(sample.through(network), exported)
        assert not apart, lesson(
            "of the exported program what the network gives",
            f"values {apart:.2g} apart",
            "a Python value that was taken from a tensor and is now a constant",
            "keep to tensor operations in forward",
        )


def change_limit(subject: Subject) -> None:
    """No weights make it change a pixel by more than it declares in `change_limit`."""
    for network, sample in subject.cases():
        limit = float(getattr(network, "change_limit", 0))
        if not limit:
            continue
        for factor in (1, 20, 20):
            with torch.no_grad():
                for weight in network.parameters():
                    weight.mul_(factor)
            change = (_called(network, sample) - sample.images).abs() * GREY_LEVELS
            largest = change[change.isfinite()].max().item()
            assert largest <= limit * 1.001 + 1e-3, lesson(
                f"a change of at most {limit:g} grey levels (change_limit), whatever the weights",
                f"{largest:.4g}",
                "the bound is on a layer inside, or counts units of [-1, 1], of which 2 are 255",
                "images + bound * torch.tanh(change / bound), bound = change_limit * 2 / 255",
            )


def _called(network: nn.Module, sample: Sample) -> Tensor:
    with torch.no_grad():
        return sample.through(network)


CLAIMS = (
    networks.weights,
    sizes,
    dtype,
    networks.finite,
    networks.autocast,
    networks.input_untouched,
    networks.determinism,
    networks.global_random_state,
    networks.batch_independence,
    networks.gradients,
    networks.state_round_trip,
    memory_format,
    networks.device,
    networks.recordable,
    change_limit,
    receptive_field,
    multiple,
    tiles,
    export,
)
