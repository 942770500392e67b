"""What a pixel may depend on: the declared receptive field."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from simgan_aug.networks.contract import halo
from simgan_aug.testing.checks import differs, lesson
from simgan_aug.testing.subject import Sample, Subject

GLOBAL = (
    "a statistic of the whole image (mean, normalisation, pooling to 1x1, attention), or layers "
    "that were added after the number was written down"
)
REMEDY = (
    "declare the true width, or none: without receptive_field the refiner works as well, but large "
    "images need the memory for them"
)


def receptive_field(subject: Subject) -> None:
    """A pixel depends on nothing outside of the declared `receptive_field`, by any path."""
    for channels in subject.channels:
        network = subject.build(channels)
        field = declared(network)
        if field is None:
            continue
        measured = max(_span(subject, network, channels, phase) for phase in _phases(network))
        assert measured <= field, lesson(
            f"that an output depends on at most receptive_field = {field} px each way",
            f"{measured} px or more, by its gradient",
            GLOBAL,
            REMEDY,
        )
        if subject.is_refiner:
            _check_outside(subject, network, channels)
        if field > 2 * measured:
            warnings.warn(
                f"receptive_field = {field}, of which {measured} px were seen to matter: a "
                "narrower one makes tiles cheaper",
                stacklevel=3,
            )


def declared(network: nn.Module) -> int | None:
    """The receptive field that a network declares, in px; None: the whole image."""
    field = getattr(network, "receptive_field", None)
    whole = isinstance(field, int) and not isinstance(field, bool)
    assert field is None or (whole and field > 0), lesson(
        "receptive_field: a whole number of px, or None", repr(field), "computed with / for //"
    )
    return field


def grid_of(network: nn.Module) -> int:
    """The grid that its arithmetic is bound to, in px."""
    grid = getattr(network, "multiple", 1)
    assert isinstance(grid, int), lesson("multiple: a whole number of px", repr(grid), "a float")
    return grid


def _phases(network: nn.Module) -> list[int]:
    """Places within a block of the grid, of which each may see another span."""
    grid = grid_of(network)
    return sorted({0, 1 % grid, grid - 1})


def _centre(network: nn.Module) -> tuple[int, int]:
    """Side of an image that has room for the field, and a place on the grid in its middle."""
    margin, grid = halo(network) or 0, grid_of(network)
    middle = (margin // grid + 8) * grid
    return 2 * middle + grid, middle


def _span(subject: Subject, network: nn.Module, channels: int, phase: int) -> int:
    """Px that one output in the middle depends on, the wider way, where its gradient is not 0."""
    side, middle = _centre(network)
    sample = subject.sample(network, channels, (side, side), batch=1)
    try:  # far paths are many small factors
        inner, given = copy.deepcopy(network).double(), sample.map(Tensor.double)
        out = _given_gradient(given).through(inner)
    except RuntimeError:  # a constant of float32
        given = sample
        out = _given_gradient(given).through(network)
    row, column = ((middle + phase) * s // side for s in out.shape[2:])
    (gradient,) = torch.autograd.grad(out[0, :, row, column].sum(), given.images)
    strength = gradient[0].abs().amax(0)  # (H, W)
    noise = strength.max() * (1e-14 if strength.dtype == torch.float64 else 1e-6)
    spans = []
    for axis in (0, 1):
        seen = (strength.amax(axis) > noise).nonzero().flatten()
        spans.append(int(seen[-1] - seen[0]) + 1 if len(seen) else 0)
    return max(spans)


def _given_gradient(sample: Sample) -> Sample:
    sample.images.requires_grad_()
    return sample


def _check_outside(subject: Subject, network: nn.Module, channels: int) -> None:
    """Hold a pixel to its value while all outside of its halo is replaced."""
    side, middle = _centre(network)
    sample = subject.sample(network, channels, (side, side), batch=1)
    other = subject.sample(network, channels, (side, side), batch=1, seed=7)
    margin = halo(network) or 0
    for phase in _phases(network):
        place = middle + phase
        window = slice(max(0, place - margin), place + margin + 1)
        for fill in (other, other.map(torch.zeros_like), other.map(torch.ones_like)):
            replaced = sample.over(fill, window)
            with torch.no_grad():
                value, changed = (each.through(network) for each in (sample, replaced))
            apart = differs(value[..., place, place], changed[..., place, place])
            assert not apart, lesson(
                f"a pixel as it was while all further than {margin} px from it is replaced "
                f"(receptive_field = {declared(network)})",
                f"a change by {apart:.2g}",
                GLOBAL,
                REMEDY,
            )
